//! Which of a file's arrays are images and labels, by their names.

use crate::source::columns::Columns;
use crate::source::options::OpenOptions;
use crate::source::roles::{self, Choice, Named, Role};
use crate::{Error, Result};
use std::path::Path;

/// How many names a message lists.
const LISTED: usize = 12;

fn chosen<'a>(names: impl Iterator<Item = &'a str>, options: &OpenOptions) -> Choice<'a> {
    roles::choose(roles::pairs(names), options.split.as_deref())
}

/// The names of the images and the labels among `names`, of which those that may be either are arrays.
///
/// # Errors
/// If there are none, or several pairs fit.
pub(super) fn names<'a>(path: &Path, names: &[&'a str], options: &OpenOptions) -> Result<(&'a str, &'a str)> {
    let listed = || {
        let more = if names.len() > LISTED { ", ..." } else { "" };
        let listed = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
        if listed.is_empty() { "no arrays".to_owned() } else { format!("{listed}{more}") }
    };
    if let Some(Columns { image, label, soft_label }) = &options.columns {
        let find = |option: &Option<String>, of: &str| {
            let Some(wanted) = option else {
                return Err(Error::config(
                    "columns",
                    format!("it does not name the {of}: write image=NAME,label=NAME"),
                ));
            };
            let found = names.iter().find(|name| *name == wanted).copied();
            found.ok_or_else(|| {
                let reason =
                    format!("`{wanted}` is not an array of {}, which has {}", path.display(), listed());
                Error::config("columns", reason)
            })
        };
        // As in tables, soft labels go before class indices.
        let soft_label = soft_label.is_some().then(|| find(soft_label, "soft label")).transpose()?;
        let label = (label.is_some() || soft_label.is_none()).then(|| find(label, "label")).transpose()?;
        return Ok((find(image, "image")?, soft_label.or(label).unwrap_or_default()));
    }
    match chosen(names.iter().copied(), options) {
        Choice::One { pair, .. } => Ok((pair.images.name, pair.labels.name)),
        Choice::Several(pairs) => {
            let reason = format!(
                "several pairs of images and labels fit: {}. Pass `columns`, as in \"image={},label={}\"",
                roles::listed(&pairs),
                pairs[0].images.name,
                pairs[0].labels.name
            );
            Err(Error::format(path, reason))
        }
        Choice::Initial(pairs) => {
            let pair = &pairs[0];
            let reason = format!(
                "{} is what a method starts from. Pass `columns`, as in \"image={},label={}\", if you want it",
                pair.images.name, pair.images.name, pair.labels.name
            );
            Err(Error::format(path, reason))
        }
        Choice::None if options.split.is_some() => {
            let split = options.split.as_deref().unwrap_or_default();
            let reason = format!(
                "no images and labels of {} belong to the split `{split}`; there are {}. Leave the option out, or name \
                 them with `columns`",
                path.display(),
                listed()
            );
            Err(Error::config("split", reason))
        }
        Choice::None if names == ["arr_0", "arr_1"] => Ok((names[0], names[1])),
        Choice::None => {
            let first = |role| names.iter().copied().find(|name| is(name, role));
            let (what, image, label) = match (first(Role::Images), first(Role::Labels)) {
                (Some(image), Some(label)) => {
                    ("several arrays could be the images or the labels", image, label)
                }
                (Some(image), None) => ("no name tells the labels", image, "NAME"),
                (None, label) => ("no name tells the images", "NAME", label.unwrap_or("NAME")),
            };
            let reason = format!(
                "{what}; there are {}. Pass `columns`, as in \"image={image},label={label}\", or save them as `images` \
                 and `labels`",
                listed()
            );
            Err(Error::format(path, reason))
        }
    }
}

fn is(name: &str, role: Role) -> bool {
    Named::parse(name).is_some_and(|named| named.role == role)
}

/// Whether the names are, or could be, those of images and labels.
pub(super) fn are_near(names: &[&str], options: &OpenOptions) -> bool {
    let has = |role| names.iter().any(|name| is(name, role));
    options.columns.is_some()
        || (has(Role::Images) && has(Role::Labels))
        || !matches!(chosen(names.iter().copied(), options), Choice::None)
}

/// A note on the names in the file that are not `used`.
pub(super) fn unused(there: &[&str], used: [&str; 2]) -> Option<String> {
    let unused: Vec<&str> = there.iter().filter(|name| !used.contains(name)).copied().collect();
    let are = if unused.len() == 1 { "is" } else { "are" };
    let more = if unused.len() > LISTED { ", ..." } else { "" };
    let listed = unused.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    (!unused.is_empty()).then(|| format!("the file also has {listed}{more}, which {are} not used"))
}

/// # Errors
/// If one of these options is given, which mean nothing to the file.
pub(super) fn refuse(path: &Path, options: &OpenOptions, meaningless: &[&'static str]) -> Result<()> {
    match options.given_for_formats().into_iter().find(|option| meaningless.contains(option)) {
        Some(option) => {
            let reason = format!(
                "{} has nothing that this option could choose from: leave the option out",
                path.display()
            );
            Err(Error::config(option, reason))
        }
        None => Ok(()),
    }
}
