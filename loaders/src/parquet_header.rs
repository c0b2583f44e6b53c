//! What a page's header in a Parquet file claims, read before the crate `parquet` believes it.

use std::io::{self, Read};

/// Fields that no page has at once, and levels of structs and lists that no header has.
const MOST_FIELDS: usize = 64;
const DEEPEST: usize = 16;

/// No more is looked at, in bytes: other bytes than headers may claim to go on for ever.
const LONGEST_HEADER: u64 = 1 << 16;

/// The largest list that a header is let through with. The format has none in headers.
const LONGEST_LIST: u64 = 1 << 16;

/// Pages of up to so many bytes may be compressed as far as it goes, as those of one value are. Larger ones are mostly
/// images, and no page of use has shrunk by more than the other number: memory is taken for what a header claims.
const LARGE_PAGE: i64 = 1 << 26;
const MOST_COMPRESSED: i64 = 2000;

/// `PageType.DICTIONARY_PAGE`
const DICTIONARY: i64 = 2;

// Ids of fields of `PageHeader`, of the headers of kinds of pages in it, and of fields of these.
const PAGE_TYPE: i64 = 1;
const UNCOMPRESSED_SIZE: i64 = 2;
const COMPRESSED_SIZE: i64 = 3;
const DATA_HEADER: i64 = 5;
const DICTIONARY_HEADER: i64 = 7;
const DATA_HEADER_V2: i64 = 8;
const NUM_VALUES: i64 = 1;
const NUM_ROWS: i64 = 3;

/// What a page's header claims.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PageHeader {
    /// The integers of the fields 1 to 3.
    page: [Option<i64>; 4],
    dictionary_values: Option<i64>,
    /// The values of a data page, of all levels.
    values: Option<i64>,
    /// The rows of a data page, which the format's second version tells.
    rows: Option<i64>,
    /// The header's own length, in bytes, if all of it was found.
    length: Option<u64>,
    overlong: bool,
}

impl PageHeader {
    /// The header that `reader` begins with. `None` of bytes that are no header.
    pub(crate) fn read(reader: impl Read) -> Option<Self> {
        let mut walk = Walk { reader: reader.take(LONGEST_HEADER), header: Self::default() };
        // Bytes that end or break off are no header, which the crate finds out by itself.
        let is_whole = walk.fields(0, None).is_ok();
        let mut header = walk.header;
        header.length = is_whole.then(|| LONGEST_HEADER - walk.reader.limit());
        header.page[1..].iter().all(Option::is_some).then_some(header)
    }

    /// Why the page must not be read any further: what its header claims would take hours or all memory. `None` of
    /// sound headers.
    pub(crate) fn refused(&self) -> Option<&'static str> {
        if self.overlong {
            return Some("a page's header has a list that no page has");
        }
        let [_, kind, size, compressed] = self.page;
        let is_sound =
            |(size, compressed): (i64, i64)| size <= LARGE_PAGE || size / MOST_COMPRESSED <= compressed;
        if self.length.is_some() && !size.zip(compressed).is_none_or(is_sound) {
            return Some("a page claims to be larger than so few bytes can be decompressed to");
        }
        match self.dictionary_values.zip(size) {
            // Values of the shortest kind take a bit each, and those of a dictionary more.
            Some((values, size))
                if self.length.is_some() && kind == Some(DICTIONARY) && values > size.saturating_mul(8) =>
            {
                Some("a dictionary claims more values than it has bytes for")
            }
            _ => None,
        }
    }

    /// The bytes of header and page in the file, if they can be.
    pub(crate) fn stored(&self) -> Option<u64> {
        self.length?.checked_add(u64::try_from(self.page[COMPRESSED_SIZE as usize]?).ok()?)
    }

    /// The rows of a data page of a column without lists; none of other pages.
    pub(crate) fn flat_rows(&self) -> Option<usize> {
        usize::try_from(self.rows.or(self.values)?).ok()
    }
}

/// The type of a field that the crate knows: it reads that, whatever type the header says.
fn expected(inside: Option<i64>, id: i64) -> Option<u8> {
    /// Of booleans, integers and structs.
    const TYPES: [u8; 3] = [1, 5, 12];
    let [boolean, integer, fields] = TYPES;
    match (inside, id) {
        (None | Some(DATA_HEADER), 1..=4)
        | (Some(DICTIONARY_HEADER), 1 | 2)
        | (Some(DATA_HEADER_V2), 1..=6) => Some(integer),
        (None, 5..=8) => Some(fields),
        (Some(DICTIONARY_HEADER), 3) | (Some(DATA_HEADER_V2), 7) => Some(boolean),
        _ => None,
    }
}

/// A walk over a struct in Thrift's compact protocol, as the crate walks it.
struct Walk<R> {
    reader: io::Take<R>,
    header: PageHeader,
}

