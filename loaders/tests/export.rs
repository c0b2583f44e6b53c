//! What is exported opens again as what it was.
#![allow(clippy::unwrap_used)]

use diver_loaders::export::{ExportFormat, FileNames, export, export_named};
use diver_loaders::source::{LabelKind, OpenOptions, ValueSpace, conformance};
use diver_loaders::{
    CancelToken, ClassMap, Label, MemorySource, Normalize, Result, Sample, Source, SourceInfo, StoredPixels,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const FORMATS: [ExportFormat; 6] = [
    ExportFormat::Dc,
    ExportFormat::Mtt,
    ExportFormat::ImageFolder,
    ExportFormat::WebDataset,
    ExportFormat::Parquet,
    ExportFormat::Safetensors,
];

fn constants() -> Normalize {
    Normalize::new([0.1, 0.25, 0.5], [0.3, 0.5, 0.7]).unwrap()
}

fn set(space: ValueSpace, shape: [usize; 3], values: Vec<f32>, labels: Vec<Label>) -> MemorySource {
    let (classes, kind) = match &labels[0] {
        Label::Logits(logits) => (logits.len(), LabelKind::Logits),
        _ => (1 + labels.iter().map(Label::class).max().unwrap(), LabelKind::Hard),
    };
    let mut info = MemorySource::unit(1, [1, 1, 1], vec![0.0], vec![0]).unwrap().info().clone();
    info = SourceInfo {
        num_samples: labels.len(),
        num_classes: classes,
        shape,
        labels: kind,
        value_space: space,
        ..info
    };
    info.normalize = constants();
    MemorySource::new(info, values, labels).unwrap()
}

/// The set with other things in its info.
fn with(source: &MemorySource, change: impl FnOnce(&mut SourceInfo)) -> MemorySource {
    let mut info = source.info().clone();
    let labels = (0..info.num_samples).map(|index| source.label(index).unwrap()).collect();
    let values = (0..info.num_samples).flat_map(|index| match source.sample(index).unwrap().pixels {
        StoredPixels::F32(values) => values,
        StoredPixels::U8(_) => panic!("floats are expected"),
    });
    let values = values.collect();
    change(&mut info);
    MemorySource::new(info, values, labels).unwrap()
}

fn write(source: &dyn Source, format: ExportFormat, folder: &Path) -> Result<Vec<String>> {
    let samples = (0..source.info().num_samples).map(|index| source.sample(index));
    Ok(export(source.info(), samples, format, folder, &CancelToken::new())?.notes)
}

/// The same with the images' own names.
fn write_named(source: &dyn Source, format: ExportFormat, folder: &Path) -> Result<Vec<String>> {
    let samples = (0..source.info().num_samples).map(|index| source.sample(index));
    let names = FileNames::of(source)?;
    Ok(export_named(source.info(), &names, samples, format, folder, &CancelToken::new())?.notes)
}

/// The file that is to be opened, or the folder.
fn entry(folder: &Path, format: ExportFormat) -> PathBuf {
    match format {
        ExportFormat::Dc => folder.join("res_DIVER.pt"),
        ExportFormat::Safetensors => folder.join("data.safetensors"),
        _ => folder.to_owned(),
    }
}

fn of_pixels(format: ExportFormat) -> bool {
    matches!(format, ExportFormat::ImageFolder | ExportFormat::WebDataset | ExportFormat::Parquet)
}

/// Samples by class: class folders have no other order.
fn by_class(source: &dyn Source) -> Vec<Sample> {
    let mut samples: Vec<Sample> =
        (0..source.info().num_samples).map(|i| source.sample(i).unwrap()).collect();
    samples.sort_by_key(|sample| sample.label.class());
    samples
}

/// Checks that `format` gives `source` back, as far as it can.
fn check(source: &dyn Source, format: ExportFormat, options: &OpenOptions) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("exported");
    write(source, format, &folder).unwrap();
    // By the path that was given, whatever the files in it are called.
    let again = options.open(&folder).unwrap();
    assert_eq!(again.info(), options.open(entry(&folder, format)).unwrap().info());
    conformance::check(&again);
    let (info, own) = (again.info(), source.info());
    assert_eq!(
        (info.num_samples, info.num_classes, info.normalize, &info.class_map),
        (own.num_samples, own.num_classes, own.normalize, &own.class_map),
        "{format:?}"
    );
    if format != ExportFormat::ImageFolder && own.classes.is_some() {
        assert_eq!(info.classes, own.classes, "{format:?}");
    }
    if !of_pixels(format) {
        assert_eq!(info.value_space == ValueSpace::Whitened, own.value_space == ValueSpace::Whitened);
        assert_eq!(info.shape, own.shape, "{format:?}");
        assert_eq!(info.notes, [""; 0], "nothing has to be assumed of {format:?}");
    }
    for (new, old) in by_class(&again).into_iter().zip(by_class(source)) {
        let soft = matches!(format, ExportFormat::Mtt | ExportFormat::Parquet | ExportFormat::Safetensors);
        if soft {
            assert_eq!(new.label, old.label, "{format:?}");
        }
        assert_eq!(new.label.class(), old.label.class(), "{format:?}");
        if of_pixels(format) {
            let bytes =
                |pixels: Vec<f32>| pixels.into_iter().map(|p| (p * 255.0).round() as u8).collect::<Vec<_>>();
            let pixels = bytes(old.to_pixels(&own.value_space).unwrap());
            assert_eq!(new.pixels, StoredPixels::U8(pixels), "{format:?}");
        } else {
            let normalized = |sample: Sample, info: &SourceInfo| {
                sample.into_normalized(&info.value_space, &info.normalize)
            };
            assert_eq!(normalized(new, info), normalized(old, own), "{format:?}");
        }
    }
}

