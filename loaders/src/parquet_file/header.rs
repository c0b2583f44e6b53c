//! What a page's header in a Parquet file claims, read before the crate `parquet` believes it.

use super::format::{DATA_PAGE_HEADER, DATA_PAGE_HEADER_V2, DICTIONARY_PAGE_HEADER, PAGE_HEADER};
use super::thrift::{Fault, Struct, Visit, walk};
use std::io::Read;

/// No more is looked at, in bytes: other bytes than headers may claim to go on for ever.
const LONGEST_HEADER: u64 = 1 << 16;

/// Pages of up to so many bytes may be compressed as far as it goes, as those of one value are. Larger ones are mostly
/// images, and no page of use has shrunk by more than the other number: memory is taken for what a header claims.
const LARGE_PAGE: i64 = 1 << 26;
const MOST_COMPRESSED: i64 = 2000;

/// `PageType.DICTIONARY_PAGE`
const DICTIONARY: i64 = 2;

// Ids of fields of `PageHeader`, and of the headers of kinds of pages in it.
const PAGE_TYPE: i16 = 1;
const UNCOMPRESSED_SIZE: i16 = 2;
const COMPRESSED_SIZE: i16 = 3;
const NUM_VALUES: i16 = 1;
const NUM_ROWS: i16 = 3;

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
        let (mut input, mut header) = (reader.take(LONGEST_HEADER), Self::default());
        match walk(&mut input, &PAGE_HEADER, &mut header) {
            Ok(()) => header.length = Some(LONGEST_HEADER - input.limit()),
            Err(Fault::Overlong | Fault::Booleans) => header.overlong = true,
            // Bytes that end or break off are no header, which the crate finds out by itself.
            Err(_) => {}
        }
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

/// A header that is being read. Its fields are taken as what they should be, whatever they say: so does the crate.
impl Visit for PageHeader {
    const STRICT: bool = false;

    // Other bytes than headers come here, too, and these are not to be refused for little.
    const BOOLEANS: u64 = LONGEST_HEADER;

    fn number(&mut self, of: &'static Struct, id: i16, value: i64) {
        // All integers of headers are of 32 bits, and whatever more is there the crate drops.
        let number = i64::from(value as i32);
        if of.is(&PAGE_HEADER) {
            if matches!(id, PAGE_TYPE | UNCOMPRESSED_SIZE | COMPRESSED_SIZE) {
                self.page[id as usize] = Some(number);
            }
        } else if of.is(&DICTIONARY_PAGE_HEADER) {
            if id == NUM_VALUES {
                self.dictionary_values = Some(number);
            }
        } else if of.is(&DATA_PAGE_HEADER) || of.is(&DATA_PAGE_HEADER_V2) {
            match id {
                NUM_VALUES => self.values = Some(number),
                NUM_ROWS if of.is(&DATA_PAGE_HEADER_V2) => self.rows = Some(number),
                _ => {}
            }
        }
    }
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
