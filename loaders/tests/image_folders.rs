//! Class folders: what their names say of classes and labels.
#![allow(clippy::unwrap_used)]

use diver_loaders::source::OpenOptions;
use diver_loaders::{ClassMap, Error, Label, Source, StoredPixels};

fn class_folders(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (i, name) in names.iter().enumerate() {
        let class = folder.path().join(name);
        std::fs::create_dir(&class).unwrap();
        image::RgbImage::from_pixel(2, 1, image::Rgb([i as u8, 7, 9])).save(class.join("a.png")).unwrap();
    }
    folder
}

fn labels(names: &[&str]) -> Vec<usize> {
    let folder = class_folders(names);
    let source = OpenOptions::new().open(folder.path()).unwrap();
    let mut labels = vec![0; names.len()];
    for index in 0..names.len() {
        let sample = source.sample(index).unwrap();
        let StoredPixels::U8(pixels) = sample.pixels else { panic!("bytes are expected") };
        labels[usize::from(pixels[0])] = sample.label.class();
    }
    labels
}

#[test]
fn numbered_folders_are_their_class() {
    assert_eq!(labels(&["0", "1", "10", "2"]), [0, 1, 10, 2]);
    assert_eq!(labels(&["new000", "new012", "new003"]), [0, 12, 3]);
    assert_eq!(labels(&["00003", "00000"]), [3, 0]);
    assert_eq!(labels(&["n02102040", "n01440764", "ten"]), [1, 0, 2]);
}

#[test]
fn wordnet_ids_follow_the_class_list() {
    let folder = class_folders(&["n02086240", "n02093754", "n02096294"]);
    let open = |options: OpenOptions| options.open(folder.path());
    let sorted = open(OpenOptions::new()).unwrap();
    assert_eq!(sorted.info().class_map.as_indices(), Some(&[155, 182, 193][..]));
    assert!(sorted.info().notes[0].contains("WordNet ids"), "{:?}", sorted.info().notes);
    let labels = |source: &dyn Source| (0..3).map(|i| source.label(i).unwrap().class()).collect::<Vec<_>>();
    assert_eq!(labels(&*sorted), [0, 1, 2]);

    let woof = open(OpenOptions::new().classes(ClassMap::named("imagewoof").unwrap())).unwrap();
    let info = woof.info();
    assert_eq!((info.num_classes, info.notes.len()), (10, 0));
    assert_eq!(info.class_map, ClassMap::named("imagewoof").unwrap());
    // n02096294 is the list's first class, n02093754 its second, n02086240 its fifth.
    for (index, wnid) in [(0, "n02096294"), (1, "n02093754"), (4, "n02086240")] {
        assert_eq!(info.classes.as_ref().unwrap()[index], wnid);
    }
    assert_eq!(labels(&*woof), [0, 1, 4]);
    let StoredPixels::U8(pixels) = woof.sample(0).unwrap().pixels else { panic!("bytes are expected") };
    assert_eq!(pixels[0], 2, "the first sample is of the third folder");

    let error = open(OpenOptions::new().classes(ClassMap::named("imagenette").unwrap())).unwrap_err();
    assert!(error.to_string().starts_with("classes: lacks class 155 (n02086240)"), "{error}");
    let three = OpenOptions::new().classes(ClassMap::named("imagewoof").unwrap()).num_classes(3);
    assert!(three.open(folder.path()).unwrap_err().to_string().starts_with("num_classes: 3, where"));
}

#[test]
fn names_of_classes_follow_the_class_list() {
    let folder = class_folders(&["English springer", "cassette player", "tench"]);
    // The list in a file, in another order than the names.
    let file = folder.path().join("classes.txt");
    std::fs::write(&file, "tench\nEnglish springer\ncassette player\n").unwrap();
    let options = OpenOptions::new().classes(ClassMap::from_file(&file).unwrap());
    let source = options.open(folder.path()).unwrap();
    let info = source.info();
    assert_eq!(info.class_map.as_indices(), Some(&[0, 217, 482][..]));
    assert_eq!(info.classes.as_ref().unwrap(), &["tench", "English springer", "cassette player"]);
    let StoredPixels::U8(pixels) = source.sample(1).unwrap().pixels else { panic!("bytes are expected") };
    assert_eq!((pixels[0], source.label(1).unwrap()), (0, Label::Hard(1)), "springers are springers");
}

#[test]
fn class_names_follow_their_numbers() {
    let folder = class_folders(&["new001", "new003"]);
    let info = |options: OpenOptions| options.open(folder.path()).map(|source| source.info().clone());
    let names = ["0", "new001", "2", "new003"].map(String::from).to_vec();
    assert_eq!(info(OpenOptions::new()).unwrap().classes, Some(names));
    assert_eq!(info(OpenOptions::new().num_classes(5)).unwrap().num_classes, 5);
    assert!(info(OpenOptions::new().num_classes(3)).unwrap_err().to_string().starts_with("num_classes: "));
}

#[test]
fn ambiguous_and_absurd_numbers_are_refused() {
    for names in [&["1", "01"][..], &["20250101", "1"], &["99999999999999999999999", "0"]] {
        let folder = class_folders(names);
        let error = OpenOptions::new().open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("its name is class"), "{error}");
    }
}

#[test]
fn what_lies_beside_the_images_of_classes_is_told() {
    let notes = |name: &str| {
        let folder = class_folders(&["cat", "dog"]);
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::new(2, 1).save_with_format(path, image::ImageFormat::Png).unwrap();
        let source = OpenOptions::new().open(folder.path()).unwrap();
        assert_eq!(source.info().num_samples, 2, "{name}");
        source.info().notes.join("\n")
    };
    for (name, told) in [
        ("cat/more/b.png", "more"),
        ("cat/more/deeper/b.png", "deeper"),
        ("labels.csv", "labels.csv"),
        ("train_labels.npy", "train_labels.npy"),
        ("metadata.csv", "metadata.csv"),
        ("images.zip", "images.zip"),
        ("b.png", "1 image"),
    ] {
        assert!(notes(name).contains(told), "{name}: {}", notes(name));
    }
    assert!(!notes("readme.txt").contains("readme"));
}

#[cfg(unix)]
#[test]
fn a_pipe_among_images_is_told_and_not_opened() {
    let folder = class_folders(&["cat", "dog"]);
    let pipe = folder.path().join("cat/1.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let source = OpenOptions::new().open(folder.path()).unwrap();
    assert_eq!(source.info().num_samples, 2);
    assert!(source.info().notes.iter().any(|note| note.contains("1.png")), "{:?}", source.info().notes);
    let error = OpenOptions::new().open(&pipe).unwrap_err().to_string();
    assert!(error.contains("1.png") && error.contains("regular file"), "{error}");
}

#[test]
fn options_that_mean_nothing_to_pictures_with_names_are_refused() {
    let folder = class_folders(&["cat", "dog"]);
    for (options, expected) in [
        (OpenOptions::new().first_label(1), "first_label"),
        (OpenOptions::new().values(diver_loaders::source::Values::Normalized), "values"),
    ] {
        let error = options.open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Config { option, .. } if option == expected), "{error}");
    }
    let source =
        OpenOptions::new().classes(ClassMap::indices(vec![1, 1]).unwrap()).open(folder.path()).unwrap();
    assert!(
        source.info().notes.iter().any(|note| note.contains("labels 0 and 1")),
        "{:?}",
        source.info().notes
    );
}
