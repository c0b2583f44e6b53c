//! The footer of a Parquet file, checked before the crate `parquet` (60.1) believes it.
//!
//! The crate takes memory for as many children as an element of the schema claims to have, and time for as many booleans
//! as a list claims in a field that it passes over: a file of a kilobyte can ask for any amount of both. What the check
//! lets through takes memory and time in proportion to the file's size.

use super::format::{COLUMN_CHUNK, FILE, OFFSET_INDEX, SCHEMA_ELEMENT};
use super::thrift::{Struct, Visit, walk};
use crate::parquet_file::{ParquetFile, ReadAt};
use bytes::buf::Reader;
use bytes::{Buf as _, Bytes};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{FooterTail, PageIndexPolicy};
use parquet::file::reader::{ChunkReader, Length};
use std::ops::Range;

/// What comes after the metadata: its length and the format's mark.
const TAIL: u64 = 8;

/// Groups within groups of a schema, as a list of lists has them: the crate takes some of the stack for each.
const MOST_NESTED: usize = 128;

/// A column is given the names of all groups that it is in. Together they may take so many bytes, and so many times the
/// footer's length: a long name may be that of a group of many columns.
const NAMES: u64 = 1 << 20;
const NAMES_BY_LENGTH: u64 = 64;

/// What a name takes in memory, beside its bytes.
const NAME: u64 = 48;

/// Reads the footer of a file, and where its pages lie if `options` ask for that. What is known of the values in pages
/// (`ColumnIndex`) is never read.
///
/// # Errors
/// If the file cannot be read, is damaged, or claims more than it can have.
pub(crate) fn load<R: ReadAt + Send + Sync>(
    file: &ParquetFile<R>,
    options: ArrowReaderOptions,
) -> Result<ArrowReaderMetadata> {
    let footer = read_footer(file)?;
    let mut claims = Claims::default();
    let metadata = &footer.bytes[..footer.bytes.len() - TAIL as usize];
    walk(&mut &*metadata, &FILE, &mut claims).map_err(|fault| damaged(format!("its footer: {fault}")))?;
    check_schema(&claims.elements, metadata.len() as u64).map_err(damaged)?;
    let mut parts = vec![footer];
    if options.offset_index_policy() != PageIndexPolicy::Skip {
        parts.extend(read_indexes(file, &claims.indexes)?);
    }
    let checked = Checked { length: file.len(), parts };
    ArrowReaderMetadata::load(&checked, options.with_column_index_policy(PageIndexPolicy::Skip))
}

fn damaged(reason: impl Into<String>) -> ParquetError {
    ParquetError::General(reason.into())
}

/// The footer, to the file's end.
fn read_footer<R: ReadAt + Send + Sync>(file: &ParquetFile<R>) -> Result<Part> {
    let at = file.len().checked_sub(TAIL).ok_or_else(|| damaged("it is too short for a footer"))?;
    let bytes = file.bytes(at, TAIL as usize)?;
    let tail = FooterTail::try_from(&*bytes)?;
    if tail.is_encrypted_footer() {
        return Err(damaged("its footer is encrypted; write the file without encryption"));
    }
    let start = at
        .checked_sub(tail.metadata_length() as u64)
        .ok_or_else(|| damaged("its footer claims to be longer than the file"))?;
    Ok(Part { start, bytes: file.bytes(start, tail.metadata_length() + TAIL as usize)? })
}

/// All offset indexes, with what lies between them; none if there are none.
fn read_indexes<R: ReadAt + Send + Sync>(
    file: &ParquetFile<R>,
    indexes: &[Range<u64>],
) -> Result<Option<Part>> {
    let (start, end) = indexes
        .iter()
        .fold((u64::MAX, 0), |(start, end), index| (start.min(index.start), end.max(index.end)));
    if start >= end {
        return Ok(None);
    }
    // Any number of columns could name the same large index, and each would be read.
    let total = indexes.iter().fold(0, |total: u64, index| total.saturating_add(index.end - index.start));
    if total > file.len() {
        return Err(damaged("its offset indexes are longer than the file"));
    }
    let length = usize::try_from(end - start).map_err(|_| damaged("an offset index ends beyond the file"))?;
    let bytes = file.bytes(start, length)?;
    for index in indexes {
        let range = (index.start - start) as usize..(index.end - start) as usize;
        walk(&mut &bytes[range], &OFFSET_INDEX, &mut ())
            .map_err(|fault| damaged(format!("an offset index: {fault}")))?;
    }
    Ok(Some(Part { start, bytes }))
}

/// An element of the schema: a column, or a group of elements that follow.
#[derive(Clone, Copy, Debug, Default)]
struct Element {
    children: i32,
    /// Length of its name, in bytes.
    name: i64,
}

/// What a footer claims.
#[derive(Debug, Default)]
struct Claims {
    elements: Vec<Element>,
    /// Of all column chunks that have one.
    indexes: Vec<Range<u64>>,
    element: Element,
    /// Offset and length of the index of a column chunk.
    index: (Option<i64>, Option<i64>),
}

