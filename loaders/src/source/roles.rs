//! Which of several named things are images, and which are their labels: people name them in many ways.

/// Words for images, the most telling first.
const IMAGES: [&str; 9] = ["images", "image", "imgs", "img", "pixels", "inputs", "x", "data", "samples"];
/// Words for labels, the most telling first.
const LABELS: [&str; 8] = ["labels", "label", "lbls", "lbl", "y", "targets", "target", "cls"];
/// Words that follow an `x` or `y` without a separator.
const AFTER_LETTER: [&str; 6] = ["train", "test", "val", "valid", "syn", "distill"];
/// Words for what a method starts from.
const INITIAL: [&str; 5] = ["init", "initial", "real", "orig", "original"];

/// What a thing is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Images,
    Labels,
}

/// A name as its role and the words beside it: `ema_images_best` is of images, beside `ema` and `best`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) role: Role,
    /// In lower case.
    pub(super) beside: Vec<String>,
    /// How telling the word for its role is; 0 is the most.
    rank: usize,
}

impl<'a> Named<'a> {
    /// None if the name tells no role.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let words = words(name);
        let find = |known: &[&str]| known.iter().position(|known| words.iter().any(|word| word == known));
        // `image_labels` are labels.
        let (role, rank) = match (find(&LABELS), find(&IMAGES)) {
            (Some(rank), _) => (Role::Labels, rank),
            (None, Some(rank)) => (Role::Images, rank),
            (None, None) => return None,
        };
        let is_role = |word: &str| IMAGES.contains(&word) || LABELS.contains(&word);
        let beside = words.into_iter().filter(|word| !is_role(word)).collect();
        Some(Self { name, role, beside, rank })
    }

    /// Whether it is what a method started from, not what it made.
    pub(super) fn is_initial(&self) -> bool {
        self.beside.iter().any(|word| INITIAL.contains(&word.as_str())) || self.iteration() == Some(0)
    }

    /// The iteration after which it was saved.
    pub(super) fn iteration(&self) -> Option<u64> {
        self.beside.last()?.parse().ok()
    }

    fn is_best(&self) -> bool {
        self.beside.last().is_some_and(|word| word == "best")
    }

    /// Whether it is a later result of the run that `other` is of.
    pub(super) fn is_after(&self, other: &Self) -> bool {
        self.family() == other.family() && self.place_in_run() > other.place_in_run()
    }

    /// The larger, the later: the best comes after all iterations.
    fn place_in_run(&self) -> (bool, Option<u64>) {
        (self.is_best(), self.iteration())
    }

    /// The words that tell one run, or one part of a set, from another.
    fn family(&self) -> &[String] {
        match self.beside.split_last() {
            Some((_, rest)) if self.is_best() || self.iteration().is_some() => rest,
            _ => &self.beside,
        }
    }
}

/// The words of a name: parted by what is no letter and no digit, and a word for a role from digits or a split after it.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let word = word.to_ascii_lowercase();
        let known = IMAGES.iter().chain(&LABELS);
        let parted = known.filter_map(|role| Some((*role, word.strip_prefix(role)?))).find(|(role, rest)| {
            let is_number = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
            is_number || (role.len() == 1 && AFTER_LETTER.contains(rest))
        });
        match parted {
            Some((role, rest)) => words.extend([role.to_owned(), rest.to_owned()]),
            None => words.push(word),
        }
    }
    words
}

/// Images and the labels that belong to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub(super) images: Named<'a>,
    pub(super) labels: Named<'a>,
}

/// All pairs among `names`: images and labels with the same words beside them; or the only images and the only labels.
pub(super) fn pairs<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Pair<'a>> {
    let named: Vec<Named<'a>> = names.into_iter().filter_map(Named::parse).collect();
    let of = |role: Role| named.iter().filter(move |named| named.role == role);
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    for images in of(Role::Images) {
        let mut labels: Vec<&Named<'a>> =
            of(Role::Labels).filter(|labels| labels.beside == images.beside).collect();
        labels.sort_by_key(|labels| labels.rank);
        if let Some(labels) = labels.first() {
            pairs.push(Pair { images: images.clone(), labels: (*labels).clone() });
        }
    }
    let (mut images, mut labels) = (of(Role::Images), of(Role::Labels));
    if pairs.is_empty()
        && let (Some(images), None, Some(labels), None) =
            (images.next(), images.next(), labels.next(), labels.next())
    {
        pairs.push(Pair { images: images.clone(), labels: labels.clone() });
    }
    pairs
}

