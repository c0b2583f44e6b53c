//! The definitions of the Parquet format's metadata, as far as the crate `parquet` (60.1) knows them.
//!
//! Source: <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>. Fields stand in the
//! order of their ids, from 1 on. Enums are integers.

use super::thrift::Struct;
use super::thrift::Type::{self, Binary, Bool, Byte, Double, Integer, List, Unknown};

static EMPTY: Struct = Struct(&[]);

/// A member of a union that says no more than which it is.
const MEMBER: Type = Type::Struct(&EMPTY);

/// `FileMetaData`, the footer.
pub(crate) static FILE: Struct = Struct(&[
    Integer,
    List(&Type::Struct(&SCHEMA_ELEMENT)),
    Integer,
    List(&Type::Struct(&ROW_GROUP)),
    List(&Type::Struct(&KEY_VALUE)),
    Binary,
    List(&Type::Struct(&COLUMN_ORDER)),
    Type::Struct(&ENCRYPTION_ALGORITHM),
    Binary,
]);

/// `SchemaElement`: name and number of children are the fields 4 and 5.
pub(crate) static SCHEMA_ELEMENT: Struct = Struct(&[
    Integer,
    Integer,
    Integer,
    Binary,
    Integer,
    Integer,
    Integer,
    Integer,
    Integer,
    Type::Struct(&LOGICAL_TYPE),
]);

static LOGICAL_TYPE: Struct = Struct(&[
    // String, map, list, enum.
    MEMBER,
    MEMBER,
    MEMBER,
    MEMBER,
    Type::Struct(&DECIMAL),
    // Date.
    MEMBER,
    Type::Struct(&TIME),
    Type::Struct(&TIME),
    // Reserved for intervals.
    Unknown,
    Type::Struct(&INT),
    // Null, JSON, BSON, UUID, 16-bit float.
    MEMBER,
    MEMBER,
    MEMBER,
    MEMBER,
    MEMBER,
    Type::Struct(&VARIANT),
    Type::Struct(&GEOMETRY),
    Type::Struct(&GEOGRAPHY),
    // File.
    MEMBER,
]);

static DECIMAL: Struct = Struct(&[Integer, Integer]);

/// `TimeType` and `TimestampType`.
static TIME: Struct = Struct(&[Bool, Type::Struct(&TIME_UNIT)]);

static TIME_UNIT: Struct = Struct(&[MEMBER, MEMBER, MEMBER]);

static INT: Struct = Struct(&[Byte, Bool]);

static VARIANT: Struct = Struct(&[Byte]);

static GEOMETRY: Struct = Struct(&[Binary]);

static GEOGRAPHY: Struct = Struct(&[Binary, Integer]);

static ROW_GROUP: Struct = Struct(&[
    List(&Type::Struct(&COLUMN_CHUNK)),
    Integer,
    Integer,
    List(&Type::Struct(&SORTING_COLUMN)),
    Integer,
    Integer,
    Integer,
]);

static SORTING_COLUMN: Struct = Struct(&[Integer, Bool, Bool]);

/// `ColumnChunk`: the place and length of its offset index are the fields 4 and 5.
pub(crate) static COLUMN_CHUNK: Struct = Struct(&[
    Binary,
    Integer,
    Type::Struct(&COLUMN),
    Integer,
    Integer,
    Integer,
    Integer,
    Type::Struct(&COLUMN_CRYPTO),
    Binary,
]);

/// `ColumnMetaData`
static COLUMN: Struct = Struct(&[
    Integer,
    List(&Integer),
    List(&Binary),
    Integer,
    Integer,
    Integer,
    Integer,
    List(&Type::Struct(&KEY_VALUE)),
    Integer,
    Integer,
    Integer,
    Type::Struct(&STATISTICS),
    List(&Type::Struct(&PAGE_ENCODING_STATS)),
    Integer,
    Integer,
    Type::Struct(&SIZE_STATISTICS),
    Type::Struct(&GEOSPATIAL_STATISTICS),
]);

static KEY_VALUE: Struct = Struct(&[Binary, Binary]);

static STATISTICS: Struct = Struct(&[Binary, Binary, Integer, Integer, Binary, Binary, Bool, Bool, Integer]);

static PAGE_ENCODING_STATS: Struct = Struct(&[Integer, Integer, Integer]);

static SIZE_STATISTICS: Struct = Struct(&[Integer, List(&Integer), List(&Integer)]);

