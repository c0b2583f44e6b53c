//! The cache on disk, through its public face.
#![allow(clippy::unwrap_used)]

use diver_loaders::cache::{CacheOptions, ImageForm, ImageRow, RowKey};
use diver_loaders::refine::Silent;
use diver_loaders::{
    Cache, CancelToken, Digest, Error, Identity, Label, MemorySource, Refinery, RgbImage, StoredPixels,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn key(n: u8) -> RowKey {
    RowKey::from(Digest::of(&[n]))
}

fn row(n: u8, grey: u8) -> ImageRow {
    ImageRow {
        form: ImageForm::Png,
        key: key(n),
        image: Arc::new(RgbImage::new(4, 3, vec![grey; 36]).unwrap()),
        label: if n.is_multiple_of(2) { Label::Hard(n.into()) } else { Label::Logits(vec![0.5, -1.0]) },
        index: n.into(),
        variant: 0,
        seconds: 0.25,
    }
}

fn names() -> Vec<String> {
    vec!["cat".into(), "dog".into()]
}

fn fingerprint() -> serde_json::Value {
    serde_json::json!({ "refiner": "test", "gamma": 0.1 })
}

fn parts(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    files
}

#[test]
fn rows_come_back_in_a_later_run() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path().join("made/on/demand")).unwrap();
    cache.images(&fingerprint()).unwrap().commit(&[row(0, 10), row(1, 20), row(2, 30)], &names()).unwrap();

    let partition = cache.images(&fingerprint()).unwrap();
    assert_eq!(partition.len(), 3);
    for (n, grey) in [(2, 30), (0, 10), (1, 20)] {
        assert_eq!(partition.get(&key(n)).unwrap().unwrap(), *row(n, grey).image);
    }
    assert_eq!(partition.get(&key(9)).unwrap(), None);
    let json = fs::read_to_string(partition.path().join("fingerprint.json")).unwrap();
    assert_eq!(json, "{\"gamma\":0.1,\"refiner\":\"test\"}\n");
}

#[test]
fn fingerprints_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    cache.images(&fingerprint()).unwrap().commit(&[row(0, 10)], &names()).unwrap();
    assert!(cache.images(&serde_json::json!({ "refiner": "other" })).unwrap().is_empty());
}

#[test]
fn the_first_committed_row_of_a_key_stays() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let (first, second) = (cache.images(&fingerprint()).unwrap(), cache.images(&fingerprint()).unwrap());
    first.commit(&[row(0, 10)], &names()).unwrap();
    second.commit(&[row(0, 99), row(1, 20)], &names()).unwrap();
    first.refresh().unwrap();
    for partition in [first, second, cache.images(&fingerprint()).unwrap()] {
        assert_eq!(partition.get(&key(0)).unwrap().unwrap(), *row(0, 10).image);
        assert_eq!(partition.get(&key(1)).unwrap().unwrap(), *row(1, 20).image);
    }
}

#[test]
fn images_of_every_form_lie_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    for (n, form) in (0..).zip(ImageForm::ALL) {
        let cache = Cache::open(folder.path()).unwrap();
        let cache = cache.with_options(CacheOptions::new().image_form(*form)).unwrap();
        let set = MemorySource::unit(1, [3, 1, 1], vec![f32::from(n as u8) / 10.0; 3], vec![0]).unwrap();
        let mut refinery = Refinery::new(set, Identity, Some(&cache)).unwrap();
        assert_eq!(refinery.run(0..1, &CancelToken::new(), &Silent).unwrap().refined, 1);
        let files = parts(&refinery.partition().unwrap().path());
        let newest = fs::read(files.last().unwrap()).unwrap();
        let magic: &[u8] = match form {
            ImageForm::Png => b"\x89PNG",
            ImageForm::Webp => b"WEBPVP8L",
            ImageForm::Raw => b"P6",
        };
        assert!(newest.windows(magic.len()).any(|window| window == magic), "{form}");
    }
    let cache = Cache::open(folder.path()).unwrap();
    let values = (0..3_u8).flat_map(|n| [f32::from(n) / 10.0; 3]).collect();
    let set = MemorySource::unit(3, [3, 1, 1], values, vec![0; 3]).unwrap();
    let mut refinery = Refinery::new(set, Identity, Some(&cache)).unwrap();
    assert_eq!(refinery.run(0..3, &CancelToken::new(), &Silent).unwrap().cached, 3);
    let images = refinery.images(&[0, 1, 2], &CancelToken::new(), &Silent).unwrap();
    assert_eq!(images.iter().map(|image| image.as_bytes()[0]).collect::<Vec<_>>(), [0, 26, 51]);
    // Merging keeps each as it is.
    let merged = cache.compact(&CancelToken::new()).unwrap();
    assert_eq!((merged.gathered, merged.rows), (3, 3));
    assert_eq!(cache.verify(&CancelToken::new(), &|_, _| ()).unwrap().rows, 3);
}

