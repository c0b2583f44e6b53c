use super::*;
use crate::source::{MemorySource, StoredPixels, Subset, conformance};
use crate::{ClassMap, Normalize};

const CIFAR: Normalize = Normalize { mean: [0.49, 0.48, 0.45], std: [0.25, 0.24, 0.26] };

/// What a set of three pixels an image says of itself.
fn info(path: &str, samples: usize, classes: usize) -> SourceInfo {
    let one = MemorySource::unit(1, [3, 1, 1], vec![0.5; 3], vec![0]).unwrap();
    SourceInfo { path: path.into(), num_samples: samples, num_classes: classes, ..one.info().clone() }
}

fn named(path: &str, names: &[&str]) -> SourceInfo {
    let classes = Some(names.iter().map(|name| (*name).to_owned()).collect());
    SourceInfo { classes, ..info(path, names.len(), names.len()) }
}

/// A set with one sample of each class, or with the labels given.
fn set_of(info: SourceInfo, labels: Vec<Label>) -> Box<dyn Source> {
    let values = info.num_samples * info.shape.iter().product::<usize>();
    let values = (0..values).map(|i| (i % 97) as f32 / 97.0 + info.path.as_os_str().len() as f32).collect();
    Box::new(MemorySource::new(info, values, labels).unwrap())
}

fn set(info: SourceInfo) -> Box<dyn Source> {
    let labels = (0..info.num_samples).map(|index| Label::Hard(index % info.num_classes)).collect();
    set_of(info, labels)
}

fn classes(source: &dyn Source) -> Vec<usize> {
    (0..source.info().num_samples).map(|index| source.label(index).unwrap().class()).collect()
}

