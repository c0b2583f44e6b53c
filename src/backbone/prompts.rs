//! The texts by which a text-conditioned model knows classes.

use crate::{Error, Result};
use diver_loaders::{Conditioning, imagenet};
use serde::Serialize;

/// Where a template wants the name.
const PLACE: &str = "{}";

/// What is said of an image by default.
pub(super) const TEMPLATE: &str = "a photo of a {}";

/// A text for each class: a template with the class's name.
///
/// ```no_run
/// use diver::{Conditioning, Refiner};
///
/// let refiner = Refiner::from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")?;
/// let prompts = refiner.backbone()?.network().prompts().ok_or("a backbone that is asked by class")?;
/// assert_eq!(prompts.text(&Conditioning::Class(217))?, "a photo of a English springer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompts {
    template: String,
    names: Vec<String>,
}

impl Prompts {
    /// `names` of the classes in order, ImageNet-1K's unless given.
    ///
    /// # Errors
    /// [`Error::Knob`] if the template has no place for a name, or there are no names, or one is empty.
    pub(super) fn new(template: &str, names: Option<Vec<String>>) -> Result<Self> {
        if template.matches(PLACE).count() != 1 {
            let reason = format!("`{template}` does not have one {PLACE}, where the class's name goes");
            return Err(Error::knob("prompt", reason));
        }
        let names = names.unwrap_or_else(|| {
            (0..imagenet::CLASSES).filter_map(imagenet::name).map(str::to_owned).collect()
        });
        if let Some(empty) = names.iter().position(|name| name.trim().is_empty()) {
            return Err(Error::knob("class_names", format!("the name of class {empty} is empty")));
        }
        if names.is_empty() {
            return Err(Error::knob("class_names", "there is none: one for each class is expected"));
        }
        Ok(Self { template: template.to_owned(), names })
    }

    /// The template, with one `{}`.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.template
    }

    /// The names of the classes, in their order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The text for what a sample shows: the template with its class's name, or its own prompt as it is.
    ///
    /// # Errors
    /// [`Error::Conditioning`] if there is no name for the class.
    pub fn text(&self, shown: &Conditioning) -> Result<String> {
        let refused = |reason: String| Error::Conditioning { conditioning: shown.to_string(), reason };
        match shown {
            Conditioning::Class(class) => match self.names.get(*class) {
                Some(name) => Ok(self.template.replace(PLACE, name)),
                None => {
                    let last = self.names.len() - 1;
                    Err(refused(format!("this backbone has names for the classes 0 to {last}")))
                }
            },
            Conditioning::Prompt(text) => Ok(text.clone()),
            _ => Err(refused("this backbone knows classes and texts".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_texts() {
        let prompts = Prompts::new(TEMPLATE, None).unwrap();
        assert_eq!(prompts.names().len(), 1000);
        assert_eq!(prompts.template(), TEMPLATE);
        assert_eq!(prompts.text(&Conditioning::Class(217)).unwrap(), "a photo of a English springer");
        assert_eq!(prompts.text(&Conditioning::Prompt("a cat".into())).unwrap(), "a cat");
        let error = prompts.text(&Conditioning::Class(1000)).unwrap_err().to_string();
        assert_eq!(error, "class 1000: this backbone has names for the classes 0 to 999");
        let own = Prompts::new("{}, drawn", Some(vec!["disc".into(), "ring".into()])).unwrap();
        assert_eq!(own.text(&Conditioning::Class(1)).unwrap(), "ring, drawn");
    }

    #[test]
    fn bad_templates_and_names_are_refused() {
        let refused = |template, names| Prompts::new(template, names).unwrap_err().to_string();
        assert!(refused("a photo", None).starts_with("prompt: `a photo` does not have one {}"));
        assert!(refused("{} {}", None).starts_with("prompt: "));
        assert!(refused(TEMPLATE, Some(vec![])).starts_with("class_names: there is none"));
        assert_eq!(
            refused(TEMPLATE, Some(vec!["a".into(), " ".into()])),
            "class_names: the name of class 1 is empty"
        );
    }
}