/// What a choice among pairs came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// This pair; with `over`, the others of its run that were passed over.
    One { pair: Pair<'a>, over: Vec<&'a str> },
    /// Several fit equally.
    Several(Vec<Pair<'a>>),
    /// There are pairs, but only of what a method started from.
    Initial(Vec<Pair<'a>>),
    /// There are none.
    None,
}

/// Chooses the results of a run: `best`, else the highest iteration, else the plain name. A `split` names a part.
pub(super) fn choose<'a>(pairs: Vec<Pair<'a>>, split: Option<&str>) -> Choice<'a> {
    let (initial, mut pairs): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| pair.images.is_initial());
    if let Some(split) = split {
        pairs.retain(|pair| pair.images.beside.iter().any(|word| word.eq_ignore_ascii_case(split)));
    }
    if pairs.is_empty() {
        return if initial.is_empty() { Choice::None } else { Choice::Initial(initial) };
    }
    let family = pairs[0].images.family().to_vec();
    if pairs.iter().any(|pair| pair.images.family() != family) {
        return Choice::Several(pairs);
    }
    let rank = |pair: &Pair<'_>| pair.images.place_in_run();
    pairs.sort_by_key(|pair| std::cmp::Reverse(rank(pair)));
    if pairs.len() > 1 && rank(&pairs[0]) == rank(&pairs[1]) {
        return Choice::Several(pairs);
    }
    let mut pairs = pairs.into_iter();
    match pairs.next() {
        Some(pair) => Choice::One { pair, over: pairs.map(|pair| pair.images.name).collect() },
        None => Choice::None,
    }
}

/// The names of pairs, as a question about them lists them.
pub(super) fn listed(pairs: &[Pair<'_>]) -> String {
    const LISTED: usize = 6;
    let names: Vec<String> = pairs
        .iter()
        .take(LISTED)
        .map(|pair| format!("{} with {}", pair.images.name, pair.labels.name))
        .collect();
    let more = if pairs.len() > LISTED { "; ..." } else { "" };
    format!("{}{more}", names.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen<'a>(names: &[&'a str]) -> Option<(&'a str, &'a str)> {
        match choose(pairs(names.iter().copied()), None) {
            Choice::One { pair, .. } => Some((pair.images.name, pair.labels.name)),
            _ => None,
        }
    }

    #[test]
    fn pairs_are_found_by_role() {
        for (names, expected) in [
            (&["images", "labels"][..], ("images", "labels")),
            (&["x_train", "y_train"], ("x_train", "y_train")),
            (&["X", "Y"], ("X", "Y")),
            (&["xtrain", "ytrain"], ("xtrain", "ytrain")),
            (&["train_images", "train_labels"], ("train_images", "train_labels")),
            (&["image_syn", "label_syn", "lr"], ("image_syn", "label_syn")),
            (&["image_data", "image_labels"], ("image_data", "image_labels")),
            (
                &["cifar10_IPC1_normalize_images", "cifar10_IPC1_labels"],
                ("cifar10_IPC1_normalize_images", "cifar10_IPC1_labels"),
            ),
            (&["images_best", "images_5000", "labels_best", "labels_5000"], ("images_best", "labels_best")),
            (&["images_900", "images_2000", "labels_900", "labels_2000"], ("images_2000", "labels_2000")),
            (
                &["ema_images_100", "ema_labels_100", "ema_images_best", "ema_labels_best"],
                ("ema_images_best", "ema_labels_best"),
            ),
            (&["images_init", "labels_init", "images_40", "labels_40"], ("images_40", "labels_40")),
            (&["data", "targets"], ("data", "targets")),
        ] {
            assert_eq!(chosen(names), Some(expected), "{names:?}");
        }
    }

    #[test]
    fn what_fits_twice_or_is_initial_is_not_chosen() {
        for names in [
            &["x_train", "y_train", "x_test", "y_test"][..],
            &["images_best", "labels_best", "ema_images_best", "ema_labels_best"],
            &["images", "labels", "x"],
            &["images_init", "labels_init"],
            &["images_0", "labels_0"],
            &["images"],
            &["curve", "settings"],
        ] {
            assert_eq!(chosen(names), None, "{names:?}");
        }
        let keras = ["x_train", "y_train", "x_test", "y_test"];
        let Choice::One { pair, .. } = choose(pairs(keras), Some("test")) else { panic!("one is chosen") };
        assert_eq!((pair.images.name, pair.labels.name), ("x_test", "y_test"));
        assert!(matches!(choose(pairs(["images_init", "labels_init"]), None), Choice::Initial(_)));
    }
}
