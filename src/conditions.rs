//! What the images of a batch show.

use diver_loaders::Conditioning;

/// What each image of a batch is to show, a class of the backbone or a text: made from either.
///
/// ```
/// use diver::{Conditioning, Conditions};
///
/// let classes = Conditions::from(&[207, 388]);
/// assert_eq!(classes.as_slice()[1], Conditioning::Class(388));
/// let texts = Conditions::from(&["a photo of a church"]);
/// assert_eq!(texts.as_slice().len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions(Vec<Conditioning>);

impl Conditions {
    /// One for each image.
    #[must_use]
    pub fn as_slice(&self) -> &[Conditioning] {
        &self.0
    }
}

impl From<&[usize]> for Conditions {
    fn from(classes: &[usize]) -> Self {
        Self(classes.iter().copied().map(Conditioning::Class).collect())
    }
}

impl<const N: usize> From<&[usize; N]> for Conditions {
    fn from(classes: &[usize; N]) -> Self {
        Self::from(classes.as_slice())
    }
}

impl From<&Vec<usize>> for Conditions {
    fn from(classes: &Vec<usize>) -> Self {
        Self::from(classes.as_slice())
    }
}

impl From<&[&str]> for Conditions {
    fn from(texts: &[&str]) -> Self {
        Self(texts.iter().map(|text| Conditioning::Prompt((*text).to_owned())).collect())
    }
}

impl<const N: usize> From<&[&str; N]> for Conditions {
    fn from(texts: &[&str; N]) -> Self {
        Self::from(texts.as_slice())
    }
}

impl From<&[Conditioning]> for Conditions {
    fn from(conditioning: &[Conditioning]) -> Self {
        Self(conditioning.to_vec())
    }
}
