//! The 1000 classes of ImageNet-1K, in the order of their WordNet ids: that of torchvision and of every backbone.
//!
//! Ids and first names are those of ILSVRC 2012's development kit.

use std::sync::LazyLock;

/// Number of classes; the null class of a backbone comes next.
pub const CLASSES: usize = 1000;

struct Class {
    wnid: &'static str,
    name: String,
}

static TABLE: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let lines = include_str!("imagenet.tsv").lines();
    let columns = lines.filter_map(|line| line.split_once('\t'));
    columns.map(|(wnid, name)| Class { wnid, name: name.replace('_', " ") }).collect()
});

/// The WordNet id of class `index`, as in `n01440764`.
///
/// ```
/// assert_eq!(diver_loaders::imagenet::wnid(0), Some("n01440764"));
/// ```
pub fn wnid(index: usize) -> Option<&'static str> {
    TABLE.get(index).map(|class| class.wnid)
}

/// The name of class `index`, as in `tench`. Two names are of two classes each: `crane` and `maillot`.
///
/// ```
/// assert_eq!(diver_loaders::imagenet::name(217), Some("English springer"));
/// ```
pub fn name(index: usize) -> Option<&'static str> {
    TABLE.get(index).map(|class| class.name.as_str())
}

/// The class with this WordNet id.
///
/// ```
/// assert_eq!(diver_loaders::imagenet::index("n15075141"), Some(999));
/// ```
pub fn index(wnid: &str) -> Option<usize> {
    TABLE.binary_search_by(|class| class.wnid.cmp(wnid)).ok()
}

/// The classes with this name, whatever its case and whether its words are joined by spaces or by underscores.
pub(super) fn named(name: &str) -> Vec<usize> {
    let name = name.replace('_', " ");
    let equal = |index: &usize| TABLE[*index].name.eq_ignore_ascii_case(&name);
    (0..TABLE.len()).filter(equal).collect()
}

/// The classes that all of these names are of: WordNet ids or names, of which several may follow each other as in
/// `tench, Tinca tinca`. None if one is no class, or could be two, or if two are of one class.
pub(crate) fn classes_of(names: &[String]) -> Option<Vec<usize>> {
    let class = |name: &String| {
        let first = name.split(',').next().unwrap_or_default().trim();
        index(first).or_else(|| match named(first)[..] {
            [class] => Some(class),
            _ => None,
        })
    };
    // Most sets are of other classes, which the first name tells.
    class(names.first()?)?;
    let classes: Vec<usize> = names.iter().map(class).collect::<Option<_>>()?;
    let distinct: std::collections::HashSet<usize> = classes.iter().copied().collect();
    (distinct.len() == classes.len()).then_some(classes)
}

/// Whether text has the form of a WordNet id, known or not.
pub(crate) fn is_wnid(text: &str) -> bool {
    text.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_sorted() {
        assert_eq!(TABLE.len(), CLASSES);
        assert!(TABLE.is_sorted_by(|a, b| a.wnid < b.wnid));
        assert!(TABLE.iter().all(|class| is_wnid(class.wnid) && !class.name.is_empty()));
        // Known pairs, from several parts of the table.
        for (id, class, text) in [
            ("n02102040", 217, "English springer"),
            ("n04355933", 836, "sunglass"),
            ("n07753592", 954, "banana"),
        ] {
            assert_eq!((index(id), name(class)), (Some(class), Some(text)));
        }
        assert_eq!(named("Toilet_Tissue"), [999]);
        assert_eq!(named("crane"), [134, 517]);
        assert_eq!((wnid(CLASSES), index("n00000000")), (None, None));
    }
}
