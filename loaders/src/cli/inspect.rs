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
    };
    let space = match &info.value_space {
        ValueSpace::Normalized(n) => format!("normalised, mean {:?}, std {:?}", n.mean, n.std),
        ValueSpace::Whitened => "ZCA-whitened, in batches as they are stored".to_owned(),
        ValueSpace::Unit => {
            let n = &info.normalize;
            format!("pixels, in batches normalised with mean {:?}, std {:?}", n.mean, n.std)
        }
    };
    let mut text = format!(
        "{}\n  format   {}\n  samples  {}, {channels} x {height} x {width}\n  classes  {}\n  labels   {labels}\n  values   {space}\n",
        info.path.display(),
        info.format,
        info.samples,
        info.classes,
    );
    // Writing to a string does not fail.
    if let Some(method) = &info.method {
        let _ = writeln!(text, "  method   {method}");
    }
    if let Some(rate) = info.learning_rate {
        let _ = writeln!(text, "  lr       {rate}, learned with the images");
    }
    if let Some(list) = info.class_map.as_indices() {
        let _ = writeln!(
            text,
            "  refined  as the backbone's classes {}",
            listed(list, info.class_names.as_deref())
        );
    }
    for note in &info.notes {
        let _ = writeln!(text, "  note     {note}");
    }
    text
}

/// The beginning of a list, with the names of the set's classes where it has them.
fn listed(indices: &[usize], names: Option<&[String]>) -> String {
    const MOST: usize = 10;
    let entry = |(label, index): (usize, &usize)| match names.and_then(|names| names.get(label)) {
        Some(name) => format!("{name} -> {index}"),
        None => index.to_string(),
    };
    let shown: Vec<String> = indices.iter().take(MOST).enumerate().map(entry).collect();
    let more = if indices.len() > MOST { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_listed_by_their_names() {
        assert_eq!(
            listed(&[217, 0], Some(&["springer".into(), "tench".into()])),
            "springer -> 217, tench -> 0"
        );
        assert_eq!(listed(&[3; 11], None), format!("{}3, ...", "3, ".repeat(9)));
    }
}
