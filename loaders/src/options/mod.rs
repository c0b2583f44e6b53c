//! Options: each group of them is one struct, and everything that takes options follows it.
//!
//! Of a group's struct, serde's names are the options' names, doc comments are their help, `Default` has their defaults,
//! and `#[schemars(range(..))]` has their ranges. The command line derives its arguments from the same struct, builders
//! set its fields, and Python checks its keywords against the [`schema`].

mod amounts;
mod named_enum;
mod values;

pub use amounts::{Amount, Span};
pub(crate) use named_enum::named_enum;
pub use values::{Channels, Classes, FilePath, Size};

use crate::{Error, Result};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The JSON Schema of a group of options, made once for each group.
///
/// ```
/// use diver_loaders::{OpenOptions, options};
///
/// let schema = options::schema::<OpenOptions>();
/// assert_eq!(schema["properties"]["factor"]["minimum"], 1);
/// ```
pub fn schema<T: JsonSchema + 'static>() -> &'static Value {
    static MADE: Mutex<Option<HashMap<TypeId, &'static Value>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.get_or_insert_default().entry(TypeId::of::<T>()).or_insert_with(|| {
        // Never freed: there are as many as there are groups.
        Box::leak(Box::new(schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value()))
    })
}

/// The schema of each option of a group, by name.
fn properties<T: JsonSchema + 'static>() -> impl Iterator<Item = (&'static str, &'static Value)> {
    let properties = schema::<T>()["properties"].as_object();
    properties.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema))
}

/// Refuses options that lie outside the ranges of their schema.
///
/// # Errors
/// [`Error::Config`] names the first of them, and its range.
pub fn check<T: Serialize + JsonSchema + 'static>(options: &T) -> Result<()> {
    let given = serde_json::to_value(options).map_err(|error| Error::config("options", error.to_string()))?;
    for (name, schema) in properties::<T>() {
        within(schema, &given[name]).map_err(|reason| Error::config(name, reason))?;
    }
    Ok(())
}

/// Reads a group of options from a JSON object; an option that it lacks has its default.
///
/// ```
/// use diver_loaders::{Error, OpenOptions, options};
///
/// let options: OpenOptions = options::from_json(r#"{"dataset": "cifar10", "mean": 0.5, "std": [0.2, 0.2, 0.3]}"#)?;
/// assert_eq!(options, OpenOptions::new().dataset("cifar10").mean(0.5).std([0.2, 0.2, 0.3]));
///
/// let refused = options::from_json::<OpenOptions>(r#"{"factor": "two"}"#).unwrap_err();
/// assert!(matches!(refused, Error::Config { option: "factor", .. }));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] names the option that is unknown, or whose value has a wrong type.
pub fn from_json<T: DeserializeOwned + JsonSchema + 'static>(json: &str) -> Result<T> {
    let fault = |error: serde_json::Error| error.to_string();
    // By way of a map: its errors do not speak of lines and columns, and a list is none.
    let given: Map<String, Value> =
        serde_json::from_str(json).map_err(|error| Error::config("options", fault(error)))?;
    let read = |given: Map<String, Value>| serde_json::from_value(Value::Object(given));
    read(given.clone()).map_err(|error| {
        // Every option has a default, so that the one at fault is the one that cannot be read alone.
        let alone = given.into_iter().find_map(|(name, value)| {
            let (option, _) = properties::<T>().find(|(known, _)| *known == name)?;
            let error = read(Map::from_iter([(name, value)])).err()?;
            Some(Error::config(option, fault(error)))
        });
        alone.unwrap_or_else(|| Error::config("options", fault(error)))
    })
}

/// What is wrong with a value, by its schema.
fn within(schema: &Value, value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) => {
            let beyond = |bound: &str, is_beyond: fn(&f64, &f64) -> bool| {
                let bound = &schema[bound];
                let pair = number.as_f64().zip(bound.as_f64());
                pair.is_some_and(|(number, bound)| is_beyond(&number, &bound)).then_some(bound)
            };
            if let Some(least) = beyond("minimum", f64::lt) {
                return Err(format!("{number} must be at least {least}"));
            }
            if let Some(bound) = beyond("exclusiveMinimum", f64::le) {
                return Err(format!("{number} must be above {bound}"));
            }
            match beyond("maximum", f64::gt) {
                Some(most) => Err(format!("{number} must be at most {most}")),
                None => Ok(()),
            }
        }
        Value::Array(items) => items.iter().try_for_each(|item| within(&schema["items"], item)),
        // JSON has no other word for NaN and the infinities.
        Value::Null if schema["type"] == "number" => Err("must be a finite number".into()),
        _ => Ok(()),
    }
}

/// For the test of a builder: fails where an option still has its default after every setter was called.
#[cfg(test)]
pub(crate) fn assert_every_one_is_set<T: Serialize + JsonSchema + Default + 'static>(options: &T) {
    let [set, usual] = [options, &T::default()].map(|options| serde_json::to_value(options).unwrap());
    for (name, schema) in properties::<T>() {
        assert_ne!(set.get(name), usual.get(name), "`{name}` has no setter, or this test does not call it");
        assert!(schema.get("description").is_some(), "`{name}` does not say what it is for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenOptions;

    #[test]
    fn a_range_is_that_of_the_schema() {
        let refused = |options: OpenOptions| match check(&options) {
            Err(Error::Config { option, reason }) => Some((option, reason)),
            _ => None,
        };
        assert_eq!(refused(OpenOptions::new().factor(1).num_classes(1 << 20)), None);
        assert_eq!(refused(OpenOptions::new().factor(0)), Some(("factor", "0 must be at least 1".into())));
        let many = OpenOptions::new().num_classes(1 << 21);
        assert_eq!(refused(many), Some(("num_classes", "2097152 must be at most 1048576".into())));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let fault = |json: &str| match from_json::<OpenOptions>(json) {
            Err(Error::Config { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(r#"{"factor": 2, "experiment": -1}"#), "experiment");
        assert_eq!(fault(r#"{"values": "raw"}"#), "values");
        assert_eq!(fault(r#"{"mean": [1, 2], "std": 1}"#), "mean");
        assert_eq!(fault(r#"{"fold": 1}"#), "options");
        assert_eq!(fault("[]"), "options");
        let error = from_json::<OpenOptions>(r#"{"fold": 1}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `fold`"), "{error}");
    }

    #[test]
    #[cfg(unix)]
    fn a_path_that_is_not_text_survives_json() {
        use std::os::unix::ffi::OsStringExt as _;
        let path = std::path::PathBuf::from(std::ffi::OsString::from_vec(b"a\xff.pt".to_vec()));
        let options = OpenOptions::new().zca(path);
        assert_eq!(from_json::<OpenOptions>(&serde_json::to_string(&options).unwrap()).unwrap(), options);
    }
}