fn labels(soft: bool, classes: &[usize]) -> Vec<Label> {
    let logits = |class: usize| (0..4).map(|i| if i == class { 2.5 } else { -0.75 * i as f32 }).collect();
    classes
        .iter()
        .map(|class| if soft { Label::Logits(logits(*class)) } else { Label::Hard(*class) })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sets_come_back(
        normalized: bool,
        soft: bool,
        grey: bool,
        (height, width) in (1_usize..6, 1_usize..6),
        classes in proptest::collection::vec(0_usize..4, 1..9),
        seed: u32,
        (wide, named, mapped) in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let shape = [if grey { 1 } else { 3 }, height, width];
        let space = if normalized { ValueSpace::Normalized(constants()) } else { ValueSpace::Unit };
        let count = classes.len() * shape.iter().product::<usize>();
        let value = |i: usize| {
            let unit = ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / (1 << 24) as f32;
            if normalized { unit * 6.0 - 3.0 } else { unit }
        };
        let source = set(space, shape, (0..count).map(value).collect(), labels(soft, &classes));
        let source = with(&source, |info| {
            // Classes of which there is no sample.
            info.num_classes += if wide && !soft { 2 } else { 0 };
            let classes = 0..info.num_classes;
            info.classes = named.then(|| classes.clone().map(|class| format!("a \"class\" {class}")).collect());
            if mapped {
                info.class_map = ClassMap::indices(classes.map(|class| 900 - 7 * class).collect()).unwrap();
            }
        });
        for format in FORMATS {
            check(&source, format, &OpenOptions::new());
        }
    }
}

/// Of one pixel for each sample, by which they are told apart; classes are named by WordNet ids or not.
fn counting(classes: &[usize], with_wnids: bool) -> MemorySource {
    let values =
        (0..classes.len()).flat_map(|i| [(i % 256) as f32, (i / 256) as f32, 0.0].map(|v| v / 255.0));
    let source = set(ValueSpace::Unit, [3, 1, 1], values.collect(), labels(false, classes));
    with(&source, |info| {
        let wnids = [0, 1, 2, 3].map(|class| diver_loaders::imagenet::wnid(class).unwrap().to_owned());
        info.classes = with_wnids.then(|| wnids[..info.num_classes].to_vec());
    })
}

fn pixels(source: &dyn Source) -> Vec<StoredPixels> {
    (0..source.info().num_samples).map(|index| source.sample(index).unwrap().pixels).collect()
}

