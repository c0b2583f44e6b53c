//! The enums among the knobs: each value has one name, used in messages, on the command line and in JSON.

/// Declares an enum whose values are written by name, with `ALL`, `as_str`, `Display`, `FromStr` and serde.
macro_rules! knob_enum {
    (
        $(#[$meta:meta])*
        $name:ident, $knob:literal {
            $( $(#[$value_meta:meta])* $value:ident = $text:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(into = "&'static str", try_from = "String")]
        pub enum $name {
            $( $(#[$value_meta])* $value, )+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// The value's name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$value => $text, )+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::Error;

            fn from_str(text: &str) -> crate::Result<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    crate::Error::knob($knob, format!("`{text}` is none of {}", names.join(", ")))
                })
            }
        }

        impl From<$name> for &'static str {
            fn from(value: $name) -> Self {
                value.as_str()
            }
        }

        impl TryFrom<String> for $name {
            type Error = crate::Error;

            fn try_from(text: String) -> crate::Result<Self> {
                text.parse()
            }
        }
    };
}

pub(super) use knob_enum;