impl<R: Read> Walk<R> {
    /// Walks a struct; `inside` is the id of the field of the header that it is, if it is not the header itself.
    fn fields(&mut self, depth: usize, inside: Option<i64>) -> io::Result<()> {
        let mut id = 0;
        for _ in 0..MOST_FIELDS {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(());
            }
            let short = match byte >> 4 {
                0 => unzigzag(self.varint()?) as i16,
                delta => (id as i16).wrapping_add(i16::from(delta)),
            };
            id = i64::from(short);
            self.value(expected(inside, id).unwrap_or(byte & 0xf), depth, inside, id)?;
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Walks a value of a type; `id` is that of the field, 0 for elements of lists.
    fn value(&mut self, kind: u8, depth: usize, inside: Option<i64>, id: i64) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match kind {
            // Of booleans, the type is the value; the crate expects none in lists either.
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => {
                // All integers of headers are of 32 bits, and whatever more is there the crate drops.
                let number = i64::from(unzigzag(self.varint()?) as i32);
                match (inside, id) {
                    (None, PAGE_TYPE | UNCOMPRESSED_SIZE | COMPRESSED_SIZE) => {
                        self.header.page[id as usize] = Some(number);
                    }
                    (Some(DICTIONARY_HEADER), NUM_VALUES) => self.header.dictionary_values = Some(number),
                    (Some(DATA_HEADER | DATA_HEADER_V2), NUM_VALUES) => self.header.values = Some(number),
                    (Some(DATA_HEADER_V2), NUM_ROWS) => self.header.rows = Some(number),
                    _ => {}
                }
            }
            7 => self.skip(8)?,
            8 => {
                let length = self.varint()?;
                self.skip(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                self.elements(count, &[head & 0xf], depth)?;
            }
            11 => {
                let count = self.varint()?;
                if count > 0 {
                    let kinds = self.byte()?;
                    self.elements(count, &[kinds >> 4, kinds & 0xf], depth)?;
                }
            }
            12 => self.fields(depth + 1, Some(if depth == 0 { id } else { 0 }))?,
            13 => self.skip(16)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(())
    }

    fn elements(&mut self, count: u64, kinds: &[u8], depth: usize) -> io::Result<()> {
        if count > LONGEST_LIST {
            self.header.overlong = true;
            return Err(io::ErrorKind::InvalidData.into());
        }
        for _ in 0..count {
            for kind in kinds {
                self.value(*kind, depth + 1, Some(0), 0)?;
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let (mut value, mut shift) = (0, 0_u32);
        loop {
            let byte = self.byte()?;
            // However long it is: so does the crate.
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a dictionary page of 40 bytes with so many values, from 0 to 63.
    fn dictionary(values: u8) -> Vec<u8> {
        vec![0x15, 4, 0x15, 80, 0x15, 80, 0x4c, 0x15, 2 * values, 0x15, 0, 0, 0]
    }

    fn refused(bytes: &[u8]) -> Option<&'static str> {
        PageHeader::read(bytes).and_then(|header| header.refused())
    }

    #[test]
    fn pages_are_measured() {
        let header = PageHeader::read(&dictionary(10)[..]).unwrap();
        assert_eq!((header.stored(), header.flat_rows()), (Some(13 + 40), None));
        let data = [0x15, 0, 0x15, 20, 0x15, 20, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0, 0xff];
        let header = PageHeader::read(&data[..]).unwrap();
        assert_eq!((header.stored(), header.flat_rows()), (Some(17 + 10), Some(3)));
        // Three values in two rows, in the format's second version.
        let data =
            [0x15, 6, 0x15, 20, 0x15, 20, 0x5c, 0x15, 6, 0x15, 0, 0x15, 4, 0x15, 0, 0x15, 0, 0x15, 0, 0, 0];
        let header = PageHeader::read(&data[..]).unwrap();
        assert_eq!((header.stored(), header.flat_rows()), (Some(21 + 10), Some(2)));
    }

    #[test]
    fn sound_headers_and_other_bytes_are_let_through() {
        assert_eq!(refused(&dictionary(10)), None);
        // A data page, with statistics, from the format's own description.
        let data = [0x15, 0, 0x15, 20, 0x15, 20, 0x2c, 0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0];
        assert_eq!(refused(&data), None);
        for bytes in [&b""[..], b"\0", b"\x89PNG\r\n\x1a\n", &[0xff; 64], &dictionary(10)[..5]] {
            assert_eq!(refused(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_page_that_no_decompression_leads_to_is_refused() {
        // A data page of 40 bytes that claims to be so many.
        let page = |size: i64| {
            let mut header = vec![0x15, 0, 0x15];
            let mut left = (size as u64) << 1;
            while left > 0x7f {
                header.push(left as u8 | 0x80);
                left >>= 7;
            }
            header.extend([left as u8, 0x15, 80, 0x2c, 0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0]);
            header
        };
        assert_eq!(refused(&page(LARGE_PAGE)), None);
        // Of integers that are too long, the lower 32 bits count.
        for size in [1_429_994_162, (1 << 40) + 1_429_994_162] {
            assert!(refused(&page(size)).is_some_and(|reason| reason.contains("decompressed")), "{size}");
        }
    }

    #[test]
    fn claims_beyond_all_measure_are_refused() {
        let mut header = dictionary(0);
        // Two billion values, in place of one byte.
        header.splice(8..9, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(refused(&header), Some("a dictionary claims more values than it has bytes for"));

        for kind in [1, 7, 12] {
            let mut header = dictionary(10);
            let end = header.len() - 1;
            // An unknown field, a list of two billion elements.
            header.splice(end.., [0x29, 0xf0 | kind, 0xfe, 0xff, 0xff, 0xff, 0x0f]);
            assert_eq!(refused(&header), Some("a page's header has a list that no page has"), "{kind}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let mut header = dictionary(10);
        header.pop();
        header.extend([0x1c; 4096]);
        assert_eq!(refused(&header), None);
    }
}
