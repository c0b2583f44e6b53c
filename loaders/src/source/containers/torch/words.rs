//! What an object of a pickle is, in words for messages.

use super::object::Object;
use super::value::Value;
use crate::wording::counted;
use crate::{Error, Result};
use std::path::Path;

/// Most keys or items that are named.
const NAMED: usize = 8;
/// Longest name or text that is shown, in characters.
const SHOWN: usize = 100;

impl Value<'_> {
    /// What it is, with an article: `a dict with the keys data, labels`, `an object of class utils.ParamAug`,
    /// `a list of 3 tensors`.
    pub(crate) fn describe(self) -> String {
        match self.object() {
            Object::Int(value) => format!("the integer {value}"),
            Object::Float(value) => format!("the number {value}"),
            Object::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
            Object::Str(text) => format!("the string \"{}\"", shown(text)),
            Object::Tensor(tensor) => {
                let name = tensor.dtype().name();
                let a = if name.starts_with('i') { "an" } else { "a" };
                format!("{a} {name} tensor of shape {:?}", tensor.shape())
            }
            Object::Dict(entries) => self.describe_dict(entries.len()),
            Object::List(_) | Object::Tuple(_) | Object::Set(_) => self.describe_items(),
            Object::Opaque(what) => shown(what),
            Object::Global(_) => format!("the function or class {}", self.class_shown()),
            Object::Instance(instance) => {
                let class = self.class_shown();
                let last = class.rsplit('.').next().unwrap_or_default();
                if instance.is_new || instance.state.is_some() || last.starts_with(char::is_uppercase) {
                    format!("an object of class {class}")
                } else {
                    format!("the result of the function {class}")
                }
            }
            _ => self.kind().to_owned(),
        }
    }

    fn class_shown(self) -> String {
        shown(self.class().unwrap_or("unknown"))
    }

    fn describe_dict(self, entries: usize) -> String {
        let names: Vec<String> = self.keys().into_iter().flatten().take(NAMED).map(shown).collect();
        match (entries, names.len()) {
            (0, _) => "an empty dict".into(),
            (_, 0) => format!("a dict with {}, none of them a string", counted(entries, "key")),
            (1, 1) => format!("a dict with the key {}", names[0]),
            (_, named) if entries == named => format!("a dict with the keys {}", names.join(", ")),
            _ => format!("a dict with {entries} keys, among them {}", names.join(", ")),
        }
    }

    fn describe_items(self) -> String {
        let kind = self.kind();
        let kinds: Vec<&str> = self.items().into_iter().flatten().map(Value::kind).collect();
        match kinds.as_slice() {
            [] => format!("an empty {}", kind.trim_start_matches("a ")),
            [only] => format!("{kind} of {only}"),
            [first, ..] if kinds.iter().all(|kind| kind == first) && *first != "None" => {
                let noun = first.trim_start_matches("an ").trim_start_matches("a ");
                let plural = if noun.ends_with('s') { noun.to_owned() } else { format!("{noun}s") };
                format!("{kind} of {} {plural}", kinds.len())
            }
            [before @ .., last] if kinds.len() <= NAMED / 2 => {
                format!("{kind} of {} and {last}", before.join(", "))
            }
            _ => format!("{kind} of {} items", kinds.len()),
        }
    }

    /// How to make a file that can be read, where this is an object that cannot be.
    pub(crate) fn advice(self) -> Option<String> {
        if !self.is_opaque() {
            return None;
        }
        let is_dataset =
            self.class().is_some_and(|class| class.ends_with("Dataset") || class.ends_with("Subset"));
        let tensors = if is_dataset {
            "images, labels = zip(*dataset); torch.save({\"images\": torch.stack(images), \"labels\": \
             torch.tensor(labels)}, \"set.pt\")"
        } else {
            "torch.save({\"images\": images, \"labels\": labels}, \"set.pt\")"
        };
        let why = match self.object() {
            Object::Opaque(_) => {
                "diver does not read such values. Load the file in Python and save plain tensors"
            }
            _ => {
                "diver runs no code from files, so it cannot make this object. Load the file in Python, where its classes \
                 are installed, and save plain tensors"
            }
        };
        Some(format!("{why}: {tensors}"))
    }
}

/// The error for an entry that is needed as data and is something else: `field` is where it was found, and `""` the whole
/// file; `expected` has an article, as in "a tensor [N, C, H, W]".
pub(crate) fn unexpected(path: &Path, field: &str, found: Value<'_>, expected: &str) -> Error {
    let mut reason = format!("expected {expected}, found {}", found.describe());
    let mut items = found.items().into_iter().flatten().peekable();
    if expected.starts_with("a tensor ")
        && items.peek().is_some()
        && items.all(|item| item.as_tensor().is_some())
    {
        reason.push_str(": stack them, as in torch.stack(images), and save the file again");
    } else if let Some(advice) = found.advice() {
        reason = format!("{reason}. {advice}");
    }
    if field.is_empty() { Error::format(path, reason) } else { Error::field(path, field, reason) }
}

/// The tensor that is expected at `field`.
///
/// # Errors
/// As [`unexpected`] says it.
pub(crate) fn tensor<'a>(
    path: &Path,
    field: &str,
    found: Value<'a>,
    expected: &str,
) -> Result<&'a super::super::tensor::TensorRef> {
    found.as_tensor().ok_or_else(|| unexpected(path, field, found, expected))
}

/// Text of a file without control characters, and not too long.
fn shown(text: &str) -> String {
    let visible = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    let mut shown: String = text.chars().take(SHOWN).map(visible).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}
