//! The body of a record batch in Arrow's IPC format: which of its buffers a column has, and where rows lie in them.

use super::table::{ColumnPath, KeptFile};
use arrow::array::BinaryArray;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{DataType, Schema, UnionMode};
use arrow::ipc::{MetadataVersion, RecordBatch};
use std::fs::File;
use std::ops::Range;

/// What the compressed columns of a record batch may unpack to: so many bytes, and so many for each byte that they take
/// in the file. Images hardly shrink; the labels of a sorted set do a thousandfold.
const UNPACKED: u64 = 16 << 20;
const UNPACKED_OF_EACH: u64 = 1 << 10;

/// The body of a message in a file.
pub(super) struct Body<'a> {
    pub(super) kept: &'a KeptFile,
    pub(super) file: &'a File,
    pub(super) place: Range<u64>,
}

impl Body<'_> {
    /// Some of its bytes.
    fn bytes(&self, range: Range<u64>) -> Result<Vec<u8>, String> {
        let [start, end] = [range.start, range.end].map(|at| self.place.start.saturating_add(at));
        if end > self.place.end {
            return Err("a buffer ends beyond its message".into());
        }
        let bytes = self.kept.bytes(self.file, start..end).map_err(|e| e.to_string())?;
        bytes.ok_or_else(|| "it was cut short".into())
    }

    /// The body with the buffers of these columns, and zeros in place of all others: the system gives memory for those
    /// pages alone that are written to.
    pub(super) fn of_columns(
        &self,
        batch: RecordBatch<'_>,
        schema: &Schema,
        version: MetadataVersion,
        columns: &[usize],
    ) -> Result<Buffer, String> {
        let mut layout = Layout::new(batch, version);
        let mut buffers = Vec::new();
        for (column, field) in schema.fields().iter().enumerate() {
            let own = layout.advance(field.data_type())?;
            if columns.contains(&column) {
                buffers.extend(own);
            }
        }
        self.read_buffers(batch, buffers.into_iter())
    }

    /// The body with all buffers of a dictionary.
    pub(super) fn whole(&self, batch: Option<RecordBatch<'_>>) -> Result<Buffer, String> {
        let batch = batch.ok_or("a dictionary without values")?;
        self.read_buffers(batch, 0..batch.buffers().map_or(0, |buffers| buffers.len()))
    }

    /// The crate allocates whatever size a compressed column claims to have; so that is compared with what it takes in
    /// the file first.
    fn read_buffers(
        &self,
        batch: RecordBatch<'_>,
        buffers: impl Iterator<Item = usize>,
    ) -> Result<Buffer, String> {
        let length = self.place.end - self.place.start;
        let mut body = MutableBuffer::from_len_zeroed(usize::try_from(length).unwrap_or(usize::MAX));
        let (mut claimed, mut stored) = (0_u64, 0_u64);
        for buffer in buffers {
            let range = place(batch, buffer)?;
            if range.is_empty() {
                continue;
            }
            let bytes = self.bytes(range.clone())?;
            if batch.compression().is_some() {
                let claim = bytes.first_chunk().copied().map_or(0, i64::from_le_bytes);
                // What is not compressed claims -1.
                claimed = claimed.saturating_add(u64::try_from(claim).unwrap_or(0));
                stored += bytes.len() as u64;
            }
            body.as_slice_mut()[range.start as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        if claimed > UNPACKED.saturating_add(UNPACKED_OF_EACH.saturating_mul(stored)) {
            return Err(format!(
                "its compressed columns claim to hold {claimed} bytes, too many for the {stored} that they take"
            ));
        }
        Ok(body.into())
    }
}

/// Where a buffer lies in its body.
fn place(batch: RecordBatch<'_>, buffer: usize) -> Result<Range<u64>, String> {
    let buffers = batch.buffers().filter(|buffers| buffer < buffers.len());
    let buffer = buffers.ok_or("a record batch lacks buffers")?.get(buffer);
    match (u64::try_from(buffer.offset()), u64::try_from(buffer.length())) {
        (Ok(start), Ok(length)) => Ok(start..start.saturating_add(length)),
        _ => Err("a buffer lies before its message".into()),
    }
}

/// A walk over the buffers of a record batch, column by column.
struct Layout<'a> {
    variadic: Box<dyn Iterator<Item = i64> + 'a>,
    version: MetadataVersion,
    next: usize,
}

impl<'a> Layout<'a> {
    fn new(batch: RecordBatch<'a>, version: MetadataVersion) -> Self {
        Self { variadic: Box::new(batch.variadicBufferCounts().into_iter().flatten()), version, next: 0 }
    }

