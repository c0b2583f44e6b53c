//! A walk over Thrift's compact protocol, in step with the crate `parquet` (60.1): what the format's metadata claims is
//! measured before the crate takes memory or time for it.
//!
//! The protocol: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>. The crate departs
//! from it in two ways, and so does the walk. It reads a field that it knows as the type that the format gives to it,
//! whatever type the field's own header says. And it passes over booleans in lists as if they took no bytes.

use std::io::{self, Read};

/// Levels of structs and lists, at which the crate gives up.
const DEEPEST: usize = 64;

/// The type of a field, or of the elements of a list.
#[derive(Debug)]
pub(crate) enum Type {
    /// A field that the format leaves out, or that the crate always passes over by the type in the field's header.
    Unknown,
    Bool,
    Byte,
    /// Of 16, 32 or 64 bits, which are written alike. Some writers (fastparquet) give a wrong width.
    Integer,
    Double,
    /// A string or other bytes.
    Binary,
    List(&'static Type),
    Struct(&'static Struct),
}

impl Type {
    /// The type's number in the protocol; none for unknown fields.
    pub(crate) fn code(&self) -> Option<u8> {
        match self {
            Self::Unknown => None,
            Self::Bool => Some(1),
            Self::Byte => Some(3),
            Self::Integer => Some(5),
            Self::Double => Some(7),
            Self::Binary => Some(8),
            Self::List(_) => Some(9),
            Self::Struct(_) => Some(12),
        }
    }

    /// Whether a value with this number in its header has this type.
    pub(crate) fn has(&self, code: u8) -> bool {
        match self {
            Self::Unknown => true,
            Self::Bool => matches!(code, 1 | 2),
            Self::Integer => matches!(code, 4..=6),
            _ => self.code() == Some(code),
        }
    }
}

/// The fields of a struct or union, the first of which has the id 1.
#[derive(Debug)]
pub(crate) struct Struct(pub(crate) &'static [Type]);

static UNKNOWN: Struct = Struct(&[]);

impl Struct {
    /// Whether this is the definition `other`.
    pub(crate) fn is(&'static self, other: &'static Struct) -> bool {
        std::ptr::eq(self, other)
    }

    #[inline]
    fn field(&self, id: i16) -> &'static Type {
        // Negative ids are far beyond the fields, as is that before 0.
        self.0.get((id as usize).wrapping_sub(1)).unwrap_or(&Type::Unknown)
    }
}

/// What is told of a walk.
pub(crate) trait Visit {
    /// Whether a known field must say its type. If not, it is read as that type all the same.
    const STRICT: bool = true;

    /// Booleans in lists that are let through. The format's metadata has none, and each may take time but no byte.
    const BOOLEANS: u64 = 0;

    /// Field `id` of the struct `of` is an integer, or a string of so many bytes; for other fields, `value` is 0.
    fn number(&mut self, _of: &'static Struct, _id: i16, _value: i64) {}

    /// The struct `of` ends.
    fn end(&mut self, _of: &'static Struct) {}
}

impl Visit for () {}

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it breaks off")]
    End,
    #[error("a field has a type that the format does not give to it")]
    Field,
    #[error("a field or element has a type that does not exist")]
    Type,
    #[error("a list claims more elements than there are bytes for")]
    Overlong,
    #[error("it has a list of booleans, of which the format has none")]
    Booleans,
    #[error("its fields are nested too deeply")]
    Depth,
}

/// Bytes that are walked over.
pub(crate) trait Input {
    /// The next byte; none at the end.
    fn byte(&mut self) -> Option<u8>;

    /// Passes over so many bytes; none if there are fewer.
    fn skip(&mut self, bytes: u64) -> Option<()>;

    /// No fewer bytes than are left.
    fn left(&self) -> u64;
}

impl Input for &[u8] {
    fn byte(&mut self) -> Option<u8> {
        self.split_off_first().copied()
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.split_off(..usize::try_from(bytes).ok()?).map(drop)
    }

    fn left(&self) -> u64 {
        self.len() as u64
    }
}

impl<R: Read> Input for io::Take<R> {
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        let skipped = io::copy(&mut self.by_ref().take(bytes), &mut io::sink());
        skipped.is_ok_and(|skipped| skipped == bytes).then_some(())
    }

    fn left(&self) -> u64 {
        self.limit()
    }
}

/// Walks over the struct `of`, with which `input` begins.
///
/// # Errors
/// If the crate must not read these bytes, or cannot.
pub(crate) fn walk<I: Input, V: Visit>(
    input: &mut I,
    of: &'static Struct,
    visit: &mut V,
) -> Result<(), Fault> {
    Walk { input, visit, booleans: V::BOOLEANS }.fields(of, 0)
}

struct Walk<'a, I, V> {
    input: &'a mut I,
    visit: &'a mut V,
    /// Booleans in lists that may still come.
    booleans: u64,
}

impl<I: Input, V: Visit> Walk<'_, I, V> {
    fn fields(&mut self, of: &'static Struct, depth: usize) -> Result<(), Fault> {
        let mut id = 0_i16;
        loop {
            let head = self.byte()?;
            let said = head & 0xf;
            // Whatever the other bits are: so does the crate.
            if said == 0 {
                self.visit.end(of);
                return Ok(());
            }
            id = match head >> 4 {
                0 => unzigzag(self.varint()?) as i16,
                delta => id.checked_add(i16::from(delta)).ok_or(Fault::Field)?,
            };
            let field = of.field(id);
            let code = match field.code() {
                Some(code) if !V::STRICT => code,
                _ if field.has(said) => said,
                _ => return Err(Fault::Field),
            };
            let number = self.value(code, field, depth)?;
            self.visit.number(of, id, number);
        }
    }

