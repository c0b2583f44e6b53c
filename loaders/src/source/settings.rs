//! What settings that a script saved beside its data say of the data.

use super::containers::torch::Value;

/// Where scripts put the settings of a run.
const PLACES: [&str; 6] = ["args", "config", "cfg", "opt", "hparams", "settings"];

/// Whether they say that the images were whitened.
pub(super) fn say_zca(root: Value<'_>) -> bool {
    let says = |settings: Value<'_>| {
        let entry = settings.get("zca").or_else(|| settings.attribute("zca"));
        entry.and_then(Value::as_bool) == Some(true)
    };
    says(root) || PLACES.iter().filter_map(|place| root.get(place)).any(says)
}
