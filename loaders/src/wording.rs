//! Numbers and names in messages.

/// The most names that are nearest to another one.
const MOST_NEAREST: usize = 3;
/// So many names fit into a message whatever they are.
const FEW: usize = 16;

/// A number of things, each of which is called `one`: `1 image`, `2 images`.
pub(crate) fn counted(number: usize, one: &str) -> String {
    let ending = match number {
        1 => "",
        _ if one.ends_with('s') || one.ends_with("tch") => "es",
        _ => "s",
    };
    format!("{number} {one}{ending}")
}

/// The names of `known` that `name` is likely to mean, the nearest first; case and punctuation do not count.
///
/// ```
/// use diver_loaders::wording::nearest;
///
/// assert_eq!(nearest("cifar-ten", ["mnist", "cifar10", "cifar100"]), ["cifar10", "cifar100"]);
/// assert!(nearest("imagenet", ["mnist", "svhn"]).is_empty());
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let name = bare(name);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|candidate| {
            let other = bare(candidate);
            let edits = strsim::osa_distance(&name, &other);
            // Two letters in five may be wrong, and what begins as another one, or ends so, is near it in any case.
            let longest = name.chars().count().max(other.chars().count());
            let is_part = name.chars().count() > 2 && (other.contains(&name) || name.contains(&other));
            (5 * edits <= 2 * longest || is_part && !other.is_empty()).then_some((edits, candidate))
        })
        .collect();
    near.sort_by_key(|(edits, _)| *edits);
    near.truncate(MOST_NEAREST);
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Why `name` is refused where one of `known` is expected, with the names that it may mean.
///
/// ```
/// use diver_loaders::wording::unknown;
///
/// let reason = unknown("whitend", &["normalized", "unit", "whitened"]);
/// assert_eq!(reason, "`whitend` is not one of normalized, unit, whitened: did you mean `whitened`?");
/// ```
#[must_use]
pub fn unknown(name: &str, known: &[&str]) -> String {
    let shown: String = name.chars().take(80).collect();
    let near = nearest(name, known.iter().copied());
    let near: Vec<String> = near.into_iter().map(|name| format!("`{name}`")).collect();
    let meant = match near.split_last() {
        None => return format!("`{shown}` is not one of {}", known.join(", ")),
        Some((last, [])) => format!("did you mean {last}?"),
        Some((last, rest)) => format!("did you mean {} or {last}?", rest.join(", ")),
    };
    if known.len() <= FEW {
        format!("`{shown}` is not one of {}: {meant}", known.join(", "))
    } else {
        format!("`{shown}` is not a known name: {meant}")
    }
}

/// A name without case and punctuation.
fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_called_many() {
        let words = [(0, "image"), (1, "class"), (2, "class"), (1, "batch"), (3, "batch"), (2, "epoch")];
        let counted = words.map(|(number, one)| counted(number, one));
        assert_eq!(counted, ["0 images", "1 class", "2 classes", "1 batch", "3 batches", "2 epochs"]);
    }

    #[test]
    fn the_nearest_names_come_first() {
        const SETS: [&str; 9] = [
            "imagenet",
            "imagenette",
            "imagewoof",
            "imagefruit",
            "imagefruit-ncfm",
            "cifar10",
            "cifar100",
            "tinyimagenet",
            "fashionmnist",
        ];
        for (name, first) in [
            ("imagefruits", "imagefruit"),
            ("ImageFruits", "imagefruit"),
            ("image_fruit_nfcm", "imagefruit-ncfm"),
            ("imagennette", "imagenette"),
            ("cifar-ten", "cifar10"),
            ("cifar-100s", "cifar100"),
            ("cifar", "cifar10"),
            ("tiny", "tinyimagenet"),
            ("mnist", "fashionmnist"),
            ("imagewolf", "imagewoof"),
        ] {
            let near = nearest(name, SETS);
            assert_eq!(near.first(), Some(&first), "{name}: {near:?}");
            assert!(near.len() <= MOST_NEAREST);
            let reason = unknown(name, &SETS);
            assert!(reason.contains(name) && reason.contains(first), "{reason}");
            assert!(reason.contains(&format!("did you mean `{first}`")), "{reason}");
        }
        for name in ["", "x", "celeba", "-"] {
            assert!(nearest(name, SETS).is_empty(), "{name}");
            assert!(SETS.iter().all(|set| unknown(name, &SETS).contains(set)), "{name}");
        }
        assert!(unknown(&"x".repeat(10_000), &SETS).len() < 300);
        // Where there are many, the nearest alone are said.
        let many: Vec<String> = (0..50).map(|number| format!("set{number:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let reason = unknown("set_o7", &many);
        assert!(reason.contains("`set07`") && !reason.contains("set30"), "{reason}");
    }
}
