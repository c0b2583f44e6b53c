//! The class lists of subsets that methods distil, by name.
//!
//! The order matters: a label is a position in its list. Sources: mtt-distillation's `utils.py` (imagenette to
//! imageyellow), GLaD's (imagenet-a to -e, glad-...), IDC's `class100.txt` (imagenet-idc-...), EDF's
//! `comp-dd/load_data.py` (compdd-..., where music-hard has a class twice), and where they differ from these,
//! NCFM's, ManifoldGD's and EDF's.

use std::sync::LazyLock;

static LISTS: LazyLock<Vec<(&str, Vec<usize>)>> = LazyLock::new(|| {
    let lines = include_str!("lists.tsv").lines().filter_map(|line| line.split_once('\t'));
    lines
        .map(|(name, indices)| (name, indices.split(' ').filter_map(|index| index.parse().ok()).collect()))
        .collect()
});

/// Other names of the same lists: GLaD's for MTT's subsets, and what the literature writes.
const ALIASES: [(&str, &str); 6] = [
    ("imagenet-birds", "imagesquawk"),
    ("imagenet-cats", "imagemeow"),
    ("imagenet-fruits", "imagefruit"),
    ("imagenet-nette", "imagenette"),
    ("imagenet-woof", "imagewoof"),
    ("imagenet-yellow", "imageyellow"),
];

/// The list of this name, whatever its case and punctuation, with its name as it is written here.
pub(super) fn find(name: &str) -> Option<(&'static str, &'static [usize])> {
    let wanted = bare(name);
    let alias = ALIASES.iter().find(|(alias, _)| bare(alias) == wanted);
    let wanted = alias.map_or(wanted, |(_, of)| bare(of));
    LISTS.iter().find(|(name, _)| bare(name) == wanted).map(|(name, list)| (*name, list.as_slice()))
}

/// The name of every list.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    LISTS.iter().map(|(name, _)| *name)
}

/// The other names of some lists.
pub(super) fn aliases() -> impl Iterator<Item = &'static str> {
    ALIASES.iter().map(|(alias, _)| *alias)
}

fn bare(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imagenet;

    #[test]
    fn every_list_is_of_classes_of_imagenet() {
        assert_eq!(LISTS.len(), 45);
        for (name, list) in LISTS.iter() {
            assert_eq!(list.len(), if *name == "imagenet-idc-100" { 100 } else { 10 }, "{name}");
            assert!(list.iter().all(|index| imagenet::wnid(*index).is_some()), "{name}");
            assert_eq!(find(&name.to_uppercase().replace('-', "_")), Some((*name, list.as_slice())));
        }
        let mut names: Vec<String> = names().chain(ALIASES.map(|(alias, _)| alias)).map(bare).collect();
        names.sort();
        assert!(names.is_sorted_by(|a, b| a < b), "no name means two lists");
        assert!(ALIASES.iter().all(|(alias, _)| find(alias).is_some()));
    }

    #[test]
    fn lists_that_differ_in_one_class_are_apart() {
        let at = |name: &str, position: usize| find(name).unwrap().1[position];
        assert_eq!((at("imagefruit", 9), at("ImageFruit-NCFM", 9)), (948, 956));
        assert_eq!((at("imageyellow", 8), at("imageyellow_ncfm", 8)), (72, 74));
        assert_eq!((at("imagewoof", 0), at("imagewoof-manifoldgd", 0)), (193, 155));
        assert_eq!(find("imagenet-birds").unwrap().0, "imagesquawk");
        assert_eq!(find("imagenet"), None);
    }
}