    /// The buffers of the next column, which has this type.
    fn advance(&mut self, kind: &DataType) -> Result<Range<usize>, String> {
        let start = self.next;
        let own = match kind {
            DataType::Null | DataType::RunEndEncoded(..) => 0,
            DataType::FixedSizeList(..) | DataType::Struct(_) => 1,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 3,
            DataType::ListView(_) | DataType::LargeListView(_) => 3,
            DataType::Utf8View | DataType::BinaryView => {
                let more = self.variadic.next().and_then(|count| usize::try_from(count).ok());
                more.ok_or("a column of views without their number")?.saturating_add(2)
            }
            DataType::Union(_, mode) => {
                1 + usize::from(*mode == UnionMode::Dense) + usize::from(self.version < MetadataVersion::V5)
            }
            _ => 2,
        };
        self.next = self.next.saturating_add(own);
        match kind {
            DataType::FixedSizeList(field, _)
            | DataType::List(field)
            | DataType::LargeList(field)
            | DataType::ListView(field)
            | DataType::LargeListView(field)
            | DataType::Map(field, _) => {
                self.advance(field.data_type())?;
            }
            DataType::RunEndEncoded(ends, values) => {
                self.advance(ends.data_type())?;
                self.advance(values.data_type())?;
            }
            DataType::Struct(fields) => {
                for field in fields {
                    self.advance(field.data_type())?;
                }
            }
            DataType::Union(fields, _) => {
                for (_, field) in fields.iter() {
                    self.advance(field.data_type())?;
                }
            }
            _ => {}
        }
        Ok(start..self.next)
    }
}

/// Where the values of a column of bytes that is not compressed lie in a record batch.
pub(super) struct Rows {
    rows: usize,
    /// The bits of the structs that they are in, and their own; empty where all are set.
    validity: Vec<Range<u64>>,
    kind: Kind,
}

enum Kind {
    /// Offsets of so many bytes each, and values.
    Offsets { width: usize, offsets: Range<u64>, values: Range<u64> },
    /// Sixteen bytes for each row, which are a short value or say where a long one is.
    Views { views: Range<u64>, values: Vec<Range<u64>> },
}

impl Rows {
    /// None of a column of another kind, or one that is compressed.
    pub(super) fn find(
        batch: RecordBatch<'_>,
        schema: &Schema,
        version: MetadataVersion,
        path: ColumnPath,
    ) -> Result<Option<Self>, String> {
        if batch.compression().is_some() {
            return Ok(None);
        }
        let mut layout = Layout::new(batch, version);
        for field in schema.fields().iter().take(path.column) {
            layout.advance(field.data_type())?;
        }
        let mut validity = Vec::new();
        let mut kind = schema.field(path.column).data_type();
        if let (Some(place_of), DataType::Struct(fields)) = (path.field, kind) {
            validity.push(place(batch, layout.next)?);
            layout.next += 1;
            for field in fields.iter().take(place_of) {
                layout.advance(field.data_type())?;
            }
            kind = fields.get(place_of).ok_or("no such field")?.data_type();
        }
        let buffers = layout.advance(kind)?;
        let at = |buffer: usize| place(batch, buffers.start + buffer);
        let offsets = |width| Ok::<_, String>(Kind::Offsets { width, offsets: at(1)?, values: at(2)? });
        let kind = match kind {
            DataType::Binary => offsets(4)?,
            DataType::LargeBinary => offsets(8)?,
            DataType::BinaryView => {
                let values = (2..buffers.len()).map(at).collect::<Result<_, _>>()?;
                Kind::Views { views: at(1)?, values }
            }
            _ => return Ok(None),
        };
        validity.push(at(0)?);
        validity.retain(|bits| !bits.is_empty());
        let rows = usize::try_from(batch.length()).map_err(|_| "fewer rows than none")?;
        Ok(Some(Self { rows, validity, kind }))
    }

    /// The values of some rows.
    pub(super) fn read(&self, body: &Body<'_>, rows: Range<usize>) -> Result<BinaryArray, String> {
        if rows.end > self.rows {
            return Err("a record batch has fewer rows than it had".into());
        }
        let values: Vec<Option<Vec<u8>>> = rows.map(|row| self.value(body, row)).collect::<Result<_, _>>()?;
        Ok(values.iter().map(Option::as_deref).collect())
    }

    fn value(&self, body: &Body<'_>, row: usize) -> Result<Option<Vec<u8>>, String> {
        for bits in &self.validity {
            let byte = within(bits, row as u64 / 8, 1).ok_or("fewer bits than rows")?;
            if body.bytes(byte)?.first().is_none_or(|byte| byte >> (row % 8) & 1 == 0) {
                return Ok(None);
            }
        }
        let value = match &self.kind {
            Kind::Offsets { width, offsets, values } => {
                let both = within(offsets, row as u64 * *width as u64, 2 * *width as u64);
                let both = body.bytes(both.ok_or("fewer offsets than rows")?)?;
                let (start, end) = both.split_at(*width);
                let [start, end] = [start, end].map(little_endian);
                let length = end.checked_sub(start).ok_or("offsets that go back")?;
                within(values, start, length)
            }
            Kind::Views { views, values } => {
                let view = body.bytes(within(views, row as u64 * 16, 16).ok_or("fewer views than rows")?)?;
                let number = |at: usize| little_endian(&view[at..at + 4]);
                let length = number(0);
                if length <= 12 {
                    return Ok(Some(view[4..4 + length as usize].to_vec()));
                }
                values.get(number(8) as usize).and_then(|values| within(values, number(12), length))
            }
        };
        body.bytes(value.ok_or("a value ends beyond its buffer")?).map(Some)
    }
}

/// Some bytes of a buffer, from `start` on.
fn within(buffer: &Range<u64>, start: u64, length: u64) -> Option<Range<u64>> {
    let start = buffer.start.checked_add(start)?;
    let end = start.checked_add(length)?;
    (end <= buffer.end).then_some(start..end)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
