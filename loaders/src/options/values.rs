//! Kinds of values that options have beside numbers, text and names: each is read from JSON and from a command line.

use crate::{ClassMap, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The schema of one of these kinds. Its `format` is what Python knows the kind by.
macro_rules! kind {
    ($name:ident, $schema:tt) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

pub(super) use kind;

/// A number for each of the channels red, green and blue; one number stands for all three.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "OneOrThree")]
pub struct Channels(pub [f32; 3]);

#[derive(Deserialize)]
#[serde(untagged, expecting = "one number or three are expected")]
enum OneOrThree {
    One(f32),
    OneInList([f32; 1]),
    Three([f32; 3]),
}

kind!(Channels, { "type": ["number", "array"], "format": "channels", "items": { "type": "number" } });

impl From<OneOrThree> for Channels {
    fn from(given: OneOrThree) -> Self {
        match given {
            OneOrThree::One(one) | OneOrThree::OneInList([one]) => one.into(),
            OneOrThree::Three(three) => three.into(),
        }
    }
}

impl From<f32> for Channels {
    fn from(one: f32) -> Self {
        Self([one; 3])
    }
}

impl From<[f32; 3]> for Channels {
    fn from(three: [f32; 3]) -> Self {
        Self(three)
    }
}

impl FromStr for Channels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        match numbers.map_err(|_| "it is not a list of numbers".to_owned())?[..] {
            [one] => Ok(one.into()),
            [red, green, blue] => Ok([red, green, blue].into()),
            ref other => Err(format!("one value or three are expected, not {}", other.len())),
        }
    }
}

/// Rows and columns of an image; one number stands for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrTwo", into = "[usize; 2]")]
pub struct Size {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Size {
    /// The longest side of an image that is made.
    const LONGEST: usize = 1 << 14;
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a side, or height and width, are expected")]
enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

kind!(Size, {
    "type": ["integer", "array"],
    "format": "size",
    "items": { "type": "integer", "minimum": 1, "maximum": Self::LONGEST }
});

impl From<OneOrTwo> for Size {
    fn from(given: OneOrTwo) -> Self {
        match given {
            OneOrTwo::One(side) => Self { height: side, width: side },
            OneOrTwo::Two([height, width]) => Self { height, width },
        }
    }
}

impl From<Size> for [usize; 2] {
    fn from(Size { height, width }: Size) -> Self {
        [height, width]
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides: Result<Vec<usize>, _> = text.split(',').map(|side| side.trim().parse()).collect();
        match sides.map_err(|_| "it is not a list of integers".to_owned())?[..] {
            [side] => Ok(Self { height: side, width: side }),
            [height, width] => Ok(Self { height, width }),
            ref other => Err(format!("a side, or height and width, are expected, not {}", other.len())),
        }
    }
}

/// The refiner's class for each label, or where these are listed.
///
/// ```
/// use diver_loaders::options::Classes;
///
/// assert_eq!("7,3".parse::<Classes>(), Ok(Classes::Indices(vec![7, 3])));
/// assert_eq!("imagefruit".parse::<Classes>()?.resolve()?.as_indices().map(<[usize]>::len), Some(10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a name, a file or a list of indices is expected")]
pub enum Classes {
    /// The class of label `i` is the `i`-th.
    Indices(Vec<usize>),
    /// The name of a list ([`ClassMap::named`]) or its file ([`ClassMap::from_file`]); `identity` if the labels are the
    /// refiner's classes.
    List(String),
}

kind!(Classes, {
    "type": ["string", "array"],
    "format": "classes",
    "items": { "type": "integer", "minimum": 0 }
});

impl Classes {
    /// The name of [`ClassMap::identity`].
    const IDENTITY: &str = "identity";

    /// The list itself.
    ///
    /// # Errors
    /// As [`ClassMap::indices`] and [`ClassMap::find`].
    pub fn resolve(&self) -> Result<ClassMap> {
        match self {
            Self::Indices(indices) => ClassMap::indices(indices.clone()),
            Self::List(name) if name == Self::IDENTITY => Ok(ClassMap::identity()),
            Self::List(name) => ClassMap::find(name),
        }
    }
}

impl From<ClassMap> for Classes {
    fn from(map: ClassMap) -> Self {
        match map.as_indices() {
            Some(indices) => Self::Indices(indices.to_vec()),
            None => Self::List(Self::IDENTITY.to_owned()),
        }
    }
}

impl FromStr for Classes {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let indices: Result<_, _> = text.split(',').map(|index| index.trim().parse()).collect();
        Ok(indices.map_or_else(|_| Self::List(text.to_owned()), Self::Indices))
    }
}

/// The path of a file. In JSON it is a string, or a list of bytes if it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(PathBuf);

kind!(FilePath, { "type": ["string", "array"], "format": "path", "items": { "type": "integer" } });

impl<T: Into<PathBuf>> From<T> for FilePath {
    fn from(path: T) -> Self {
        Self(path.into())
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_seq(self.0.as_os_str().as_encoded_bytes()),
        }
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a path is expected")]
        enum Given {
            Text(String),
            Bytes(Vec<u8>),
        }
        match Given::deserialize(deserializer)? {
            Given::Text(text) => Ok(text.into()),
            #[cfg(unix)]
            Given::Bytes(bytes) => Ok(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes).into()),
            #[cfg(not(unix))]
            Given::Bytes(_) => Err(serde::de::Error::custom("the path is not UTF-8")),
        }
    }
}
