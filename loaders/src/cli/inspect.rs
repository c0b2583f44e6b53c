//! `diver inspect`.

use super::output::Output;
use super::source_args::SourceArgs;
use crate::source::LabelKind;
use crate::{Result, SourceInfo, ValueSpace};
use clap::Args;
use std::fmt::Write as _;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  diver inspect res_DM_CIFAR10_ConvNet_10ipc.pt --json")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) fn run(args: &InspectArgs, output: Output) -> Result<()> {
    let source = args.source.open()?;
    let info = source.info();
    output.result(&describe(info), info)
}

fn describe(info: &SourceInfo) -> String {
    let [channels, height, width] = info.shape;
    let labels = match info.labels {
        LabelKind::Hard => "class indices",
        LabelKind::Logits => "logits",
        LabelKind::Probabilities => "probabilities",
    };
    let space = match &info.value_space {
        ValueSpace::Normalized(n) => format!("normalised, mean {:?}, std {:?}", n.mean, n.std),
        ValueSpace::Whitened => "ZCA-whitened, streamed as they are stored".to_owned(),
        ValueSpace::Unit | ValueSpace::Mixed => {
            let (n, of) = (&info.normalize, info.value_space);
            let stored = if of == ValueSpace::Unit { "pixels" } else { "pixels and normalised ones" };
            format!("{stored}; batches are normalised with mean {:?}, std {:?}", n.mean, n.std)
        }
    };
    let mut text = format!(
        "{}\n  format   {}\n  samples  {}, {channels} x {height} x {width}\n  classes  {}\n  labels   {labels}\n  values   {space}\n",
        info.path.display(),
        info.format,
        info.num_samples,
        info.num_classes,
    );
    // Writing to a string does not fail.
    if let Some(method) = &info.method {
        let _ = writeln!(text, "  method   {method}");
    }
    if let Some(rate) = info.learning_rate {
        let _ = writeln!(text, "  lr       {rate}, learned with the images");
    }
    for fact in &info.facts {
        let _ = writeln!(text, "  known    {}: {} (by {})", fact.name, fact.value, fact.right);
    }
    for line in classes(info) {
        let _ = writeln!(text, "  class    {line}");
    }
    for note in &info.notes {
        let _ = writeln!(text, "  note     {note}");
    }
    text
}

/// A line for each of the first classes: its name, and the refiner's class, with ImageNet's WordNet id and name if it is
/// known to be one.
fn classes(info: &SourceInfo) -> Vec<String> {
    const MOST: usize = 10;
    let Some(indices) = info.class_map.as_indices() else { return Vec::new() };
    let (wnids, names) = (info.class_map.wnids(), info.class_map.names());
    let line = |(label, index): (usize, &usize)| {
        let own = info.classes.as_ref().and_then(|names| names.get(label));
        let own = own.map(|name| format!(" {name}")).unwrap_or_default();
        let known = match (&wnids, &names) {
            (Some(wnids), Some(names)) => format!(" ({} {})", wnids[label], names[label]),
            _ => String::new(),
        };
        format!("{label}{own}: refined as {index}{known}")
    };
    let mut lines: Vec<String> =
        indices.iter().take(MOST.min(info.num_classes)).enumerate().map(line).collect();
    if info.num_classes > MOST {
        lines.push(format!("... and {} more", info.num_classes - MOST));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClassMap, MemorySource, Source};

    #[test]
    fn classes_are_listed_by_their_names() {
        let set = MemorySource::unit(2, [3, 1, 1], vec![0.5; 6], vec![0, 1]).unwrap();
        let info = SourceInfo {
            classes: Some(vec!["springer".into(), "fish".into()]),
            class_map: ClassMap::imagenet(vec![217, 0]).unwrap(),
            ..set.info().clone()
        };
        let lines = classes(&info);
        assert!(
            lines[0].contains("springer") && lines[0].contains("217 (n02102040 English springer)"),
            "{lines:?}"
        );
        assert!(lines[1].contains("fish") && lines[1].contains("tench"), "{lines:?}");
        let plain =
            SourceInfo { class_map: ClassMap::indices(vec![3; 11]).unwrap(), num_classes: 11, ..info };
        assert_eq!(classes(&plain).len(), 11);
    }
}
