//! A network in a TorchScript file.

use crate::{Error, Result};
use diver_loaders::Digest;
use std::path::{Path, PathBuf};
use tch::{CModule, Device, IValue, Kind, TchError, Tensor};

/// A network that torch saved together with its code.
#[derive(Debug)]
pub(super) struct Script {
    path: PathBuf,
    module: CModule,
    /// The dtype of its weights.
    kind: Kind,
}

impl Script {
    /// Reads the file, and returns its hash with it.
    pub(super) fn read(path: &Path, device: Device) -> Result<(Self, Digest)> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "cannot read"))?;
        let refused = |error: TchError| {
            // What follows libtorch's first sentence takes the file for damaged.
            let why = reason(&error);
            let why = why.split(". ").next().unwrap_or_default();
            let hint = "save the network with torch.jit.script(network).save(path), or give weights alone to a network \
                        that diver knows, such as ResNet18";
            Error::file(path, format!("is not a TorchScript file ({why}); {hint}"))
        };
        let mut module = CModule::load_data_on_device(&mut &bytes[..], device).map_err(refused)?;
        match module.f_set_eval() {
            // `torch.jit.freeze` takes networks in evaluation mode alone, and drops what tells the mode.
            Err(error) if !error.to_string().contains("'training' attribute not found") => {
                return Err(refused(error));
            }
            _ => {}
        }
        let parameters = module.named_parameters().map_err(refused)?;
        let kind = parameters.iter().find(|(_, values)| values.is_floating_point());
        let kind = kind.map_or(Kind::Float, |(_, values)| values.kind());
        Ok((Self { path: path.to_owned(), module, kind }, Digest::of(&bytes)))
    }

    /// The dtype in which it computes.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// What its `forward` returns for images on its device.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let failed = |error: TchError| {
            let error = Error::from(TchError::Torch(reason(&error)));
            if error.is_out_of_memory() {
                return error;
            }
            Error::file(
                &self.path,
                format!("the network does not take images of shape {:?}: {error}", images.size()),
            )
        };
        match self.module.forward_is(&[IValue::Tensor(images.shallow_clone())]).map_err(failed)? {
            IValue::Tensor(logits) => Ok(logits),
            other => {
                let reason =
                    format!("the network returned {}, expected one tensor of logits", described(&other));
                Err(Error::file(&self.path, reason))
            }
        }
    }
}

fn described(value: &IValue) -> String {
    match value {
        IValue::Tuple(values) => format!("a tuple of {}", values.len()),
        IValue::TensorList(values) => format!("a list of {} tensors", values.len()),
        IValue::GenericDict(entries) => format!("a dictionary of {}", entries.len()),
        IValue::None => "nothing".to_owned(),
        _ => "something that is not a tensor".to_owned(),
    }
}

/// The sentence that says what went wrong: of an error within a network, libtorch shows the network's code first, and
/// its own stack last.
fn reason(error: &TchError) -> String {
    let TchError::Torch(text) = error else { return error.to_string() };
    let own = text.lines().find_map(|line| line.split_once("Error: ").filter(|(kind, _)| is_word(kind)));
    let line = own.map(|(_, rest)| rest).or_else(|| text.lines().find(|line| !line.trim().is_empty()));
    line.unwrap_or_default().trim().to_owned()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_of_an_error_is_found_in_it() {
        let of = |text: &str| reason(&TchError::Torch(text.to_owned()));
        let within = "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript:\n  File \
                      \"code/a.py\", line 3\n    x = torch.conv2d(x)\nRuntimeError: expected 3 channels\nframe #0: c10";
        assert_eq!(of(within), "expected 3 channels");
        assert_eq!(of("CUDA out of memory. Tried\nException raised from x\n"), "CUDA out of memory. Tried");
        let full = within.replace("expected 3 channels", "CUDA out of memory.");
        assert!(Error::from(TchError::Torch(of(&full))).is_out_of_memory());
        assert_eq!(of(""), "");
    }
}
