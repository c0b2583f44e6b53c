//! How protocol 0 writes numbers and strings: as lines of text.

use super::object::Object;

/// Beyond what 64 bits hold.
pub(super) const LONG: &str = "an integer of more than 64 bits";

/// `5`, or `01` and `00` for True and False.
pub(super) fn int(line: &[u8]) -> Result<Object, String> {
    match line {
        b"01" => Ok(Object::Bool(true)),
        b"00" => Ok(Object::Bool(false)),
        line => long(line),
    }
}

/// `5L`
pub(super) fn long(line: &[u8]) -> Result<Object, String> {
    let digits = line.strip_suffix(b"L").unwrap_or(line);
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    match std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
        Some(value) => Ok(Object::Int(value)),
        None if is_number(digits.strip_prefix(b"-").unwrap_or(digits)) => Ok(Object::Opaque(LONG.into())),
        None => Err("a number that is not one".into()),
    }
}

pub(super) fn float(line: &[u8]) -> Result<Object, String> {
    let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    number.map(Object::Float).ok_or_else(|| "a number that is not one".into())
}

/// A string of Python 2 in its quotes.
pub(super) fn quoted(line: &[u8]) -> Result<Vec<u8>, String> {
    let inner = match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return Err("a string without its quotes".into()),
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [first, after @ ..] = rest {
        (rest, _) = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => (after, bytes.push(hex(&[*high, *low])? as u8)),
            (b'\\', [b'n', after @ ..]) => (after, bytes.push(b'\n')),
            (b'\\', [b'r', after @ ..]) => (after, bytes.push(b'\r')),
            (b'\\', [b't', after @ ..]) => (after, bytes.push(b'\t')),
            (b'\\', [quote @ (b'\\' | b'\'' | b'"'), after @ ..]) => (after, bytes.push(*quote)),
            (byte, after) => (after, bytes.push(*byte)),
        };
    }
    Ok(bytes)
}

/// Python's "raw-unicode-escape": Latin-1, with `\u` and `\U` before other characters. None if it is no text.
pub(super) fn unicode(line: &[u8]) -> Result<Option<String>, String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let [first, after @ ..] = rest {
        let digits = match (first, after) {
            (b'\\', [b'u', ..]) => 4,
            (b'\\', [b'U', ..]) => 8,
            _ => {
                text.push(char::from(*first));
                rest = after;
                continue;
            }
        };
        let code = after.get(1..=digits).ok_or("a string that is cut")?;
        let Some(character) = char::from_u32(hex(code)?) else { return Ok(None) };
        text.push(character);
        rest = &after[digits + 1..];
    }
    Ok(Some(text))
}

fn hex(digits: &[u8]) -> Result<u32, String> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.ok_or_else(|| "an escaped character that is not hexadecimal".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_unescaped() {
        assert_eq!(quoted(br"'a\n\x00\xff\\\'b'").unwrap(), b"a\n\x00\xff\\'b");
        assert_eq!(quoted(br#""it's""#).unwrap(), b"it's");
        assert!(quoted(b"'").is_err() && quoted(b"abc").is_err() && quoted(br"'\xzz'").is_err());
        assert_eq!(unicode(b"a\\u000a\xe9\\U0001f600\\x").unwrap().unwrap(), "a\n\u{e9}\u{1f600}\\x");
        assert_eq!(unicode(br"\ud800").unwrap(), None);
        assert!(unicode(br"\u12").is_err());
    }

    #[test]
    fn numbers_are_parsed() {
        assert!(matches!(int(b"01"), Ok(Object::Bool(true))));
        assert!(matches!(int(b"-12"), Ok(Object::Int(-12))));
        assert!(matches!(long(b"3L"), Ok(Object::Int(3))));
        assert!(matches!(long(b"99999999999999999999L"), Ok(Object::Opaque(_))));
        assert!(matches!(float(b"-1e-3"), Ok(Object::Float(-1e-3))));
        assert!(int(b"").is_err() && long(b"1x").is_err() && float(b"zero").is_err());
    }
}