/// The files of a folder as readers list them: `ImageFolder` of torchvision, and `datasets`, sort by text.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let of = |path: PathBuf| if path.is_dir() { listed(&path) } else { vec![path] };
    found.into_iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the number of images of a class, their order stays, also where names sort as text.
    #[test]
    fn images_keep_their_order(
        counts in proptest::collection::vec(prop::sample::select(vec![1, 2, 9, 10, 11, 99, 100, 101, 1001]), 1..4),
        with_wnids: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let classes: Vec<usize> =
            counts.iter().enumerate().flat_map(|(class, count)| vec![class; *count]).collect();
        let source = counting(&classes, with_wnids);
        let images = folder.path().join("ImageFolder");
        for format in [ExportFormat::ImageFolder, ExportFormat::WebDataset, ExportFormat::Parquet] {
            let path = folder.path().join(format!("{format:?}"));
            write(&source, format, &path).unwrap();
            let again = diver_loaders::open(&path).unwrap();
            let expected = pixels(&diver_loaders::open(&images).unwrap());
            prop_assert_eq!(pixels(&again), expected, "{:?}", format);
        }
        let reds: Vec<u8> = listed(&images).into_iter().filter(|path| path.extension().unwrap() == "png")
            .map(|path| image::open(path).unwrap().into_rgb8().get_pixel(0, 0).0[0]).collect();
        prop_assert!(reds.into_iter().eq((0..classes.len()).map(|index| (index % 256) as u8)));

        // Again, with the names that they have now.
        for format in [ExportFormat::ImageFolder, ExportFormat::WebDataset] {
            let named = folder.path().join(format!("named-{format:?}"));
            let source = diver_loaders::open(&images).unwrap();
            write_named(&source, format, &named).unwrap();
            let again = diver_loaders::open(&named).unwrap();
            prop_assert_eq!(pixels(&again), pixels(&source), "{:?}", format);
            if format == ExportFormat::ImageFolder {
                let names = |source: &dyn Source| -> Vec<_> {
                    (0..classes.len()).map(|index| source.name(index).unwrap().into_owned()).collect()
                };
                prop_assert_eq!(names(&again), names(&source));
            }
        }
    }
}

/// Class folders with images of these names.
fn folders(root: &Path, files: &[&str]) -> Box<dyn Source> {
    for (index, file) in files.iter().enumerate() {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let image = image::RgbImage::from_pixel(2, 2, image::Rgb([index as u8, 7, 9]));
        image.save_with_format(path, image::ImageFormat::Png).unwrap();
    }
    diver_loaders::open(root).unwrap()
}

#[test]
fn images_keep_their_own_names_where_they_can() {
    let folder = tempfile::tempdir().unwrap();
    let files = |root: &Path| -> Vec<String> {
        let below = |path: PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        listed(root).into_iter().map(below).filter(|name| name.ends_with(".png")).collect()
    };
    let kept = folders(
        &folder.path().join("kept"),
        &["n01440764/ILSVRC_1.JPEG", "n01440764/ILSVRC_2.JPEG", "n01443537/x.y.png"],
    );
    let path = folder.path().join("exported");
    assert_eq!(write_named(&kept, ExportFormat::ImageFolder, &path).unwrap(), [""; 0]);
    assert_eq!(files(&path), ["n01440764/ILSVRC_1.png", "n01440764/ILSVRC_2.png", "n01443537/x.y.png"]);
    let notes = write_named(&kept, ExportFormat::WebDataset, &folder.path().join("tar")).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("`x.y` has a dot"), "{notes:?}");

    // As PNG files, both would be `a.png`.
    let twice = folders(&folder.path().join("twice"), &["cat/a.jpeg", "cat/a.png", "dog/a.png"]);
    let path = folder.path().join("numbered");
    let notes = write_named(&twice, ExportFormat::ImageFolder, &path).unwrap();
    assert!(notes.iter().any(|note| note.contains("several are called `a`")), "{notes:?}");
    assert_eq!(files(&path).len(), 3, "none takes another one's place");
    assert_eq!(pixels(&diver_loaders::open(&path).unwrap()), pixels(&twice));

    // Sets that are in no order of classes are put in one.
    let mixed = counting(&[1, 0, 1], false);
    let notes = write_named(&mixed, ExportFormat::ImageFolder, &folder.path().join("mixed")).unwrap();
    assert!(notes.iter().any(|note| note.contains("class by class")), "{notes:?}");
    let notes = write_named(&mixed, ExportFormat::WebDataset, &folder.path().join("mixed-tar")).unwrap();
    assert!(!notes.iter().any(|note| note.contains("class by class")), "{notes:?}");
}

