//! Class folders in archives.

use crate::made::*;
use diver_loaders::source::{Format, OpenOptions, conformance};
use diver_loaders::{Error, Label, Source, open};
use std::path::Path;
use tar::EntryType;

fn check_class_folders(path: &Path, names: [&str; 3]) -> Box<dyn Source> {
    let source = open(path).unwrap_or_else(|error| panic!("{error}"));
    let right: Vec<(u8, Label)> =
        (0..3).flat_map(|class| [0, 1].map(|_| (class, Label::Hard(class.into())))).collect();
    assert_eq!(read(&*source), right, "{}", path.display());
    let info = source.info();
    assert_eq!((info.format, info.path.as_path()), (Format::ImageFolder, path));
    assert_eq!(info.classes.as_deref().unwrap(), names);
    conformance::check(&source);
    source
}

#[test]
fn class_folders_are_read_in_zips_and_tars() {
    let folder = Folder::new();
    for (before, names) in [
        ("", ["cat", "dog", "emu"]),
        ("syn/", ["new000", "new001", "new002"]),
        ("./", ["0", "1", "2"]),
        ("/data/set/", ["a.b", "a.c", "b.a"]),
        ("../train/", ["cat", "dog", "emu"]),
        ("set/train/", ["cat", "dog", "emu"]),
    ] {
        let mut entries = class_folders(before, names);
        entries.push(entry(format!("__MACOSX/{before}{}/._0.png", names[0]), "x"));
        entries.push(entry(".DS_Store", "x"));
        check_class_folders(&folder.zip("stored.zip", &entries, stored()), names);
        check_class_folders(&folder.zip("deflated.zip", &entries, deflated()), names);
        let mut bytes = Vec::new();
        for (name, content) in &entries {
            bytes.extend([raw(EntryType::Regular, name.as_bytes(), content.len()), padded(content)].concat());
        }
        bytes.extend([0; 1024]);
        check_class_folders(&folder.write("x.tar", &bytes), names);
    }
    let mut entries = class_folders("", ["cat", "dog", "emu"]);
    entries.push(entry("cat/notes.txt", "x"));
    let source = check_class_folders(&folder.zip("x.zip", &entries, deflated()), ["cat", "dog", "emu"]);
    assert!(notes(&*source).contains("notes.txt"), "{}", notes(&*source));
    let windows = class_folders("set/", ["cat", "dog", "emu"]);
    let windows = windows.into_iter().map(|(name, content)| (name.replace('/', "\\"), content)).collect();
    check_class_folders(&folder.zip("windows.zip", &windows, stored()), ["cat", "dog", "emu"]);
    let dotted = ["cat", "dog", "emu"].iter().enumerate().flat_map(|(class, name)| {
        [0, 1].map(|image| entry(format!("{name}/img.{image}.png"), png(class as u8)))
    });
    check_class_folders(&folder.tar("dotted.tar", &dotted.collect()), ["cat", "dog", "emu"]);
    entries.push(entry("norm.json", r#"{"mean": 0.25, "std": 0.5}"#));
    let source = check_class_folders(&folder.zip("x.zip", &entries, deflated()), ["cat", "dog", "emu"]);
    assert_eq!(source.info().normalize.mean, [0.25; 3]);
}

#[test]
fn splits_in_an_archive_are_asked_for() {
    let folder = Folder::new();
    let mut entries = class_folders("set/train/", ["cat", "dog", "emu"]);
    entries.extend(class_folders("set/val/", ["cat", "dog", "emu"]).into_iter().take(4));
    let path = folder.zip("x.zip", &entries, stored());
    let error = refused(&path).to_string();
    assert!(error.contains("split=\"train\"") && error.contains("val"), "{error}");
    let samples =
        |split: &str| OpenOptions::new().split(split).open(&path).map(|source| source.info().num_samples);
    assert_eq!((samples("train").unwrap(), samples("val").unwrap()), (6, 4));
    assert!(matches!(samples("test").unwrap_err(), Error::Config { option: "split", .. }));
}

#[test]
fn archives_are_read_from_several_threads() {
    let folder = Folder::new();
    let names: Vec<String> = (0..4).map(|class| class.to_string()).collect();
    let entries: Entries = (0..200)
        .map(|index| entry(format!("{}/{index}.png", names[index % 4]), png((index % 4) as u8)))
        .collect();
    for path in [folder.zip("x.zip", &entries, deflated()), folder.tar("x.tar", &entries)] {
        let source = open(path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let read = read(&*source);
                    assert!(read.iter().all(|(class, label)| *label == Label::Hard((*class).into())));
                });
            }
        });
    }
}

#[test]
fn empty_folders_and_images_in_subfolders_are_told() {
    let folder = Folder::new();
    let mut entries = class_folders("set/", ["cat", "dog", "emu"]);
    entries.push(entry("set/cat/more/0.png", png(0)));
    entries.push(entry("set/fox/", ""));
    entries.push(entry("logs/", ""));
    let zip = folder.zip("x.zip", &entries, stored());
    for path in [zip, folder.tar("x.tar", &entries)] {
        let notes = notes(&*check_class_folders(&path, ["cat", "dog", "emu"]));
        assert!(notes.contains("fox") && notes.contains("set/cat/more"), "{notes}");
    }
}
