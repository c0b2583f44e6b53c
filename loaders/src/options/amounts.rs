//! Sizes and times, as people write and read them.

use super::values::kind;
use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, also written as in `20GB`, `512 MiB` or `1000`.
///
/// ```
/// use diver_loaders::options::Amount;
///
/// assert_eq!("1.5GB".parse(), Ok(Amount(1_500_000_000)));
/// assert_eq!("2 KiB".parse(), Ok(Amount(2048)));
/// assert!("much".parse::<Amount>().is_err());
/// assert_eq!(Amount(20_000_000_000).to_string(), "20.0 GB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Amount(pub u64);

kind!(Amount, { "type": ["integer", "string"], "format": "bytes", "minimum": 0 });

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.trim().parse::<ByteSize>();
        parsed
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("expected a size, as in 20GB or 512MiB, found `{text}`"))
    }
}

/// In the largest unit that fits.
impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&ByteSize::b(self.0).display().si().to_string())
    }
}

impl From<u64> for Amount {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Given::deserialize(deserializer)? {
            Given::Bytes(bytes) => Ok(Self(bytes)),
            Given::Text(text) => text.parse().map_err(serde::de::Error::custom),
            Given::Seconds(_) => Err(serde::de::Error::custom("expected a whole number of bytes")),
        }
    }
}

/// A time span: a number of seconds, also written as in `30d`, `12h` or `1h 30m`.
///
/// ```
/// use diver_loaders::options::Span;
/// use std::time::Duration;
///
/// assert_eq!("2h".parse(), Ok(Span(Duration::from_secs(7200))));
/// assert!("soon".parse::<Span>().is_err());
/// assert_eq!("30s".parse::<Span>()?.to_string(), "30 s");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

kind!(Span, { "type": ["number", "string"], "format": "seconds", "minimum": 0 });

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.map_or_else(|| humantime::parse_duration(text), Ok).map(Self).map_err(|_| {
            format!("expected a time span, as in 30d, 12h or 90s, or a number of seconds, found `{text}`")
        })
    }
}

/// In the largest unit that fits.
impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = Duration::from_secs(self.0.as_secs());
        let text = humantime::format_duration(whole).to_string();
        let largest = text.split(' ').next().unwrap_or_default();
        let unit = largest.trim_start_matches(|c: char| c.is_ascii_digit());
        f.pad(&format!("{} {unit}", &largest[..largest.len() - unit.len()]))
    }
}

impl From<Duration> for Span {
    fn from(span: Duration) -> Self {
        Self(span)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let of = |seconds| Duration::try_from_secs_f64(seconds).map(Self).map_err(serde::de::Error::custom);
        match Given::deserialize(deserializer)? {
            Given::Bytes(whole) => of(whole as f64),
            Given::Seconds(seconds) => of(seconds),
            Given::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or text as in 20GB or 30d")]
enum Given {
    Bytes(u64),
    Seconds(f64),
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_one_unit() {
        let age = |seconds| Span(Duration::from_secs_f64(seconds)).to_string();
        assert_eq!([Amount(0).to_string(), Amount(20_000_000_000).to_string()], ["0 B", "20.0 GB"]);
        assert_eq!([age(0.4), age(59.0), age(3.0 * 86_400.0 + 5000.0)], ["0 s", "59 s", "3 days"]);
        for wrong in ["", "GB", "20 apples", "-1GB", "30"] {
            assert!(wrong.parse::<Amount>().is_err() || wrong == "30", "{wrong}");
            assert!(wrong.parse::<Span>().is_err() || wrong == "30", "{wrong}");
        }
    }

    #[test]
    fn in_json_they_are_numbers_or_text() {
        let amount = |json: &str| serde_json::from_str::<Amount>(json).map_err(|error| error.to_string());
        let span = |json: &str| serde_json::from_str::<Span>(json).map_err(|error| error.to_string());
        assert_eq!([amount("20"), amount(r#""1kB""#)], [Ok(Amount(20)), Ok(Amount(1000))]);
        assert_eq!(span("0.5"), Ok(Span(Duration::from_millis(500))));
        assert_eq!([span("60"), span(r#""1m""#)], [Ok(Span(Duration::from_secs(60))), span("60.0")]);
        for (refused, said) in
            [(amount("-1").err(), "whole"), (amount(r#""x""#).err(), "20GB"), (span("-1").err(), "neg")]
        {
            assert!(refused.as_ref().is_some_and(|error| error.contains(said)), "{refused:?}");
        }
    }
}