    /// Walks over a value, `code` being the number of its type, which is `of` if that is known. Integers are returned,
    /// and lengths of strings; of others, 0.
    // A third faster, and every opening of a file waits for it.
    #[inline(always)]
    fn value(&mut self, code: u8, of: &'static Type, depth: usize) -> Result<i64, Fault> {
        if depth > DEEPEST {
            return Err(Fault::Depth);
        }
        match code {
            // Of fields that are booleans, the type is the value. In lists there are none.
            1 | 2 => {}
            3 => self.skip(1)?,
            4..=6 => return Ok(unzigzag(self.varint()?)),
            7 => self.skip(8)?,
            8 => {
                let length = self.varint()?;
                self.skip(length)?;
                return Ok(length as i64);
            }
            9 | 10 => self.list(of, depth)?,
            11 => self.map(depth)?,
            12 => self.fields(if let Type::Struct(of) = of { of } else { &UNKNOWN }, depth + 1)?,
            13 => self.skip(16)?,
            _ => return Err(Fault::Type),
        }
        Ok(0)
    }

    /// Walks over a list or set, the type of which is `of` if that is known.
    fn list(&mut self, of: &'static Type, depth: usize) -> Result<(), Fault> {
        let head = self.byte()?;
        let code = head & 0xf;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        // Empty lists name any type.
        if count == 0 {
            return Ok(());
        }
        self.claim(count, &[code])?;
        let element = if let Type::List(element) = of { element } else { &Type::Unknown };
        if !element.has(code) {
            return Err(Fault::Field);
        }
        for _ in 0..count {
            self.value(code, element, depth + 1)?;
        }
        Ok(())
    }

    fn map(&mut self, depth: usize) -> Result<(), Fault> {
        let count = self.varint()?;
        if count == 0 {
            return Ok(());
        }
        let codes = self.byte()?;
        let codes = [codes >> 4, codes & 0xf];
        self.claim(count, &codes)?;
        for _ in 0..count {
            for code in codes {
                self.value(code, &Type::Unknown, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Checks that `count` elements of these types may come.
    fn claim(&mut self, count: u64, codes: &[u8]) -> Result<(), Fault> {
        if codes.iter().any(|code| matches!(code, 1 | 2)) {
            self.booleans = self.booleans.checked_sub(count).ok_or(Fault::Booleans)?;
        }
        // Each takes a byte or more.
        if count > self.input.left() { Err(Fault::Overlong) } else { Ok(()) }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.input.byte().ok_or(Fault::End)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Fault> {
        self.input.skip(bytes).ok_or(Fault::End)
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let first = self.byte()?;
        // As most are.
        if first & 0x80 == 0 {
            return Ok(first.into());
        }
        let (mut value, mut shift) = (u64::from(first & 0x7f), 7_u32);
        loop {
            let byte = self.byte()?;
            // However long it is: so does the crate.
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift = shift.wrapping_add(7);
        }
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::super::format::FILE;
    use super::*;
    use proptest::prelude::*;

    fn walked(bytes: &[u8], of: &'static Struct) -> Result<(), Fault> {
        walk(&mut &*bytes, of, &mut ())
    }

    #[test]
    fn elements_must_have_their_type_and_empty_lists_any() {
        // Column chunks in place of row groups are structs, too; strings are none.
        assert_eq!(walked(&[0x49, 0x1c, 0, 0], &FILE), Ok(()));
        assert_eq!(walked(&[0x49, 0x18, 0, 0], &FILE), Err(Fault::Field));
        for none in [0x00, 0x08, 0x0c] {
            assert_eq!(walked(&[0x49, none, 0], &FILE), Ok(()));
        }
        // A version of 64 bits.
        assert_eq!(walked(&[0x16, 4, 0], &FILE), Ok(()));
    }

    #[test]
    fn nesting_has_an_end() {
        for nested in [vec![0x1c; 4096], vec![0x19; 4096]] {
            let bytes = [&[0x0c, 80][..], &nested].concat();
            assert_eq!(walked(&bytes, &FILE), Err(Fault::Depth));
        }
    }

    #[test]
    fn ids_and_stops_are_read_as_the_crate_reads_them() {
        // A stop whose other bits are set.
        assert_eq!(walked(&[0x30], &FILE), Ok(()));
        // Past the largest id.
        assert_eq!(walked(&[0x05, 0xfe, 0xff, 0x03, 0, 0x15, 0, 0], &FILE), Err(Fault::Field));
        // Negative ids, and 0, are those of no field.
        for id in [0x00, 0x01] {
            assert_eq!(walked(&[0x08, id, 0, 0], &FILE), Ok(()));
        }
    }

    /// Booleans that are let through are counted in all lists together.
    #[test]
    fn booleans_are_counted() {
        struct Ten;
        impl Visit for Ten {
            const BOOLEANS: u64 = 10;
        }
        // In each list two, and bytes after them as if each took one.
        let lists =
            |count: u8| [vec![0x09, 80, count << 4 | 9], vec![0x22; count.into()], vec![0; 4]].concat();
        assert_eq!(walk(&mut &lists(5)[..], &FILE, &mut Ten), Ok(()));
        assert_eq!(walk(&mut &lists(6)[..], &FILE, &mut Ten), Err(Fault::Booleans));
    }

    proptest! {
        /// Of bytes in memory and bytes that are read, the same is found.
        #[test]
        fn any_bytes_are_walked_over(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let read = walk(&mut (&bytes[..]).take(bytes.len() as u64), &FILE, &mut ());
            prop_assert_eq!(walked(&bytes, &FILE), read);
        }
    }
}