static GEOSPATIAL_STATISTICS: Struct = Struct(&[Type::Struct(&BOUNDING_BOX), List(&Integer)]);

static BOUNDING_BOX: Struct = Struct(&[Double, Double, Double, Double, Double, Double, Double, Double]);

static COLUMN_ORDER: Struct = Struct(&[MEMBER, MEMBER, MEMBER]);

static ENCRYPTION_ALGORITHM: Struct = Struct(&[Type::Struct(&AES_GCM), Type::Struct(&AES_GCM)]);

/// `AesGcmV1` and `AesGcmCtrV1`.
static AES_GCM: Struct = Struct(&[Binary, Binary, Bool]);

/// `ColumnCryptoMetaData`
static COLUMN_CRYPTO: Struct = Struct(&[MEMBER, Type::Struct(&COLUMN_KEY)]);

/// `EncryptionWithColumnKey`
static COLUMN_KEY: Struct = Struct(&[List(&Binary), Binary]);

/// `OffsetIndex`: where the pages of a column chunk lie.
pub(crate) static OFFSET_INDEX: Struct = Struct(&[List(&Type::Struct(&PAGE_LOCATION)), List(&Integer)]);

static PAGE_LOCATION: Struct = Struct(&[Integer, Integer, Integer]);

/// `PageHeader`: type and sizes are the fields 1 to 3.
pub(crate) static PAGE_HEADER: Struct = Struct(&[
    Integer,
    Integer,
    Integer,
    Integer,
    Type::Struct(&DATA_PAGE_HEADER),
    // Of index pages.
    MEMBER,
    Type::Struct(&DICTIONARY_PAGE_HEADER),
    Type::Struct(&DATA_PAGE_HEADER_V2),
]);

/// `DataPageHeader`: the number of values is the first field. The crate passes over statistics, the fifth.
pub(crate) static DATA_PAGE_HEADER: Struct = Struct(&[Integer, Integer, Integer, Integer, Unknown]);

/// `DictionaryPageHeader`: the number of values is the first field.
pub(crate) static DICTIONARY_PAGE_HEADER: Struct = Struct(&[Integer, Integer, Bool]);

/// `DataPageHeaderV2`: the numbers of values and of rows are the fields 1 and 3. The crate passes over statistics, the
/// eighth.
pub(crate) static DATA_PAGE_HEADER_V2: Struct =
    Struct(&[Integer, Integer, Integer, Integer, Integer, Integer, Bool, Unknown]);

#[cfg(test)]
mod tests {
    use super::super::thrift::{Fault, walk};
    use super::*;

    const ROOTS: [&Struct; 2] = [&FILE, &OFFSET_INDEX];

    /// A struct in bytes, as far as the first field of a struct somewhere in it.
    #[derive(Clone)]
    struct Place {
        of: &'static Struct,
        bytes: Vec<u8>,
        depth: usize,
    }

    /// Every struct below `of`, by every path.
    fn places(of: &'static Struct) -> Vec<Place> {
        let mut found = vec![Place { of, bytes: Vec::new(), depth: 0 }];
        let mut next = 0;
        while let Some(place) = found.get(next).cloned() {
            for (field, id) in place.of.0.iter().zip(1..) {
                let (of, head): (_, &[u8]) = match field {
                    Type::Struct(of) => (*of, &[]),
                    Type::List(Type::Struct(of)) => (*of, &[0x1c]),
                    _ => continue,
                };
                let bytes = [&place.bytes, &field_of(id, field.code().unwrap(), head)[..]].concat();
                found.push(Place { of, bytes, depth: place.depth + 1 });
            }
            next += 1;
        }
        found
    }

    /// A field with its full id.
    fn field_of(id: u8, code: u8, value: &[u8]) -> Vec<u8> {
        [&[code, 2 * id][..], value].concat()
    }

    /// A sound value of a type, by its number.
    fn value_of(code: u8) -> Vec<u8> {
        match code {
            1 | 2 => vec![],
            7 => vec![0; 8],
            13 => vec![0; 16],
            _ => vec![0],
        }
    }

