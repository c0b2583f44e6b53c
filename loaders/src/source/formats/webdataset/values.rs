//! What an entry with a label says.

use crate::source::containers::npy;
use serde_json::Value as Json;

/// The longest name of a class, in bytes.
const LONGEST_NAME: usize = 256;
/// Keys of JSON objects that labels lie under, the usual ones first.
const KEYS: [&str; 18] = [
    "label",
    "cls",
    "class",
    "class_id",
    "target",
    "label_id",
    "category_id",
    "target_id",
    "class_idx",
    "label_idx",
    "class_index",
    "label_index",
    "category",
    "fine_label",
    "y",
    "class_name",
    "label_name",
    "labels",
];

/// A label, as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    /// The name of a class.
    Name(String),
    /// A value for each class.
    Row(Vec<f32>),
}

/// A class index or a name, in words that may have space around them.
///
/// # Errors
/// If it is neither.
pub(super) fn plain(content: &[u8]) -> Result<Value, String> {
    let text =
        std::str::from_utf8(content).map_err(|_| "it is not text: expected a class index or a name")?;
    text_value(text)
}

fn text_value(text: &str) -> Result<Value, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).trim();
    if let Ok(integer) = inner.parse() {
        return Ok(Value::Integer(integer));
    }
    if let Some(integer) = inner.parse().ok().and_then(integral) {
        return Ok(Value::Integer(integer));
    }
    if text.is_empty() {
        return Err("it is empty: expected a class index or a name".into());
    }
    if text.len() > LONGEST_NAME || text.contains(['\n', '\r', '\0']) || !text.contains(char::is_alphabetic) {
        return Err(format!("`{}` is neither a class index nor the name of a class", shortened(text)));
    }
    Ok(Value::Name(text.to_owned()))
}

/// The label in a JSON text: under the key of an object, or alone.
///
/// # Errors
/// If it is not JSON, or there is no label.
pub(super) fn json(content: &[u8], key: Option<&str>) -> Result<Value, String> {
    let json: Json = serde_json::from_slice(content).map_err(|e| format!("not JSON: {e}"))?;
    let Some(key) = key else { return json_value(&json) };
    match json.get(key) {
        Some(Json::Null) | None => Err(format!("it has no `{key}`, where the label of other samples is")),
        Some(value) => json_value(value).map_err(|reason| format!("`{key}`: {reason}")),
    }
}

/// Where the label is in a JSON text: under one of the usual keys, or the text is a label alone.
///
/// # Errors
/// If it is not JSON.
pub(super) fn key_of(content: &[u8]) -> Result<Option<Option<&'static str>>, String> {
    let json: Json = serde_json::from_slice(content).map_err(|e| format!("not JSON: {e}"))?;
    Ok(match &json {
        Json::Object(object) => {
            let is_label = |key: &&&str| object.get(**key).is_some_and(|value| json_value(value).is_ok());
            KEYS.iter().find(is_label).map(|key| Some(*key))
        }
        other => json_value(other).is_ok().then_some(None),
    })
}

fn json_value(value: &Json) -> Result<Value, String> {
    let no_class =
        || format!("`{}` is neither a class index nor the name of a class", shortened(&value.to_string()));
    match value {
        Json::Number(number) => {
            let integer = number.as_i64().or_else(|| integral(number.as_f64()?));
            integer.map(Value::Integer).ok_or_else(no_class)
        }
        Json::String(text) => text_value(text),
        Json::Array(values) => {
            let row: Option<Vec<f32>> = values.iter().map(|value| Some(value.as_f64()? as f32)).collect();
            match (row, &values[..]) {
                (Some(_), [only]) => json_value(only),
                (Some(row), [_, _, ..]) => Ok(Value::Row(row)),
                _ => Err(no_class()),
            }
        }
        _ => Err(no_class()),
    }
}

/// The label in an array of numpy's: one integer, or a row with a value for each class.
///
/// # Errors
/// If it is of another shape, or damaged.
pub(super) fn npy(content: &[u8]) -> Result<Value, String> {
    let (tensor, data) = npy::in_memory(content)?;
    let unread = |e: std::io::Error| e.to_string();
    let is_one = tensor.shape().iter().all(|size| *size == 1);
    match tensor.shape() {
        _ if is_one && tensor.dtype().is_float() => {
            let value = tensor.read::<f32>(&data[..]).map_err(unread)?.first().copied().unwrap_or(f32::NAN);
            integral(f64::from(value))
                .map(Value::Integer)
                .ok_or_else(|| format!("{value} is not a class index"))
        }
        _ if is_one => {
            let values = tensor.read::<i64>(&data[..]).map_err(unread)?;
            values.first().copied().map(Value::Integer).ok_or_else(|| "it is empty".to_owned())
        }
        [1, _] | [_] => tensor.read::<f32>(&data[..]).map_err(unread).map(Value::Row),
        shape => Err(format!("an array of shape {shape:?}: expected one integer, or a value for each class")),
    }
}

/// An integer that is written as a float.
fn integral(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < (1_u64 << 53) as f64).then_some(value as i64)
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    let shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() { format!("{shown}...") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_from_names() {
        for (text, integer) in
            [("7", 7), (" 7\r\n", 7), ("\u{feff}7", 7), ("-1", -1), ("3.0", 3), ("[4]", 4), ("007", 7)]
        {
            assert_eq!(plain(text.as_bytes()), Ok(Value::Integer(integer)), "{text}");
        }
        for name in ["cat", "n01440764", "class 3", "日本"] {
            assert_eq!(plain(format!("{name}\n").as_bytes()), Ok(Value::Name(name.to_owned())));
        }
        for wrong in
            [&b""[..], b" \n", b"0.5", b"1 2", b"[1, 2]", b"a\nb", b"\xff\xfe", b"nan..", &[b'a'; 300]]
        {
            assert!(plain(wrong).is_err() || wrong == b"nan..", "{wrong:?}");
        }
    }

    #[test]
    fn labels_are_found_in_json() {
        for (text, key) in [
            (r#"{"caption": "x", "label": 3}"#, Some(Some("label"))),
            (r#"{"label": {"x": 1}, "class_id": "3"}"#, Some(Some("class_id"))),
            (r#"{"label": null, "category": "cat"}"#, Some(Some("category"))),
            (r#"{"caption": "x"}"#, None),
            ("3", Some(None)),
            ("[0.5, 0.5]", Some(None)),
            ("[]", None),
            ("null", None),
        ] {
            assert_eq!(key_of(text.as_bytes()).unwrap(), key, "{text}");
        }
        assert!(key_of(b"{").is_err());
        for (value, expected) in [
            ("3", Value::Integer(3)),
            ("3.0", Value::Integer(3)),
            (r#""3""#, Value::Integer(3)),
            (r#""cat""#, Value::Name("cat".into())),
            ("[3]", Value::Integer(3)),
            ("[0.25, 0.75]", Value::Row(vec![0.25, 0.75])),
        ] {
            assert_eq!(json(format!(r#"{{"y": {value}}}"#).as_bytes(), Some("y")), Ok(expected));
        }
        for wrong in ["0.5", "true", "null", "{}", r#"["a", "b"]"#, "1e300"] {
            assert!(json(format!(r#"{{"y": {wrong}}}"#).as_bytes(), Some("y")).is_err(), "{wrong}");
        }
    }
}
