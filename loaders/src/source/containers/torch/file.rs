//! Opens files of each container.

use super::super::tensor::TensorFile;
use super::object::Pickle;
use super::{legacy, plain, zip};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// Bytes that tell the containers apart.
const HEAD: u64 = 64;

/// Whether a file that begins with `head` may be one of `torch.save`: [`is_torch_zip`] tells it from other zip files. Legacy
/// files of protocols 4 and 5 are told by 24 bytes; by fewer they are [pickles](is_pickle), which [`open`] reads, too.
pub(crate) fn is_torch(head: &[u8]) -> bool {
    head.starts_with(ZIP_MAGIC) || legacy::begins(head)
}

/// Whether a file that begins with `head` may be one of `pickle.dump`; 8 bytes tell. Of protocols 0 and 1, which are text,
/// those are recognised that begin with a container, an array or a tensor.
pub(crate) fn is_pickle(head: &[u8]) -> bool {
    plain::begins(head)
}

/// Opens a file of either of torch's containers, or a pickle: its tensors and arrays, and the object that was saved.
///
/// Objects of unknown classes, and tensors of kinds that are not read, are opaque: [`super::Value`] says what they are.
///
/// # Errors
/// If it is no such file, or is damaged.
pub(crate) fn open(path: &Path) -> Result<(TensorFile, Pickle)> {
    let io = |e| Error::io(path, "cannot read")(e);
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let mut reader = BufReader::new(file.try_clone().map_err(io)?);
    let mut head = Vec::new();
    reader.by_ref().take(HEAD).read_to_end(&mut head).map_err(io)?;
    reader.rewind().map_err(io)?;
    let (mut places, mut pickle) = if head.starts_with(ZIP_MAGIC) {
        zip::open(path, reader)?
    } else if legacy::begins(&head) {
        legacy::open(path, reader)?
    } else if plain::begins(&head) {
        (Default::default(), plain::open(path, reader)?)
    } else {
        return Err(Error::format(path, "not a file of torch.save or pickle.dump"));
    };
    places.extend(std::mem::take(&mut pickle.places));
    Ok((TensorFile::new(path, file, places), pickle))
}