#[test]
fn bytes_and_whitened_floats_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    let unit = set(
        ValueSpace::Unit,
        [3, 2, 2],
        (0..36).map(|i| i as f32 / 35.0).collect(),
        labels(false, &[2, 0, 1]),
    );
    write(&unit, ExportFormat::ImageFolder, &images).unwrap();
    let bytes = diver_loaders::open(&images).unwrap();
    for format in FORMATS {
        check(&bytes, format, &OpenOptions::new());
        let notes = write(&bytes, format, &folder.path().join(format!("{format:?}"))).unwrap();
        assert_eq!(notes, [""; 0], "bytes lose nothing in {format:?}");
    }

    let values = (0..36).map(|i| i as f32 - 20.0).collect();
    let whitened = set(ValueSpace::Whitened, [3, 2, 2], values, labels(false, &[2, 0, 1]));
    for format in FORMATS {
        if of_pixels(format) {
            let error = write(&whitened, format, &folder.path().join("none")).unwrap_err().to_string();
            assert!(error.contains("ZCA-whitened"), "{error}");
            assert!(!folder.path().join("none").exists(), "nothing is left of a failed export");
        } else {
            check(&whitened, format, &OpenOptions::new());
        }
    }
}

#[test]
fn folders_keep_wordnet_ids_and_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let woof = ClassMap::named("imagewoof").unwrap();
    let mut info = set(ValueSpace::Unit, [3, 1, 1], vec![0.5; 30], labels(false, &[0; 10])).info().clone();
    let wnids =
        woof.as_indices().unwrap().iter().map(|i| diver_loaders::imagenet::wnid(*i).unwrap().to_owned());
    info = SourceInfo { num_classes: 10, classes: Some(wnids.collect()), ..info };
    let values = (0..30).map(|i| (i / 3) as f32 / 10.0).collect();
    let source = MemorySource::new(info, values, (0..10).map(Label::Hard).collect()).unwrap();
    let path = folder.path().join("woof");
    write(&source, ExportFormat::ImageFolder, &path).unwrap();
    assert!(path.join("n02096294/0.png").is_file());
    let again = OpenOptions::new().classes(woof.clone()).open(&path).unwrap();
    assert_eq!(again.info().classes, source.info().classes);

    // The list's order is not that of the ids, and labels follow the list.
    let source = with(&source, |info| info.class_map = woof.clone());
    for format in FORMATS {
        check(&source, format, &OpenOptions::new());
    }
    // Ids of other classes than ImageNet's would be taken for these.
    let other = with(&source, |info| info.class_map = ClassMap::indices((0..10).collect()).unwrap());
    let path = folder.path().join("other");
    let notes = write(&other, ExportFormat::ImageFolder, &path).unwrap();
    assert!(path.join("00000/class00000_id00000.png").is_file());
    assert!(notes.iter().any(|note| note.contains("names are not kept")), "{notes:?}");
    check(&other, ExportFormat::ImageFolder, &OpenOptions::new());
}

#[test]
fn the_refiners_classes_of_wordnet_ids_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    for (wnid, red) in [("n02086240", 0), ("n02093754", 100), ("n02096294", 200)] {
        std::fs::create_dir_all(images.join(wnid)).unwrap();
        let image = image::RgbImage::from_pixel(2, 2, image::Rgb([red, 7, 9]));
        image.save(images.join(wnid).join("a.png")).unwrap();
    }
    let source = diver_loaders::open(&images).unwrap();
    assert_eq!(source.info().class_map.as_indices(), Some(&[155, 182, 193][..]));
    for format in FORMATS {
        check(&source, format, &OpenOptions::new());
        let path = folder.path().join(format!("{format:?}"));
        write(&source, format, &path).unwrap();
        let open = |options: OpenOptions| options.open(entry(&path, format)).map(|set| set.info().clone());
        if format == ExportFormat::ImageFolder {
            // Its ids are still those of the list that is given.
            let woof = open(OpenOptions::new().classes(ClassMap::named("imagewoof").unwrap())).unwrap();
            assert_eq!((woof.num_classes, woof.class_map), (10, ClassMap::named("imagewoof").unwrap()));
            continue;
        }
        let refused = |options| open(options).unwrap_err().to_string();
        let error = refused(OpenOptions::new().classes(ClassMap::named("imagewoof").unwrap()));
        assert!(error.starts_with("classes: ") && error.contains("in another order"), "{error}");
        let error = refused(OpenOptions::new().num_classes(2));
        assert!(error.starts_with("num_classes: ") || error.contains("opened with 2 classes"), "{error}");
        let mine = ClassMap::indices(vec![3, 4, 5]).unwrap();
        assert_eq!(open(OpenOptions::new().classes(mine.clone())).unwrap().class_map, mine, "{format:?}");
    }
}

