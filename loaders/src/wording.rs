//! Numbers in messages.

/// A number of things, each of which is called `one`: `1 image`, `2 images`.
pub(crate) fn counted(number: usize, one: &str) -> String {
    let ending = match number {
        1 => "",
        _ if one.ends_with('s') || one.ends_with("tch") => "es",
        _ => "s",
    };
    format!("{number} {one}{ending}")
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
}