/// The option that is refused, and the message.
fn refused(concat: Result<Concat>) -> (&'static str, String) {
    match concat {
        Err(Error::Config { option, reason }) => (option, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn classes_are_matched_by_name() {
    let sets = [named("a", &["cat", "dog"]), named("b", &["owl", "dog", "eel"]), named("c", &["eel"])];
    let whole = Concat::new(sets.map(set).into()).unwrap();
    conformance::check(&whole);
    assert_eq!(whole.info().classes.as_deref().unwrap(), ["cat", "dog", "owl", "eel"]);
    assert_eq!((classes(&whole), whole.info().num_classes), (vec![0, 1, 2, 1, 3, 3], 4));
    assert_eq!((whole.info().path.to_str(), &whole.info().notes), (Some("a + b + c"), &vec![]));
    // Numbers are names where all sets have them: the second lacks the last class.
    let numbers = Concat::new(vec![set(named("a", &["0", "1", "2"])), set(named("b", &["0", "1"]))]).unwrap();
    assert_eq!(classes(&numbers), [0, 1, 2, 0, 1]);
    // Equal lists match label by label, whatever is in them.
    let twice = Concat::new(vec![set(named("a", &["crane", "crane"])), set(named("b", &["crane", "crane"]))]);
    assert_eq!(classes(&twice.unwrap()), [0, 1, 0, 1]);
}

#[test]
fn without_names_classes_are_matched_by_number() {
    let whole = Concat::new(vec![set(info("a", 4, 3)), set(info("b", 2, 3))]).unwrap();
    conformance::check(&whole);
    assert_eq!((classes(&whole), whole.info().num_classes), (vec![0, 1, 2, 0, 0, 1], 3));
    assert!(whole.info().notes[0].contains("by number"), "{:?}", whole.info().notes);
    let named_by_number = Concat::new(vec![set(info("a", 2, 2)), set(named("b", &["0", "1"]))]).unwrap();
    assert_eq!(named_by_number.info().classes.as_deref().unwrap(), ["0", "1"]);
    // One set alone stays as it is.
    let alone = Concat::new(vec![set(info("a", 4, 3))]).unwrap();
    assert_eq!((classes(&alone), alone.info().notes.len()), (vec![0, 1, 2, 0], 0));
}

#[test]
fn classes_that_cannot_be_matched_are_refused() {
    for (sets, words) in [
        ([info("a", 4, 3), info("b", 4, 2)], ["a has 3 classes", "b has 2"]),
        ([named("a", &["cat", "dog"]), info("b", 2, 2)], ["of a have names", "of b have none"]),
        ([named("a", &["0", "1"]), named("b", &["cat", "dog"])], ["of b have names", "of a have none"]),
        ([named("a", &["crane", "crane"]), named("b", &["crane"])], ["labels 0 and 1 of a", "class crane"]),
    ] {
        let (option, reason) = refused(Concat::new(sets.map(set).into()));
        assert_eq!(option, "sets");
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        assert!(reason.contains("Pass `classes`"), "{reason}");
    }
}

#[test]
fn classes_are_matched_as_asked() {
    let sets = || vec![set(named("a", &["cat", "dog"])), set(info("b", 3, 3))];
    let whole = Concat::with_classes(sets(), vec![vec![0, 2], vec![2, 1, 1]]).unwrap();
    conformance::check(&whole);
    assert_eq!(classes(&whole), [0, 2, 2, 1, 1]);
    assert_eq!(whole.info().classes.as_deref().unwrap(), ["cat", "1", "dog"]);
    for (classes, words) in [
        (vec![vec![0, 1]], "1 lists for 2 sets"),
        (vec![vec![0, 1], vec![0, 1]], "2 labels for set 1, b, which has 3"),
        (vec![vec![0, 1], vec![2, 4, 4]], "no set has class 3"),
        (vec![vec![0, 1], vec![2, 3, usize::MAX]], "must be below"),
    ] {
        let (option, reason) = refused(Concat::with_classes(sets(), classes));
        assert!(option == "classes" && reason.contains(words), "{option}: {reason}");
    }
}

#[test]
fn a_class_is_one_class_of_the_refiner() {
    let mapped = |info: SourceInfo, map: &[usize]| {
        set(SourceInfo { class_map: ClassMap::indices(map.to_vec()).unwrap(), ..info })
    };
    let sets =
        vec![mapped(named("a", &["cat", "dog"]), &[7, 3]), mapped(named("b", &["dog", "owl"]), &[3, 9])];
    let whole = Concat::new(sets).unwrap();
    assert_eq!(whole.info().class_map.as_indices().unwrap(), [7, 3, 9]);

    let other = vec![mapped(named("a", &["cat", "dog"]), &[7, 3]), mapped(named("b", &["dog"]), &[4])];
    let (option, reason) = refused(Concat::new(other));
    assert_eq!(option, "sets");
    assert!(
        ["class dog", "class 3 of the refiner in a", "class 4 in b"].iter().all(|word| reason.contains(word)),
        "{reason}"
    );

    // What one set says holds for all, but a class of which nobody says it is refused.
    let told = Concat::new(vec![set(info("a", 2, 2)), mapped(info("b", 2, 2), &[7, 3])]).unwrap();
    assert_eq!(told.info().class_map.as_indices().unwrap(), [7, 3]);
    let half = vec![mapped(named("a", &["cat"]), &[7]), set(named("b", &["cat", "eel"]))];
    let (_, reason) = refused(Concat::new(half));
    assert!(reason.contains("class eel") && reason.contains("b does not"), "{reason}");

    // Two names for one class are told.
    let two = vec![mapped(named("a", &["cat"]), &[7]), mapped(named("b", &["Katze"]), &[7])];
    assert!(Concat::new(two).unwrap().info().notes[0].contains("cat and Katze are both class 7"));
}

#[test]
fn imagenets_classes_are_matched_whatever_they_are_called() {
    let of = |names: &[&str], indices: &[usize]| {
        set(SourceInfo { class_map: ClassMap::imagenet(indices.to_vec()).unwrap(), ..named("x", names) })
    };
    let whole =
        Concat::new(vec![of(&["n02102040", "n01440764"], &[217, 0]), of(&["tench", "cassette"], &[0, 482])])
            .unwrap();
    conformance::check(&whole);
    assert_eq!(classes(&whole), [0, 1, 1, 2]);
    assert_eq!(whole.info().classes.as_deref().unwrap(), ["n02102040", "n01440764", "cassette"]);
    assert_eq!(whole.info().class_map.names().unwrap()[0], "English springer");
}

#[test]
fn batches_have_one_normalisation() {
    let stored = |path: &str, own: Normalize| {
        let info = named(path, &["cat", "dog"]);
        SourceInfo { value_space: ValueSpace::Normalized(own), normalize: own, ..info }
    };
    let bytes = || {
        let info = SourceInfo { normalize: CIFAR, ..named("bytes", &["cat", "dog"]) };
        let labels = vec![Label::Hard(0), Label::Hard(1)];
        Box::new(MemorySource::of_pixels(info, StoredPixels::U8(vec![0, 128, 255, 3, 2, 1]), labels).unwrap())
    };
    let whole =
        Concat::new(vec![set(stored("a", CIFAR)), bytes(), set(stored("c", Normalize::IMAGENET))]).unwrap();
    conformance::check(&whole);
    assert_eq!((whole.info().value_space, whole.info().normalize), (ValueSpace::Mixed, CIFAR));
    assert_eq!(whole.value_space(5), ValueSpace::Normalized(Normalize::IMAGENET));
    let notes = &whole.info().notes;
    assert!(notes.len() == 1 && notes[0].contains("images of c are normalised anew"), "{notes:?}");

    let written = |source: &dyn Source, index| {
        let mut out = [0.0; 3];
        source.write_normalized(index, &mut out).unwrap();
        out
    };
    let (a, c) = (set(stored("a", CIFAR)), set(stored("c", Normalize::IMAGENET)));
    // Of the same constants, to the bit.
    assert_eq!(written(&whole, 1), written(&a, 1));
    assert_eq!(written(&whole, 3), written(&bytes(), 1));
    let StoredPixels::F32(own) = c.sample(1).unwrap().pixels else { panic!() };
    let pixel =
        |channel: usize| own[channel] * Normalize::IMAGENET.std[channel] + Normalize::IMAGENET.mean[channel];
    let expected = [0, 1, 2].map(|channel| (pixel(channel) - CIFAR.mean[channel]) / CIFAR.std[channel]);
    for (written, expected) in written(&whole, 5).iter().zip(expected) {
        assert!((written - expected).abs() < 1e-5, "{written} {expected}");
    }

    // A sample's pixels are those of its set, and need its own space.
    let sample = whole.sample(5).unwrap();
    assert_eq!(sample.digest(), c.sample(1).unwrap().digest());
    let own_pixels = c.sample(1).unwrap().to_pixels(&c.value_space(1)).unwrap();
    assert_eq!(sample.to_pixels(&whole.value_space(5)).unwrap(), own_pixels);
    assert!(sample.to_pixels(&whole.info().value_space).is_err());
    let subset = Subset::new(Box::new(whole), vec![5, 2]).unwrap();
    conformance::check(&subset);
}

#[test]
fn images_that_do_not_go_together_are_refused() {
    let whitened = |path| SourceInfo { value_space: ValueSpace::Whitened, ..info(path, 2, 2) };
    let kip = SourceInfo { format: Format::Kip, ..whitened("b") };
    let with_shape = |shape| SourceInfo { shape, ..info("b", 2, 2) };
    for (sets, words) in [
        ([info("a", 2, 2), with_shape([3, 2, 1])], ["a has images of 1 x 1", "b of 2 x 1", "image_size"]),
        ([info("a", 2, 2), with_shape([1, 1, 1])], ["a has", "3 channels", "b of 1 channel"]),
        ([info("a", 2, 2), whitened("b")], ["of b are ZCA-whitened", "of a are not", "`zca`"]),
        ([whitened("a"), info("b", 2, 2)], ["of a are ZCA-whitened", "of b are not", "`zca`"]),
        ([whitened("a"), kip], ["a and b", "whitened", "KIP"]),
    ] {
        let (option, reason) = refused(Concat::new(sets.map(set).into()));
        assert!(option == "sets" && words.iter().all(|word| reason.contains(word)), "{option}: {reason}");
    }
    assert_eq!(refused(Concat::new(vec![])).0, "sets");
    assert_eq!(refused(Concat::with_classes(vec![], vec![])).0, "sets");
    let both = Concat::new(vec![set(whitened("a")), set(whitened("b"))]).unwrap();
    conformance::check(&both);
    assert!(both.info().notes.iter().any(|note| note.contains("same ZCA transform")));
}

#[test]
fn labels_become_those_of_the_whole() {
    let soft = |path, labels, names: &[&str], rows: &[&[f32]]| {
        let info = SourceInfo { labels, num_samples: rows.len(), ..named(path, names) };
        let label = |row: &&[f32]| match labels {
            LabelKind::Logits => Label::Logits(row.to_vec()),
            _ => Label::Probabilities(row.to_vec()),
        };
        set_of(info, rows.iter().map(label).collect())
    };
    let shares = || soft("b", LabelKind::Probabilities, &["dog", "owl"], &[&[0.25, 0.75]]);
    let whole = Concat::new(vec![set(named("a", &["cat", "dog"])), shares()]).unwrap();
    conformance::check(&whole);
    assert_eq!(whole.info().labels, LabelKind::Probabilities);
    assert_eq!(whole.label(1).unwrap(), Label::Probabilities(vec![0.0, 1.0, 0.0]));
    assert_eq!(whole.label(2).unwrap(), Label::Probabilities(vec![0.0, 0.25, 0.75]));
    // Classes that become one class have the sum.
    let merged =
        Concat::with_classes(vec![set(info("a", 2, 2)), shares()], vec![vec![0, 1], vec![1, 1]]).unwrap();
    conformance::check(&merged);
    assert_eq!(merged.label(2).unwrap(), Label::Probabilities(vec![0.0, 1.0]));

    let logits = |path, names: &[&str]| soft(path, LabelKind::Logits, names, &[&[3.0, -1.0]]);
    let both = Concat::new(vec![logits("a", &["cat", "dog"]), logits("b", &["dog", "cat"])]).unwrap();
    conformance::check(&both);
    assert_eq!(both.label(1).unwrap(), Label::Logits(vec![-1.0, 3.0]));
    for (sets, words) in [
        (
            vec![logits("a", &["cat", "dog"]), logits("b", &["dog", "owl"])],
            ["of a are logits", "none for class owl"],
        ),
        (
            vec![set(named("a", &["cat", "dog"])), logits("b", &["dog", "cat"])],
            ["of b are logits", "of a are classes"],
        ),
        (vec![shares(), logits("b", &["dog", "owl"])], ["of b are logits", "are probabilities"]),
    ] {
        let (option, reason) = refused(Concat::new(sets));
        assert!(option == "sets" && words.iter().all(|word| reason.contains(word)), "{option}: {reason}");
    }
    let one_class = Concat::with_classes(vec![logits("a", &["cat", "dog"])], vec![vec![0, 0]]);
    assert!(refused(one_class).1.contains("cannot become one"));
}

#[test]
fn weights_are_portions() {
    let concat = || Concat::new(vec![set(info("a", 4, 2)), set(info("b", 2, 2))]).unwrap();
    let portion = |samples, places| Portion { samples, places };
    assert_eq!(concat().portions(), []);
    let weighted = concat().weights(&[1.0, 1.0]).unwrap();
    conformance::check(&weighted);
    assert_eq!(weighted.portions(), [portion(4, 4), portion(2, 4)]);
    assert_eq!(refused(concat().weights(&[1.0])).0, "weights");
    // A set among others keeps its weights; new ones would be of sets of which one has its own.
    let nested =
        || Concat::new(vec![set(info("c", 3, 2)), Box::new(concat().weights(&[1.0, 1.0]).unwrap())]).unwrap();
    assert_eq!(nested().portions(), [portion(3, 3), portion(4, 4), portion(2, 4)]);
    conformance::check(&nested());
    assert!(refused(nested().weights(&[1.0, 2.0])).1.contains("a + b has weights of its own"));
    let subset = Subset::new(Box::new(weighted), vec![0]).unwrap();
    assert!(
        subset.portions().is_empty() && subset.info().notes.iter().any(|note| note.contains("no weights"))
    );
}

#[test]
fn what_differs_is_left_open() {
    let with = |path, method: Option<&str>, rate| SourceInfo {
        method: method.map(str::to_owned),
        learning_rate: rate,
        notes: vec!["something".into()],
        ..named(path, &["cat"])
    };
    let whole =
        Concat::new(vec![set(with("a", Some("DM"), Some(0.1))), set(with("b", Some("DM"), None))]).unwrap();
    let info = whole.info();
    assert_eq!((info.method.as_deref(), info.learning_rate, info.format), (Some("DM"), None, Format::Concat));
    assert_eq!(info.notes, ["a: something", "b: something"]);
    assert_eq!(info.facts.len(), 2);
    let many = (0..6).map(|number| set(named(&number.to_string(), &["cat"]))).collect();
    assert_eq!(Concat::new(many).unwrap().info().path.to_str(), Some("0 + 1 + 2 + 3 + 2 sets"));
}