#[test]
fn a_learned_rate_is_kept_where_there_is_a_place_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(ValueSpace::Normalized(constants()), [3, 1, 1], vec![-1.5; 6], labels(false, &[0, 1]));
    let set = with(&set, |info| info.learning_rate = Some(0.03125));
    for format in FORMATS {
        let path = folder.path().join(format!("{format:?}"));
        let notes = write(&set, format, &path).unwrap();
        let again = diver_loaders::open(entry(&path, format)).unwrap();
        let is_kept = again.info().learning_rate == Some(0.03125);
        assert_eq!(is_kept, format == ExportFormat::Mtt);
        assert_eq!(notes.iter().any(|note| note.contains("learning rate")), !is_kept, "{notes:?}");
    }
}

#[test]
fn lists_of_classes_that_contradict_their_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(ValueSpace::Unit, [3, 1, 1], vec![0.5; 9], labels(false, &[0, 1, 2]));
    for format in [ExportFormat::Dc, ExportFormat::ImageFolder, ExportFormat::WebDataset] {
        let path = folder.path().join(format!("{format:?}"));
        write(&set, format, &path).unwrap();
        let sidecar = path.join("norm.json");
        let text = std::fs::read_to_string(&sidecar).unwrap();
        for (list, reason) in [
            (r#"{"count": 2}"#, "norm.json: `classes`: "),
            (r#"{"count": 3, "names": ["a"]}"#, "norm.json: `classes`: 1 name for 3 classes"),
            (r#"{"count": 4294967296}"#, "norm.json: `classes`: it lists 4294967296 classes"),
        ] {
            std::fs::write(&sidecar, text.replace(r#"{"count":3}"#, list)).unwrap();
            let error = diver_loaders::open(entry(&path, format)).unwrap_err().to_string();
            assert!(error.contains(reason), "{format:?}: {error}");
        }
    }
}

#[test]
fn what_the_format_does_not_hold_is_said_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let values = (0..12).map(|i| i as f32 - 6.0).collect();
    let source = set(ValueSpace::Normalized(constants()), [3, 2, 2], values, labels(true, &[1]));
    let notes = write(&source, ExportFormat::WebDataset, &folder.path().join("a/b")).unwrap();
    assert!(notes.len() == 2 && notes[0].contains("no logits") && notes[1].contains("clamped"), "{notes:?}");
    assert!(write(&source, ExportFormat::Mtt, &folder.path().join("mtt")).unwrap().is_empty());
    let grey = set(ValueSpace::Unit, [1, 2, 2], vec![0.3; 4], labels(false, &[0]));
    let grey = with(&grey, |info| info.classes = Some(vec!["cat".into()]));
    for format in FORMATS {
        let out = tempfile::tempdir().unwrap();
        let notes = write(&grey, format, &out.path().join("grey")).unwrap();
        let has = |text| notes.iter().any(|note| note.contains(text));
        assert_eq!((has("8 bits"), has("three times")), (of_pixels(format), of_pixels(format)), "{notes:?}");
        assert_eq!(has("names are not kept"), format == ExportFormat::ImageFolder, "{notes:?}");
    }

    let error = write(&source, ExportFormat::Mtt, &folder.path().join("mtt")).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    let cancelled = CancelToken::new();
    cancelled.cancel();
    let path = folder.path().join("cancelled");
    let samples = [source.sample(0)];
    assert!(export(source.info(), samples, ExportFormat::Dc, &path, &cancelled).is_err());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