impl Visit for Claims {
    fn number(&mut self, of: &'static Struct, id: i16, value: i64) {
        if of.is(&COLUMN_CHUNK) {
            match id {
                4 => self.index.0 = Some(value),
                // Of 32 bits, and whatever more is there the crate drops.
                5 => self.index.1 = Some(i64::from(value as i32)),
                _ => {}
            }
        } else if of.is(&SCHEMA_ELEMENT) {
            match id {
                4 => self.element.name = value,
                5 => self.element.children = value as i32,
                _ => {}
            }
        }
    }

    fn end(&mut self, of: &'static Struct) {
        if of.is(&COLUMN_CHUNK) {
            if let (Some(offset), Some(length)) = std::mem::take(&mut self.index)
                && let (Ok(start), Ok(length)) = (u64::try_from(offset), u64::try_from(length))
            {
                self.indexes.push(start..start.saturating_add(length));
            }
        } else if of.is(&SCHEMA_ELEMENT) {
            self.elements.push(std::mem::take(&mut self.element));
        }
    }
}

/// Checks that the elements of a schema are one tree, which is not too deep, and the columns of which have paths that are
/// not too long for a footer of `length` bytes.
fn check_schema(elements: &[Element], length: u64) -> std::result::Result<(), &'static str> {
    const NO_TREE: &str = "the schema has not as many columns as it claims";
    // Of each group that is open, the elements that are still to come, and what the names of its path take.
    let mut open: Vec<(i32, u64)> = Vec::new();
    let mut names = 0_u64;
    for (place, element) in elements.iter().enumerate() {
        let mut path = 0;
        if place > 0 {
            let (left, above) = open.last_mut().ok_or(NO_TREE)?;
            *left -= 1;
            path = *above + NAME + element.name.unsigned_abs();
        }
        match element.children {
            ..0 => return Err(NO_TREE),
            0 => names = names.saturating_add(path),
            _ if open.len() == MOST_NESTED => return Err("the schema is nested too deeply"),
            children => open.push((children, path)),
        }
        while open.pop_if(|(left, _)| *left == 0).is_some() {}
    }
    if elements.is_empty() || !open.is_empty() {
        return Err(NO_TREE);
    }
    if names > NAMES.max(length.saturating_mul(NAMES_BY_LENGTH)) {
        return Err("the paths of its columns are too long");
    }
    Ok(())
}

/// Bytes of a file, from `start` on.
#[derive(Debug)]
struct Part {
    start: u64,
    bytes: Bytes,
}

/// A file of which only parts that were checked can be read.
#[derive(Debug)]
struct Checked {
    /// Of the file.
    length: u64,
    parts: Vec<Part>,
}

impl Checked {
    /// Bytes from `start` on, `length` of them or all that are known.
    fn find(&self, start: u64, length: Option<usize>) -> Result<Bytes> {
        let found = self.parts.iter().find_map(|part| {
            let from = usize::try_from(start.checked_sub(part.start)?).ok()?;
            let end = length.map_or(Some(part.bytes.len()), |length| from.checked_add(length))?;
            (from <= end && end <= part.bytes.len()).then(|| part.bytes.slice(from..end))
        });
        found.ok_or_else(|| damaged("its footer is not where its indexes say"))
    }
}

impl Length for Checked {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Checked {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.find(start, None)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.find(start, Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray, StructArray};
    use arrow::datatypes::Int32Type;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Repetition;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;
    use std::io;
    use std::sync::Arc;

    impl ReadAt for Vec<u8> {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
            io::Read::read(&mut &self[self.len().min(at as usize)..], buffer)
        }
    }

    fn file(bytes: Vec<u8>) -> ParquetFile<Vec<u8>> {
        let length = bytes.len() as u64;
        ParquetFile::of(bytes, length)
    }

