//! What an unknown file or folder comes nearest to, and why it is not that.

use super::containers::torch::Value;
use super::folder::{self, names};
use super::inner;
use crate::{Error, Result};
use std::path::Path;

/// How many formats are told with the reason that each failed.
const TOLD: usize = 3;
/// How many names are listed.
const LISTED: usize = 4;
/// How much of a file's beginning is shown, in bytes.
const SHOWN: usize = 8;

/// A format that a path could have had.
struct Miss {
    /// How much speaks for it; of equals the first named is nearer.
    likeness: u8,
    format: &'static str,
    reason: String,
}

fn error(path: &Path, what: &str, mut misses: Vec<Miss>) -> Error {
    misses.sort_by_key(|miss| std::cmp::Reverse(miss.likeness));
    let nearest: Vec<String> =
        misses.iter().take(TOLD).map(|miss| format!("{} ({})", miss.format, miss.reason)).collect();
    let mut reason = format!("not a known dataset: {what}. Nearest are {}", nearest.join("; "));
    let others: Vec<&str> = misses.iter().skip(TOLD).map(|miss| miss.format).collect();
    if !others.is_empty() {
        reason.push_str(". Also looked for: ");
        reason.push_str(&others.join(", "));
    }
    Error::format(path, reason)
}

/// Formats of one file, with their extensions and how such a file would begin.
const FILES: [(&str, &[&str], &str); 6] = [
    (
        "torch.save's files (DC, DSA, DM, MTT, GLaD, EDF, DATM, IDC, NCFM)",
        &["pt", "pth", "pkl"],
        "it would begin with a zip header or torch's magic number",
    ),
    ("Parquet", &["parquet"], "it would begin with PAR1"),
    ("safetensors", &["safetensors"], "it would begin with a length and `{`"),
    ("numpy's npz (KIP)", &["npz", "npy"], "it would begin with a zip header, as numpy.savez writes it"),
    ("Arrow", &["arrow", "feather"], "it would begin with ARROW1 or ff ff ff ff"),
    ("WebDataset", &["tar"], "it would have ustar at byte 257"),
];

/// The error for a file that begins with `head`.
pub(super) fn of_file(path: &Path, head: &[u8]) -> Error {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    let misses = FILES
        .into_iter()
        .map(|(format, extensions, reason)| Miss {
            likeness: u8::from(extensions.contains(&extension.as_str())),
            format,
            reason: reason.to_owned(),
        })
        .collect();
    error(path, &beginning(head), misses)
}

/// What a file is that begins with `head`, as far as it helps.
fn beginning(head: &[u8]) -> String {
    const KNOWN: [(&[u8], &str); 8] = [
        (b"\x1f\x8b", "it is compressed by gzip: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "it is compressed by zstd: unpack it first"),
        (b"\xfd7zXZ", "it is compressed by xz: unpack it first"),
        (b"version https://git-lfs", "it is a pointer of Git LFS: fetch the file that it stands for"),
        (b"<!", "it is a web page, as a failed download leaves it"),
        (b"<html", "it is a web page, as a failed download leaves it"),
        (b"\x89PNG", "it is one image: open the folder that its class folder is in"),
        (b"\xff\xd8\xff", "it is one image: open the folder that its class folder is in"),
    ];
    if head.is_empty() {
        return "it is empty".to_owned();
    }
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*what).to_owned();
    }
    let shown = &head[..head.len().min(SHOWN)];
    match std::str::from_utf8(shown) {
        Ok(text) if !text.chars().any(char::is_control) => format!("it begins with `{text}`"),
        _ => {
            let bytes: Vec<String> = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("it begins with the bytes {}", bytes.join(" "))
        }
    }
}

/// The error for a torch file that holds `root`.
pub(super) fn of_torch(path: &Path, root: Value<'_>) -> Error {
    let what = match (root.keys(), root.items()) {
        (Some(keys), _) => {
            format!("the torch file holds a dict with the keys {}", listed(&keys.collect::<Vec<_>>()))
        }
        (_, Some(items)) => {
            let kinds: Vec<&str> = items.map(Value::kind).collect();
            format!("the torch file holds {} of {}", root.kind(), listed(&kinds))
        }
        _ => format!("the torch file holds {}", root.kind()),
    };
    let is_dict = root.keys().is_some();
    let is_batch_of_fkd = root.items().is_some_and(|items| (6..=7).contains(&items.len()));
    let miss = |likeness, format, reason: &str| Miss { likeness, format, reason: reason.to_owned() };
    let mut misses = vec![
        miss(u8::from(is_dict), "DC, DSA or DM", "it would be a dict with `data`"),
        miss(u8::from(is_dict), "named tensors", "it would be a dict with `images` and `labels`"),
        miss(u8::from(!is_dict), "IDC or NCFM", "it would be a list of two tensors, images and labels"),
        miss(0, "MTT, GLaD, EDF or DATM", "it would be a tensor, in images_<iteration>.pt"),
    ];
    if is_batch_of_fkd {
        let how = "a batch of soft labels: open the folder of images that they are of, and give it and their tree to \
                   SoftLabels";
        misses.push(miss(2, "FKD", how));
    }
    error(path, &what, misses)
}