#[test]
fn many_writers_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let cache = cache.clone();
            scope.spawn(move || {
                let partition = cache.images(&fingerprint()).unwrap();
                for part in 0..8 {
                    partition.commit(&[row(writer * 8 + part, writer)], &names()).unwrap();
                }
            });
        }
    });
    let partition = cache.images(&fingerprint()).unwrap();
    assert_eq!(partition.len(), 32);
    assert_eq!(parts(&partition.path()).len(), 32);
}

/// Any byte of a part may be wrong: the part is set aside and its rows are missing, or the damage is in bytes
/// that carry no meaning and the image is right. Never a wrong image, a panic or an error.
#[test]
fn damaged_parts_are_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    cache.images(&fingerprint()).unwrap().commit(&[row(0, 10), row(1, 20)], &names()).unwrap();
    let path = parts(&cache.images(&fingerprint()).unwrap().path()).remove(0);
    let sound = fs::read(&path).unwrap();
    let aside = path.with_extension("corrupt");

    let mut damages: Vec<Vec<u8>> = (0..sound.len())
        .step_by(7)
        .map(|at| {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x55;
            bytes
        })
        .collect();
    damages.extend([0, 1, 8, sound.len() / 2, sound.len() - 1].map(|len| sound[..len].to_vec()));
    let mut set_aside = 0;
    for damaged in damages {
        fs::write(&path, &damaged).unwrap();
        let partition = cache.images(&fingerprint()).unwrap();
        for (n, grey) in [(0, 10), (1, 20)] {
            if let Some(image) = partition.get(&key(n)).unwrap() {
                assert_eq!(image, *row(n, grey).image);
            }
        }
        if aside.exists() {
            set_aside += 1;
            assert!(!path.exists());
            fs::remove_file(&aside).unwrap();
        }
    }
    assert!(set_aside > 20, "only {set_aside} damages were noticed");
}

/// What the system refuses to read is an error, and stays where it is: the part may be sound.
#[test]
fn unreadable_parts_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let partition = Cache::open(folder.path()).unwrap().images(&fingerprint()).unwrap();
    partition.commit(&[row(0, 10)], &names()).unwrap();
    let part = parts(&partition.path()).remove(0);
    let aside = part.with_extension("kept");
    fs::rename(&part, &aside).unwrap();
    fs::create_dir(&part).unwrap();
    assert!(matches!(partition.get(&key(0)), Err(Error::Io { .. })));
    fs::remove_dir(&part).unwrap();
    fs::rename(&aside, &part).unwrap();
    assert_eq!(partition.get(&key(0)).unwrap().unwrap(), *row(0, 10).image);
}

#[test]
fn numbers_of_damaged_parts_are_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let partition = cache.images(&fingerprint()).unwrap();
    partition.commit(&[row(0, 10)], &names()).unwrap();
    fs::write(parts(&partition.path()).remove(0), b"no parquet").unwrap();
    assert_eq!(partition.get(&key(0)).unwrap(), None);
    partition.commit(&[row(0, 11)], &names()).unwrap();
    assert_eq!(partition.get(&key(0)).unwrap().unwrap(), *row(0, 11).image);
    let names: Vec<_> = parts(&partition.path()).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["part-00000001.parquet"]);
}

