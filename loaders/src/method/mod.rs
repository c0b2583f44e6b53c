//! The settings of DIVER (arXiv 2605.12649): what the method can be told, without the method itself, which needs torch.

mod family;
mod flow_switches;
mod knobs;
mod presets;
mod switches;

pub use family::Family;
pub use flow_switches::{FlowStart, Grid, Mapping, Solver};
pub use knobs::{Knobs, KnobsBuilder};
pub use presets::Preset;
pub use switches::{ChainKind, Gradient, Mode, Sigma, Start, WindowEnds};