/// The error for a folder.
///
/// # Errors
/// If it cannot be listed.
pub(super) fn of_folder(path: &Path) -> Result<Error> {
    let names = names(path)?;
    let ending = |ending: &str| names.iter().filter(|name| name.ends_with(ending)).collect::<Vec<_>>();
    let (torch, folders) = (ending(".pt"), names.iter().filter(|name| path.join(name).is_dir()));
    let folders: Vec<&String> = folders.collect();
    let images = folder::images(path)?.len();
    let is_fkd = names.iter().any(|name| name == "epoch_0");
    if names.is_empty() {
        return Ok(Error::format(path, "not a known dataset: it is empty"));
    }
    if let Some(error) = inner::error(path) {
        return Ok(error);
    }
    let what = format!("it has {}", listed(&names));
    let has_torch = u8::from(!torch.is_empty());
    let experiments = torch.iter().find(|name| name.starts_with("res_"));
    let several_of_bench = ending("_images.pt").len() > 1;
    let mtt = "no images_best.pt or images_<iteration>.pt";
    let mut misses = vec![
        Miss {
            likeness: 3 * u8::from(experiments.is_some()),
            format: "DC, DSA or DM",
            reason: match experiments {
                Some(name) => format!("each is a single file: open {name} itself"),
                None => "no res_*.pt, each of which is a set".to_owned(),
            },
        },
        Miss {
            likeness: 2 * has_torch,
            format: "MTT, GLaD, EDF or DATM",
            reason: match several_of_bench {
                true => format!("{mtt}; of several *_images.pt, open one"),
                false => mtt.to_owned(),
            },
        },
        Miss {
            likeness: 2 * has_torch,
            format: "IDC or NCFM",
            reason: "no data.pt or data_<iteration>.pt".to_owned(),
        },
        Miss {
            likeness: u8::from(!folders.is_empty()) + 3 * u8::from(images > 0),
            format: "class folders",
            reason: match (images, folders.as_slice()) {
                (0, []) => "no folders, one for each class".to_owned(),
                (0, folders) => format!("no PNG or JPEG images in {}", listed(folders)),
                (1, _) => "an image lies in it, where each class would have a folder of its own".to_owned(),
                (count, _) => {
                    format!("{count} images lie in it, where each class would have a folder of its own")
                }
            },
        },
        Miss { likeness: 0, format: "Parquet", reason: "no *.parquet".to_owned() },
        Miss { likeness: 0, format: "Arrow", reason: "no *.arrow or *.feather".to_owned() },
        Miss { likeness: 0, format: "WebDataset", reason: "no *.tar".to_owned() },
    ];
    if is_fkd {
        misses.push(Miss {
            likeness: 5,
            format: "FKD's soft labels",
            reason: "they are of a folder of images: open that, and give it and this one to SoftLabels"
                .to_owned(),
        });
    }
    Ok(error(path, &what, misses))
}

/// The first few of some names, and how many more there are.
fn listed(names: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = names.iter().take(LISTED).map(AsRef::as_ref).collect();
    match names.len().checked_sub(LISTED) {
        None | Some(0) => first.join(", "),
        Some(more) => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_told_by_extension_and_beginning() {
        let message = |name: &str, head: &[u8]| of_file(Path::new(name), head).to_string();
        let text = message("set.parquet", b"hello world");
        assert!(
            text.starts_with(
                "set.parquet: not a known dataset: it begins with `hello wo`. Nearest are Parquet ("
            ),
            "{text}"
        );
        assert!(text.contains("torch.save") && text.contains("Also looked for: numpy's npz"), "{text}");
        for (head, expected) in [
            (&b""[..], "it is empty"),
            (b"\x1f\x8b\x08\0", "compressed by gzip: unpack it first"),
            (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
            (b"<!DOCTYPE html>", "a web page"),
            (b"\x00\x01\x02", "the bytes 00 01 02."),
        ] {
            let text = message("images.PT", head);
            assert!(text.contains(expected) && text.contains("Nearest are torch.save's"), "{text}");
        }
    }

    #[test]
    fn folders_are_told_by_what_lies_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let message = || of_folder(folder.path()).unwrap().to_string();
        assert!(message().ends_with("not a known dataset: it is empty"), "{}", message());
        fs::create_dir(folder.path().join("train")).unwrap();
        assert!(
            message().contains("it has train. Nearest are class folders (no PNG or JPEG images in train)")
        );
        assert!(!message().contains("FKD"), "{}", message());
        let shard = folder.path().join("train/data-00000-of-00001.arrow");
        fs::write(&shard, "").unwrap();
        assert!(message().ends_with("/train"), "{}", message());
        fs::remove_file(&shard).unwrap();
        fs::write(folder.path().join("res_DM_CIFAR10_ConvNet_10ipc.pt"), "").unwrap();
        assert!(message().contains("Nearest are DC, DSA or DM (each is a single file: open res_DM_CIFAR10_"));
        fs::write(folder.path().join("0.png"), "").unwrap();
        assert!(message().contains("(an image lies in it, where each class would have"), "{}", message());
        for number in 1..5 {
            fs::write(folder.path().join(format!("{number}.png")), "").unwrap();
        }
        assert!(
            message().contains("(5 images lie in it, where each class would have a folder of its own)"),
            "{}",
            message()
        );
    }
}
