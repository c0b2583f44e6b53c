//! The settings of the method as JSON.

use diver::Knobs;

/// All settings as JSON, those too that a fingerprint leaves out where they say nothing new.
pub fn every(knobs: &Knobs) -> serde_json::Value {
    let mut all = serde_json::json!(knobs);
    all["solver"] = serde_json::json!(knobs.solver());
    all["grid"] = serde_json::json!(knobs.grid());
    all["mapping"] = serde_json::json!(knobs.mapping());
    all["flow_start"] = serde_json::json!(knobs.flow_start());
    all
}
