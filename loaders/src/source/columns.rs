//! Which columns of a table hold what, as a caller says it.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The columns of a table to read, where their names do not tell. What is left open is found by name and type.
///
/// ```
/// use diver_loaders::source::Columns;
///
/// let columns: Columns = "image=photo,label=species".parse()?;
/// assert_eq!(columns.label.as_deref(), Some("species"));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Columns {
    /// The images: encoded files, or numbers.
    pub image: Option<String>,
    /// The classes: indices, or names.
    pub label: Option<String>,
    /// The logits or probabilities of all classes.
    pub soft_label: Option<String>,
}

impl Columns {
    /// The names of the roles, as they are written before `=`.
    pub const ROLES: [&str; 3] = ["image", "label", "soft_label"];

    fn role(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "image" => &mut self.image,
            "label" => &mut self.label,
            "soft_label" => &mut self.soft_label,
            _ => return None,
        })
    }
}

impl FromStr for Columns {
    type Err = Error;

    /// Reads `image=NAME,label=NAME,soft_label=NAME`, in any order and with any of the three.
    fn from_str(text: &str) -> Result<Self> {
        Self::try_from(text.to_owned()).map_err(|reason| Error::config("columns", reason))
    }
}

impl TryFrom<String> for Columns {
    /// The reason alone: what reads options names the one that it is about.
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let refused =
            |reason: String| Err(format!("{reason}: expected image=NAME,label=NAME,soft_label=NAME"));
        let mut columns = Self::default();
        for part in text.split(',') {
            let Some((role, name)) = part.split_once('=').map(|(role, name)| (role.trim(), name.trim()))
            else {
                return refused(format!("`{}` has no `=`", part.trim()));
            };
            if name.is_empty() {
                return refused(format!("`{role}=` names no column"));
            }
            match columns.role(role) {
                None => return refused(format!("`{role}` is unknown")),
                Some(Some(_)) => return refused(format!("`{role}` is given twice")),
                Some(column) => *column = Some(name.to_owned()),
            }
        }
        Ok(columns)
    }
}

impl From<Columns> for String {
    fn from(columns: Columns) -> Self {
        columns.to_string()
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [&self.image, &self.label, &self.soft_label];
        let given =
            Self::ROLES.iter().zip(columns).filter_map(|(role, column)| Some((role, column.as_ref()?)));
        for (place, (role, column)) in given.enumerate() {
            write!(f, "{}{role}={column}", if place > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_as_they_are_written() {
        for text in ["image=a,label=b,soft_label=c", "label=x=y", "image=the photo"] {
            assert_eq!(text.parse::<Columns>().unwrap().to_string(), text);
        }
        let spaced: Columns = " label = b , image=a".parse().unwrap();
        assert_eq!(spaced.to_string(), "image=a,label=b");
        let json = serde_json::to_string(&spaced).unwrap();
        assert_eq!(json, r#""image=a,label=b""#);
        assert_eq!(serde_json::from_str::<Columns>(&json).unwrap(), spaced);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("", "has no `=`"),
            ("photo", "`photo` has no `=`"),
            ("image=", "`image=` names no column"),
            ("picture=a", "`picture` is unknown"),
            ("image=a,image=b", "`image` is given twice"),
        ] {
            let error = text.parse::<Columns>().unwrap_err();
            assert!(matches!(error, Error::Config { option: "columns", .. }));
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