    /// The outcome of a field in each struct of footers and of offset indexes, which are whole otherwise.
    fn everywhere(field: impl Fn(&'static Struct) -> Option<Vec<u8>>) -> Vec<Result<(), Fault>> {
        let mut outcomes = Vec::new();
        for root in ROOTS {
            for place in places(root) {
                if let Some(field) = field(place.of) {
                    let bytes = [&place.bytes[..], &field, &vec![0; place.depth + 1]].concat();
                    outcomes.push(walk(&mut &bytes[..], root, &mut ()));
                }
            }
        }
        outcomes
    }

    /// The id of a field that no struct has.
    const OTHER: u8 = 40;

    #[test]
    fn known_fields_must_have_their_types_in_every_struct() {
        assert_eq!(ROOTS.map(|root| places(root).len()), [50, 2]);
        for place in 0..19 {
            for code in 1..=13 {
                let outcomes = everywhere(|of| {
                    let field = of.0.get(place)?;
                    Some(field_of(place as u8 + 1, code, &value_of(code))).filter(|_| field.has(code))
                });
                assert!(outcomes.iter().all(|outcome| *outcome == Ok(())), "{place} {code}: {outcomes:?}");
                let outcomes = everywhere(|of| {
                    let field = of.0.get(place)?;
                    Some(field_of(place as u8 + 1, code, &value_of(code))).filter(|_| !field.has(code))
                });
                assert!(outcomes.iter().all(|outcome| *outcome == Err(Fault::Field)), "{place} {code}");
            }
        }
    }

    #[test]
    fn other_fields_are_passed_over_in_every_struct() {
        for code in 1..=13 {
            let outcomes = everywhere(|_| Some(field_of(OTHER, code, &value_of(code))));
            assert!(outcomes.iter().all(|outcome| *outcome == Ok(())), "{code}: {outcomes:?}");
        }
        let outcomes = everywhere(|_| Some(field_of(OTHER, 14, &[0])));
        assert!(outcomes.iter().all(|outcome| *outcome == Err(Fault::Type)));
    }

    /// 2³¹ − 1 as a length.
    const MOST: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x07];

    #[test]
    fn claims_beyond_the_bytes_are_refused_in_every_struct() {
        for code in 3..=13 {
            for list in [9, 10] {
                let claim = [&[0xf0 | code], &MOST[..]].concat();
                let outcomes = everywhere(|_| Some(field_of(OTHER, list, &claim)));
                assert!(outcomes.iter().all(|outcome| *outcome == Err(Fault::Overlong)), "{code}");
            }
            let claim = [&MOST[..], &[code << 4 | 8]].concat();
            let outcomes = everywhere(|_| Some(field_of(OTHER, 11, &claim)));
            assert!(outcomes.iter().all(|outcome| *outcome == Err(Fault::Overlong)), "{code}");
        }
        let outcomes = everywhere(|_| Some(field_of(OTHER, 8, &MOST)));
        assert!(outcomes.iter().all(|outcome| *outcome == Err(Fault::End)));

        // The lists and strings that the format has.
        for place in 0..19 {
            let outcomes = everywhere(|of| match of.0.get(place)? {
                Type::List(of) => {
                    let claim = [&[0xf0 | of.code()?], &MOST[..]].concat();
                    Some(field_of(place as u8 + 1, 9, &claim))
                }
                _ => None,
            });
            assert!(outcomes.iter().all(|outcome| *outcome == Err(Fault::Overlong)), "{place}");
            let outcomes = everywhere(|of| {
                matches!(of.0.get(place)?, Type::Binary).then(|| field_of(place as u8 + 1, 8, &MOST))
            });
            assert!(outcomes.iter().all(|outcome| *outcome == Err(Fault::End)), "{place}");
        }
    }

    #[test]
    fn booleans_in_lists_are_refused_unless_there_are_none() {
        for boolean in [1, 2] {
            for list in [9, 10] {
                let one = everywhere(|_| Some(field_of(OTHER, list, &[0x10 | boolean])));
                assert!(one.iter().all(|outcome| *outcome == Err(Fault::Booleans)));
                let none = everywhere(|_| Some(field_of(OTHER, list, &[boolean])));
                assert!(none.iter().all(|outcome| *outcome == Ok(())));
            }
            for codes in [boolean << 4 | 5, 0x50 | boolean] {
                let one = everywhere(|_| Some(field_of(OTHER, 11, &[1, codes, 0])));
                assert!(one.iter().all(|outcome| *outcome == Err(Fault::Booleans)));
            }
        }
        // In a list of lists.
        let inner = everywhere(|_| Some(field_of(OTHER, 9, &[0x19, 0x11])));
        assert!(inner.iter().all(|outcome| *outcome == Err(Fault::Booleans)));
    }
}
