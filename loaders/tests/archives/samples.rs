//! Samples of WebDataset.

use crate::made::*;
use diver_loaders::source::{Columns, LabelKind, OpenOptions, conformance};
use diver_loaders::{Error, Label, Source, open};
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::Write;

#[test]
fn classes_are_read_under_every_usual_name() {
    let folder = Folder::new();
    let with = |name: &str, image: (&str, Vec<u8>), label: (&str, String), class: u8| -> Entries {
        vec![entry(format!("{class}.{}", image.0), image.1), entry(format!("{class}.{}", label.0), label.1)]
            .into_iter()
            .map(|(path, content)| (format!("{name}{path}"), content))
            .collect()
    };
    let png = |class| ("png", png(class));
    let jpeg = |class| ("JPEG", encoded(class, image::ImageFormat::Jpeg));
    let webp = |class| ("webp", encoded(class, image::ImageFormat::WebP));
    let cls = |class: u8| ("cls", class.to_string());
    for entries in [
        six(|c| with("0000", png(c), cls(c), c)),
        six(|c| with("./", png(c), cls(c), c)),
        six(|c| with("v1.0/x.y/", png(c), cls(c), c)),
        six(|c| with("", jpeg(c), cls(c), c)),
        six(|c| with("", webp(c), cls(c), c)),
        six(|c| with("", png(c), ("cls", format!(" {c}\n")), c)),
        six(|c| with("", png(c), ("class", c.to_string()), c)),
        six(|c| with("", png(c), ("label.txt", c.to_string()), c)),
        six(|c| with("", png(c), ("json", format!(r#"{{"class": {c}, "caption": "x"}}"#)), c)),
        six(|c| with("", png(c), ("json", format!(r#"{{"label": "{c}"}}"#)), c)),
        six(|c| with("", png(c), ("json", format!(r#"{{"category_id": {c}.0}}"#)), c)),
        six(|c| with("", png(c), ("json", c.to_string()), c)),
        six(|c| with("", ("image.png", png(c).1), cls(c), c)),
        six(|c| with("", ("png.image", png(c).1), cls(c), c)),
        six(|c| with("", ("bin", png(c).1), cls(c), c)),
        six(|c| with(&"long/".repeat(60), png(c), cls(c), c)),
    ] {
        check_six(&folder.tar("x.tar", &entries));
    }
    let images = (0..6).map(|class| entry(format!("{class}.png"), png(class).1));
    let grouped: Entries =
        images.chain((0..6).map(|class| entry(format!("{class}.cls"), class.to_string()))).collect();
    check_six(&folder.tar("grouped.tar", &grouped));
    let integers =
        six(|c| vec![entry(format!("{c}.png"), png(c).1), entry(format!("{c}.npy"), npy("|u1", "()", &[c]))]);
    check_six(&folder.tar("integers.tar", &integers));
    let text = six(|c| with("", png(c), ("txt", c.to_string()), c));
    assert!(notes(&*check_six(&folder.tar("text.tar", &text))).contains(".txt"));
    let compressed = folder.0.path().join("x.tar.gz");
    let mut gzip = GzEncoder::new(File::create(&compressed).unwrap(), flate2::Compression::default());
    gzip.write_all(&tar_bytes(&grouped)).unwrap();
    gzip.finish().unwrap();
    check_six(&compressed);
    check_six(&folder.zip("x.zip", &grouped, deflated()));
}

#[test]
fn names_of_classes_are_labels_in_their_order() {
    let folder = Folder::new();
    let names = ["f", "e", "d", "c", "b", "a"];
    let entries =
        six(|c| vec![entry(format!("{c}.png"), png(c)), entry(format!("{c}.cls"), names[usize::from(c)])]);
    let source = open(folder.tar("x.tar", &entries)).unwrap();
    let labels: Vec<usize> = (0..6).map(|index| source.label(index).unwrap().class()).collect();
    assert_eq!(labels, [5, 4, 3, 2, 1, 0]);
    assert_eq!(source.info().classes.as_deref().unwrap(), ["a", "b", "c", "d", "e", "f"]);
    assert!(notes(&*source).contains("names"));
}

#[test]
fn rows_are_labels() {
    let folder = Folder::new();
    for (suffix, has_class) in
        [("logits.npy", true), ("npy", true), ("npy", false), ("soft_label.npy", false)]
    {
        let entries = six(|c| {
            let mut entries =
                vec![entry(format!("{c}.png"), png(c)), entry(format!("{c}.{suffix}"), row(&logits(c)))];
            entries.extend(has_class.then(|| entry(format!("{c}.cls"), c.to_string())));
            entries
        });
        let source = open(folder.tar("x.tar", &entries)).unwrap();
        let right: Vec<(u8, Label)> = (0..6).map(|class| (class, Label::Logits(logits(class)))).collect();
        assert_eq!(read(&*source), right, "{suffix}");
        assert!(notes(&*source).contains(suffix) && source.info().num_classes == 6);
        conformance::check(&source);
    }
    // Embeddings, say.
    let entries = six(|c| {
        let row = row(&[1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 7.0]);
        vec![
            entry(format!("{c}.png"), png(c)),
            entry(format!("{c}.npy"), row),
            entry(format!("{c}.cls"), c.to_string()),
        ]
    });
    let path = folder.tar("x.tar", &entries);
    assert!(notes(&*check_six(&path)).contains("columns=\"soft_label=npy\""));
    let columns: Columns = "image=png,soft_label=npy".parse().unwrap();
    let source = OpenOptions::new().columns(columns).open(&path).unwrap();
    assert_eq!((source.info().labels, source.info().num_classes), (LabelKind::Logits, 7));
}

#[test]
fn what_is_not_used_is_named() {
    let folder = Folder::new();
    let entries = six(|c| {
        vec![
            entry(format!("{c}.png"), png(c)),
            entry(format!("{c}.seg.png"), png(0)),
            entry(format!("{c}.cls"), c.to_string()),
            entry(format!("{c}.txt"), "a caption"),
            entry(format!("{c}.pth"), "a pickle"),
        ]
    });
    let entries =
        entries.into_iter().chain([entry("LICENSE", "free"), entry("__MACOSX/._0.png", "x")]).collect();
    let said = notes(&*check_six(&folder.tar("x.tar", &entries)));
    for unused in ["6 .seg.png", "6 .txt", "6 .pth", "LICENSE"] {
        assert!(said.contains(unused), "{said}");
    }
    assert!(!said.contains("MACOSX"));
}

#[test]
fn several_images_are_asked_about() {
    let folder = Folder::new();
    let entries = six(|c| {
        vec![
            entry(format!("{c}.left.png"), png(c)),
            entry(format!("{c}.right.png"), png(0)),
            entry(format!("{c}.cls"), c.to_string()),
        ]
    });
    let path = folder.tar("x.tar", &entries);
    let error = refused(&path).to_string();
    assert!(error.contains("columns=\"image=left.png\"") && error.contains(".right.png"), "{error}");
    let source = OpenOptions::new().columns("image=left.png".parse().unwrap()).open(&path).unwrap();
    assert_eq!(read(&*source)[5], (5, Label::Hard(5)));
    let error = OpenOptions::new().columns("image=up.png".parse().unwrap()).open(&path).unwrap_err();
    assert!(matches!(error, Error::Config { option: "columns", .. }), "{error}");
    // An image beside one of its own name.
    let twice = vec![entry("0.png", png(0)), entry("0.jpg", png(0)), entry("0.cls", "0")];
    assert!(refused(&folder.tar("x.tar", &twice)).to_string().contains("columns=\"image=png\""));
}

#[test]
fn keys_with_dots_are_read_to_the_last_dot_with_a_word() {
    let folder = Folder::new();
    let entries = six(|c| {
        vec![entry(format!("img_1.{c}.png"), png(c)), entry(format!("img_1.{c}.cls"), c.to_string())]
    });
    assert!(notes(&*check_six(&folder.tar("x.tar", &entries))).contains("last dot"));
}

#[test]
fn many_keys_with_dots_are_read_in_time() {
    let folder = Folder::new();
    let image = png(1);
    let entries = (0..20_000).flat_map(|index| {
        [entry(format!("val.{index}.png"), &image[..]), entry(format!("val.{index}.cls"), "1")]
    });
    let source = open(folder.tar("x.tar", &entries.collect())).unwrap();
    assert_eq!((source.info().num_samples, source.label(19_999).unwrap()), (20_000, Label::Hard(1)));
}

#[test]
fn a_sidecar_in_the_archive_counts() {
    let folder = Folder::new();
    let entries = vec![
        entry("0.png", png(0)),
        entry("0.json", "0"),
        entry("norm.json", r#"{"mean": 0.25, "std": 0.5}"#),
    ];
    let path = folder.tar("x.tar", &entries);
    let source = open(&path).unwrap();
    assert_eq!(source.info().normalize.mean, [0.25; 3]);
    let error = OpenOptions::new().split("train").open(&path).unwrap_err();
    assert!(matches!(error, Error::Config { option: "split", .. }), "{error}");
}

#[test]
fn bad_samples_are_refused_by_name() {
    let folder = Folder::new();
    let ok = || vec![entry("0.png", png(0)), entry("0.cls", "0")];
    let image = || entry("1.png", png(1));
    for (more, names) in [
        (vec![image()], &["`1`", "without a class"][..]),
        (vec![entry("1.cls", "0")], &["`1`", "without an image"]),
        (vec![image(), entry("1.cls", "cat")], &["`1`", "`cat`"]),
        (vec![image(), entry("1.cls", "-1")], &["`1`", "-1"]),
        (vec![image(), entry("1.cls", "")], &["`1.cls`", "empty"]),
        (vec![image(), entry("1.cls", "0.5")], &["`1.cls`", "0.5"]),
        (vec![image(), entry("1.json", "{")], &["`1.json`", "not JSON"]),
        (vec![image(), entry("1.cls", "0"), entry("1.CLS", "0")], &["1.CLS"]),
        (vec![image(), entry("1.cls", "0"), image()], &["`1.png`", "two entries"]),
        (vec![entry("1.png", "text"), entry("1.cls", "0")], &["1.png", "sample 1", "not an image"]),
        (vec![image(), entry("1.cls", vec![b'7'; 1 << 21])], &["`1.cls`", "bytes"]),
    ] {
        let error = refused(&folder.tar("x.tar", &ok().into_iter().chain(more).collect())).to_string();
        assert!(names.iter().all(|name| error.contains(name)) && error.contains("x.tar"), "{error}");
    }
    let json = vec![entry("0.png", png(0)), entry("0.json", "{")];
    assert!(refused(&folder.tar("x.tar", &json)).to_string().contains("`0.json`: not JSON"));
    for (entries, word) in [
        (vec![entry("0.png", png(0))], "label"),
        (vec![entry("0.png", png(0)), entry("0.json", "{}")], ".json"),
        (vec![entry("0.txt", "text"), entry("0.cls", "0")], "no entry is an image"),
        (vec![entry("README.md", "text")], "1 .md"),
    ] {
        let error = refused(&folder.tar("x.tar", &entries)).to_string();
        assert!(error.contains("not a known dataset") && error.contains(word), "{error}");
    }
}

#[test]
fn shards_are_one_set() {
    let folder = Folder::new();
    folder.tar("train-000000.tar", &vec![entry("0.png", png(0)), entry("0.cls", "0")]);
    folder.tar("train-000001.tar", &vec![entry("0.png", png(1)), entry("0.cls", "1")]);
    let source = open(folder.0.path()).unwrap();
    assert_eq!(read(&*source), [(0, Label::Hard(0)), (1, Label::Hard(1))]);
}