#[test]
fn a_part_that_vanished_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let partition = Cache::open(folder.path()).unwrap().images(&fingerprint()).unwrap();
    partition.commit(&[row(0, 10)], &names()).unwrap();
    fs::remove_file(parts(&partition.path()).remove(0)).unwrap();
    assert_eq!(partition.get(&key(0)).unwrap(), None);
    assert!(partition.is_empty());
}

/// Two processes refined the same samples: where the first part is lost, the second one's rows serve.
#[test]
fn duplicates_of_a_lost_part_serve() {
    for damages in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let open = || cache.images(&fingerprint()).unwrap();
        let partition = open();
        for (rows, grey) in [(&[0, 1][..], 10), (&[0][..], 20), (&[1, 0][..], 30), (&[2][..], 40)] {
            let rows: Vec<_> = rows.iter().map(|n| row(*n, grey)).collect();
            partition.commit(&rows, &names()).unwrap();
        }
        let first = parts(&partition.path()).remove(0);
        match damages {
            true => fs::write(&first, b"no parquet").unwrap(),
            false => fs::remove_file(&first).unwrap(),
        }
        for partition in [partition, open()] {
            assert_eq!(partition.len(), 3);
            for (n, grey) in [(0, 20), (1, 30), (2, 40)] {
                assert_eq!(partition.get(&key(n)).unwrap().unwrap(), *row(n, grey).image);
            }
        }
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Cache::open(file.join("cache")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    assert!(error.to_string().contains("file/cache: cannot make the folder"), "{error}");
}

/// Another user's, or that of a lab.
#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let path = {
        let partition = Cache::open(&root).unwrap().images(&fingerprint()).unwrap();
        partition.commit(&[row(0, 10)], &names()).unwrap();
        partition.path().to_owned()
    };
    let allow = |mode| {
        for at in [&root, &path] {
            fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    allow(0o555);
    // Root may write everywhere, and what is read is read all the same.
    let is_root = tempfile::tempfile_in(&root).is_ok();
    let cache = Cache::open(&root).unwrap();
    let partition = cache.images(&fingerprint()).unwrap();
    assert_eq!(partition.get(&key(0)).unwrap().unwrap(), *row(0, 10).image);
    if !is_root {
        let other = cache.images(&serde_json::json!({ "refiner": "other" })).unwrap();
        assert!(other.is_empty() && other.check_writable().is_err());
        for refused in [
            partition.check_writable(),
            partition.commit(&[row(1, 20)], &names()).map(drop),
            Cache::open(root.join("made")).map(drop),
        ] {
            let Err(Error::Io { source, .. }) = refused else { panic!("{refused:?}") };
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        }
    }
    allow(0o755);
    partition.check_writable().unwrap();
}

/// Where not even root can write.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_is_written_to_when_there_is_something_to_write() {
    let error = Cache::open("/proc").unwrap().images(&fingerprint()).unwrap_err();
    assert!(error.to_string().contains("the cache has no folder for this refiner"), "{error}");
}

#[test]
fn a_foreign_fingerprint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let path = cache.images(&fingerprint()).unwrap().path().join("fingerprint.json");
    fs::write(&path, "{}").unwrap();
    let error = cache.images(&fingerprint()).unwrap_err();
    assert!(error.to_string().contains("fingerprint.json"), "{error}");
}

/// The folder of a fingerprint is an image dataset in its own right.
#[test]
fn a_cache_opens_as_a_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let partition = Cache::open(folder.path()).unwrap().images(&fingerprint()).unwrap();
    partition.commit(&[row(0, 10), row(1, 20)], &names()).unwrap();
    partition.commit(&[row(1, 99)], &names()).unwrap();
    let set = diver_loaders::open(partition.path()).unwrap();
    diver_loaders::source::conformance::check(&*set);
    assert_eq!(set.info().classes, Some(names()));
    assert_eq!((set.info().num_samples, set.info().shape), (3, [3, 3, 4]));
    let sample = set.sample(1).unwrap();
    assert_eq!(sample.pixels, StoredPixels::U8(vec![20; 36]));
    assert_eq!(sample.label, Label::Hard(0), "the largest of the two logits");
}