    /// A table of three rows in three row groups, with a list in a struct, statistics and page indexes.
    fn table() -> Vec<u8> {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]);
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let group = StructArray::try_from(vec![("list", Arc::new(lists) as ArrayRef), ("name", names)]);
        let columns: [(_, ArrayRef); 2] =
            [("label", Arc::new(Int32Array::from(vec![0, 1, 2]))), ("group", Arc::new(group.unwrap()))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1)).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn with_offsets() -> ArrowReaderOptions {
        ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Required)
    }

    fn refused(bytes: Vec<u8>, reason: &str) {
        let error = load(&file(bytes), with_offsets()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn sound_footers_are_loaded_as_the_crate_loads_them() {
        let file = file(table());
        for options in [ArrowReaderOptions::new(), with_offsets()] {
            let loaded = load(&file, options.clone()).unwrap();
            let expected = ArrowReaderMetadata::load(&file, options).unwrap();
            assert_eq!(loaded.schema(), expected.schema());
            assert_eq!(loaded.metadata().row_groups(), expected.metadata().row_groups());
            let offsets = |metadata: &ArrowReaderMetadata| {
                let index = metadata.metadata().page_index()?;
                Some(format!("{:?} {:?}", index.offset_index(0, 0), index.offset_index(2, 2)))
            };
            assert_eq!(offsets(&loaded), offsets(&expected));
        }
        assert_eq!(load(&file, ArrowReaderOptions::new()).unwrap().metadata().num_row_groups(), 3);
    }

    #[test]
    fn the_values_in_pages_are_not_read() {
        let all = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let metadata = load(&file(table()), all).unwrap();
        let index = metadata.metadata().page_index().unwrap();
        assert!(index.column_index(0, 0).is_none() && index.offset_index(0, 0).is_some());
    }

    #[test]
    fn a_footer_must_lie_in_the_file() {
        let table = table();
        for length in 0..8 {
            refused(table[..length].to_vec(), "too short");
        }
        let end = table.len();
        let mut longer = table.clone();
        longer[end - 8..end - 4].copy_from_slice(&(end as u32 - 7).to_le_bytes());
        refused(longer, "longer than the file");
        let mut encrypted = table;
        encrypted[end - 1] = b'E';
        refused(encrypted, "encrypted");
    }

    #[test]
    fn claims_in_a_footer_are_refused() {
        // The version, and a list of two billion booleans, or bytes.
        for (element, reason) in [(1, "booleans"), (3, "more elements")] {
            let footer = [0x15, 2, 0x09, 80, 0xf0 | element, 0xff, 0xff, 0xff, 0xff, 0x07, 0];
            let bytes = [&b"PAR1"[..], &footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
            refused(bytes, reason);
        }
    }

    fn schema(children: &[i32]) -> std::result::Result<(), &'static str> {
        let elements: Vec<_> =
            children.iter().map(|children| Element { children: *children, name: 4 }).collect();
        check_schema(&elements, 1000)
    }

    #[test]
    fn a_schema_is_one_tree() {
        for tree in [&[0][..], &[2, 0, 0], &[2, 1, 0, 2, 0, 0], &[1, 1, 1, 0]] {
            assert_eq!(schema(tree), Ok(()), "{tree:?}");
        }
        for none in
            [&[][..], &[-1], &[1], &[0, 0], &[2, 0], &[2, 0, 0, 0], &[1, 939_524_100, 0], &[1, i32::MIN]]
        {
            assert!(schema(none).is_err_and(|reason| reason.contains("as many columns")), "{none:?}");
        }
    }

    #[test]
    fn names_of_groups_are_counted_for_each_column() {
        let columns = 20_000;
        let of = |name| {
            let column = Element { children: 0, name: 1 };
            let group = Element { children: columns, name };
            [vec![Element { children: 1, name: 4 }, group], vec![column; columns as usize]].concat()
        };
        assert_eq!(check_schema(&of(10), 20_000 * 8), Ok(()));
        assert!(check_schema(&of(10_000), 20_000 * 8).is_err_and(|reason| reason.contains("paths")));
    }

    /// A file without rows, of a column in so many groups.
    fn nested(groups: usize) -> Vec<u8> {
        let mut of = Type::primitive_type_builder("x", parquet::basic::Type::INT32)
            .with_repetition(Repetition::OPTIONAL)
            .build()
            .unwrap();
        for _ in 0..groups {
            of = Type::group_type_builder("g")
                .with_repetition(Repetition::OPTIONAL)
                .with_fields(vec![Arc::new(of)])
                .build()
                .unwrap();
        }
        SerializedFileWriter::new(Vec::new(), Arc::new(of), Arc::default()).unwrap().into_inner().unwrap()
    }

    #[test]
    fn nesting_has_an_end() {
        let deepest = load(&file(nested(MOST_NESTED)), ArrowReaderOptions::new()).unwrap();
        assert_eq!(deepest.parquet_schema().column(0).path().parts().len(), MOST_NESTED);
        refused(nested(MOST_NESTED + 1), "nested too deeply");
    }

    #[test]
    fn claims_in_an_offset_index_are_refused() {
        let table = table();
        let metadata = load(&file(table.clone()), ArrowReaderOptions::new()).unwrap();
        for group in metadata.metadata().row_groups() {
            for column in group.columns() {
                let start = column.offset_index_offset().unwrap() as usize;
                assert_eq!(table[start..start + 2], [0x19, 0x1c]);
                let mut claims = table.clone();
                claims[start + 1..start + 7].copy_from_slice(&[0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]);
                refused(claims, "an offset index: a list claims more elements");
                let mut other = table.clone();
                other[start + 1] = 0x15;
                refused(other, "an offset index: a field has a type");
            }
        }
    }

    #[test]
    fn offset_indexes_lie_in_the_file_and_apart() {
        let file = file(vec![0; 100]);
        let read = |indexes: &[(u64, u64)]| {
            let indexes: Vec<_> = indexes.iter().map(|(start, end)| *start..*end).collect();
            read_indexes(&file, &indexes).map(|part| part.map(|part| part.start))
        };
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[(7, 7)]).unwrap(), None);
        assert_eq!(read(&[(50, 100), (10, 60)]).unwrap(), Some(10));
        assert!(read(&[(10, 101)]).is_err() && read(&[(0, u64::MAX)]).is_err());
        assert!(read(&[(10, 60); 3]).unwrap_err().to_string().contains("longer than the file"));
    }
}
