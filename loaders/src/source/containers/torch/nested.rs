//! The storages of tensors that `pickle.dump` wrote: each is a whole file of torch's legacy container, as bytes.

use super::names::Global;

/// Longest key of a storage, with what surrounds it.
const MAX_KEYS: usize = 256;

/// What such bytes hold: the class of the storage, its elements, and where their data begins.
#[derive(Debug, PartialEq)]
pub(super) struct Nested {
    pub(super) class: Global,
    pub(super) numel: u64,
    pub(super) data: u64,
}

/// Finds the storage in `length` bytes that begin with `head`.
///
/// The pickles before the data are always the same but for the class, the key and the size; the data ends with the bytes.
pub(super) fn storage(head: &[u8], length: u64) -> Option<Nested> {
    let find = |text: &[u8], from: usize| {
        let found = head.get(from..)?.windows(text.len()).position(|window| window == text)?;
        Some(from + found + text.len())
    };
    // ('storage', torch.FloatStorage, key, 'cpu', 2), and a list of the key.
    let module = find(b"storage", 0).and_then(|at| find(b"ctorch", at))?;
    let at = find(b"\n", module)?;
    let end = find(b"\n", at)? - 1;
    let module = std::str::from_utf8(&head[module - b"torch".len()..at - 1]).ok()?;
    let class = Global::find(module, std::str::from_utf8(&head[at..end]).ok()?);
    let size = match class {
        Global::Storage(dtype) => dtype.size(),
        Global::OtherStorage(_, size) => size,
        Global::UntypedStorage => 1,
        _ => return None,
    };
    let keys = find(b"Q.", end)?;
    (keys..keys + MAX_KEYS).find_map(|at| {
        let numel = u64::from_le_bytes(*head.get(at..)?.first_chunk()?);
        let data = at as u64 + 8;
        let fits = numel.checked_mul(size).and_then(|bytes| bytes.checked_add(data)) == Some(length);
        fits.then_some(Nested { class, numel, data })
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::tensor::DType;
    use super::*;

    #[test]
    fn storages_are_found_in_what_torch_writes() {
        // torch.save(storage, buffer, _use_new_zipfile_serialization=False), without the settings of the machine.
        let head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00.\x80\x02(X\x07\x00\x00\x00\
            storageq\x00ctorch\nFloatStorage\nq\x01X\x01\x00\x00\x000q\x02X\x03\x00\x00\x00cpuq\x03K\x02Ntq\x04Q.\
            \x80\x02]q\x00X\x01\x00\x00\x000q\x01a.\x02\x00\x00\x00\x00\x00\x00\x00";
        let data = head.len() as u64;
        let found = Nested { class: Global::Storage(DType::F32), numel: 2, data };
        assert_eq!(storage(head, data + 8), Some(found));
        assert_eq!(storage(head, data + 9), None);
        assert_eq!(storage(&head[..60], data + 8), None);
        assert_eq!(storage(b"", 0), None);
    }
}
