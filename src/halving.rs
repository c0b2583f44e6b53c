//! As much at a time as memory lasts for.

use crate::Result;
use std::ops::Range;

/// Calls `f` for consecutive ranges of at most `limit` images until `count` are covered, and returns what it gave for
/// each. Where the device's memory runs out, the limit is halved for good and the range tried again; `stage` says in
/// the log what there was not enough memory for.
pub(crate) fn in_parts<T>(
    count: usize,
    limit: &mut usize,
    stage: &str,
    mut f: impl FnMut(Range<usize>) -> Result<T>,
) -> Result<Vec<T>> {
    let (mut parts, mut done) = (Vec::new(), 0);
    while done < count {
        let end = count.min(done + (*limit).max(1));
        let size = end - done;
        match f(done..end) {
            Ok(part) => {
                parts.push(part);
                done = end;
            }
            Err(error) if error.is_out_of_memory() && size > 1 => {
                *limit = size / 2;
                tracing::warn!(%error, "not enough memory for {size} images at a time in {stage}; going on with {limit}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use tch::TchError;

    /// Stands for a device on which `most` images fit.
    fn fits(most: usize, images: Range<usize>) -> Result<Range<usize>> {
        match images.len() > most {
            true => Err(TchError::Torch("CUDA out of memory.".to_owned()).into()),
            false => Ok(images),
        }
    }

    #[test]
    fn a_full_device_halves_the_limit_for_good() {
        let (mut limit, mut sizes) = (32, Vec::new());
        let parts = in_parts(20, &mut limit, "a test", |images| {
            sizes.push(images.len());
            fits(6, images)
        });
        assert_eq!(parts.unwrap(), [0..5, 5..10, 10..15, 15..20]);
        assert_eq!((limit, sizes), (5, vec![20, 10, 5, 5, 5, 5]));
    }

    #[test]
    fn one_image_too_many_is_an_error() {
        let error = in_parts(4, &mut 4, "a test", |images| fits(0, images)).unwrap_err();
        assert!(error.is_out_of_memory());
        let other = in_parts(4, &mut 4, "a test", |_| Err::<(), _>(Error::Cancelled)).unwrap_err();
        assert!(matches!(other, Error::Cancelled));
        assert!(in_parts(0, &mut 4, "a test", Ok).unwrap().is_empty());
    }
}
