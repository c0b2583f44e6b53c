//! The identity of a set of refinements.

use crate::Digest;
use serde_json::Value;

/// A fingerprint in canonical form: compact JSON with the keys of every object sorted.
///
/// ```
/// use diver_loaders::cache::Fingerprint;
///
/// let a = Fingerprint::new(&serde_json::json!({ "steps": 50, "gamma": 0.1 }));
/// let b = Fingerprint::new(&serde_json::json!({ "gamma": 0.1, "steps": 50 }));
/// assert_eq!(a, b);
/// assert_eq!(a.as_json(), r#"{"gamma":0.1,"steps":50}"#);
/// assert_eq!(a.folder_name().len(), 16);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    json: String,
    digest: Digest,
}

impl Fingerprint {
    /// The fingerprint that `value` describes.
    pub fn new(value: &Value) -> Self {
        let mut json = String::new();
        write_canonical(value, &mut json);
        let digest = Digest::of(json.as_bytes());
        Self { json, digest }
    }

    /// The canonical JSON.
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// The hash of the canonical JSON.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The name of its folder in a cache: the first 16 hex digits of the hash.
    pub fn folder_name(&self) -> String {
        self.digest.to_string()[..16].to_owned()
    }
}

/// Sorts keys itself: whether `serde_json` keeps them sorted is a feature that any crate of a build can change.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (position, value) in values.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
