//! The containers: headers of every kind, links, damage.

use crate::made::*;
use diver_loaders::{Error, Label, open};
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use tar::{EntryType, Header};

#[test]
fn headers_of_every_kind_are_read() {
    let folder = Folder::new();
    let sample = |name: &[u8], suffix: &[u8], content: &[u8]| {
        [raw(EntryType::Regular, &[name, suffix].concat(), content.len()), padded(content)].concat()
    };
    // Names that are not text, and extended headers whose records have line ends.
    let mut latin = sample(b"caf\xe9", b".png", &png(1));
    latin.extend(sample(b"caf\xe9", b".cls", b"1"));
    latin.extend([0; 1024]);
    let record = |key: &str, value: &str| {
        let length = key.len() + value.len() + 3;
        let digits = (length + length.to_string().len()).to_string().len();
        format!("{} {key}={value}\n", length + digits).into_bytes()
    };
    let extended = |name: &str, content: &[u8]| {
        let records = [record("comment", "a\n\nb"), record("path", name)].concat();
        let mut bytes = raw(EntryType::XHeader, b"PaxHeaders/x", records.len());
        bytes.extend(padded(&records));
        bytes.extend(sample(b"cut", b"", content));
        bytes
    };
    let mut pax = extended("a\nb/0.png", &png(1));
    pax.extend(extended("a\nb/0.cls", b"1"));
    pax.extend([0; 1024]);
    // Without a mark, and without types, as the oldest.
    let mut old = Vec::new();
    for (name, content) in [("0.png", png(1)), ("0.cls", b"1".to_vec())] {
        let mut header = Header::new_old();
        header.set_path(name).unwrap();
        header.set_size(content.len() as u64);
        header.set_cksum();
        old.extend([header.as_bytes().to_vec(), padded(&content)].concat());
    }
    old.extend([0; 1024]);
    for (name, bytes) in [("latin.tar", latin), ("pax.tar", pax), ("old.tar", old)] {
        let source = open(folder.write(name, &bytes)).unwrap();
        assert_eq!(read(&*source), [(1, Label::Hard(1))], "{name}");
        assert!(!notes(&*source).contains("not used"), "{name}: {}", notes(&*source));
    }
}

#[test]
fn links_are_followed_and_odd_entries_are_told() {
    let folder = Folder::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: EntryType, name: &str, target: Option<&str>, content: &[u8]| {
        let mut header = header(kind, content.len());
        match target {
            Some(target) => builder.append_link(&mut header, name, target).unwrap(),
            None => builder.append_data(&mut header, name, content).unwrap(),
        }
    };
    add(EntryType::Regular, "a/0.png", None, &png(1));
    add(EntryType::Regular, "a/0.cls", None, b"1");
    add(EntryType::Symlink, "b/1.png", Some("../a/0.png"), b"");
    add(EntryType::Link, "b/1.cls", Some("a/0.cls"), b"");
    add(EntryType::Symlink, "b/2.png", Some("/etc/passwd"), b"");
    add(EntryType::Fifo, "pipe", None, b"");
    let bytes = builder.into_inner().unwrap();
    let source = open(folder.write("x.tar", &bytes)).unwrap();
    assert_eq!(read(&*source), [(1, Label::Hard(1)), (1, Label::Hard(1))]);
    let notes = notes(&*source);
    assert!(notes.contains("b/2.png") && notes.contains("pipe"), "{notes}");

    let mut sparse = raw(EntryType::GNUSparse, b"0.png", 512);
    sparse.extend([1; 512]);
    sparse.extend([0; 1024]);
    assert!(refused(&folder.write("sparse.tar", &sparse)).to_string().contains("sparse"));
}

#[test]
fn cut_and_joined_tars_are_refused() {
    let folder = Folder::new();
    let entries = vec![entry("0.cls", "0"), entry("0.png", png(0))];
    let whole = tar_bytes(&entries);
    // In the first header, its data, its padding, between entries, and before the end mark.
    for length in [512, 513, 600, 1024, 1030, 1540, whole.len() - 1024] {
        assert!(open(folder.write("x.tar", &whole[..length])).is_err(), "the first {length} bytes");
    }
    assert!(open(folder.write("x.tar", &whole[..whole.len() - 512])).is_ok());
    let mut damaged = whole.clone();
    damaged[1024] ^= 1;
    assert!(refused(&folder.write("x.tar", &damaged)).to_string().contains("checksum"));
    let mut joined = whole.clone();
    joined.resize(10240, 0);
    joined.extend(tar_bytes(&vec![entry("1.cls", "1"), entry("1.png", png(1))]));
    assert!(refused(&folder.write("x.tar", &joined)).to_string().contains("another tar"));
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    for length in [20, gzip.len() / 2, gzip.len() - 4] {
        assert!(open(folder.write("x.tgz", &gzip[..length])).is_err(), "the first {length} bytes");
    }
}

#[test]
fn bad_zips_are_refused() {
    let folder = Folder::new();
    let names = ["cat", "dog", "emu"];
    let path = folder.zip("x.zip", &class_folders("", names), stored());
    let whole = fs::read(&path).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 40] {
        assert!(open(folder.write("cut.zip", &whole[..length])).is_err(), "the first {length} bytes");
    }
    // A byte of a picture that is stored as it is: the checksum tells.
    let mut damaged = whole.clone();
    let at = whole.windows(4).position(|bytes| bytes == b"IDAT").unwrap() + 6;
    damaged[at] ^= 1;
    let error = refused(&folder.write("damaged.zip", &damaged)).to_string();
    assert!(error.contains("cat/0.png"), "{error}");
    // Encrypted, by the flags in both headers.
    let mut encrypted = whole.clone();
    for mark in [&b"PK\x03\x04"[..], b"PK\x01\x02"] {
        let flags = if mark[2] == 3 { 6 } else { 8 };
        let at: Vec<usize> =
            (0..encrypted.len() - 4).filter(|at| encrypted[*at..].starts_with(mark)).collect();
        at.into_iter().for_each(|at| encrypted[at + flags] |= 1);
    }
    assert!(refused(&folder.write("encrypted.zip", &encrypted)).to_string().contains("encrypted"));
    // Two entries of one name; one whose size is a lie.
    let mut twice = whole.clone();
    while let Some(at) = twice.windows(9).position(|name| name == b"cat/1.png") {
        twice[at..at + 9].copy_from_slice(b"cat/0.png");
    }
    let error = refused(&folder.write("twice.zip", &twice));
    assert!(matches!(&error, Error::Field { field, .. } if field == "cat/0.png"), "{error}");
    let flat = folder.zip("flat.zip", &vec![entry("0.png", png(0)), entry("1.png", png(1))], stored());
    let error = refused(&flat).to_string();
    assert!(error.contains("zip") && error.contains("2 .png files"), "{error}");
    let bomb = folder.zip(
        "bomb.zip",
        &vec![entry("cat/0.png", vec![0; 1 << 22]), entry("dog/0.png", png(0))],
        deflated(),
    );
    let mut bytes = fs::read(&bomb).unwrap();
    // More than deflate can make of it.
    for (mark, size) in [(&b"PK\x03\x04"[..], 22), (b"PK\x01\x02", 24)] {
        let at = bytes.windows(4).position(|bytes| bytes == mark).unwrap() + size;
        bytes[at..at + 4].copy_from_slice(&(1_u32 << 29).to_le_bytes());
    }
    assert!(refused(&folder.write("bomb.zip", &bytes)).to_string().contains("cat/0.png"));
}
