//! Scores as a drawing.

use super::{PROXY, unseen};
use crate::eval::{Scores, Summary};
use std::fmt::Write as _;

const LINE: f64 = 26.0;
const LEFT: f64 = 170.0;
const WIDTH: f64 = 640.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 10.0;

/// An SVG with a line for each row: the mean of the unseen networks as a dot, the network that the set was distilled
/// on as a ring, both with a bar of one standard deviation to either side.
pub(super) fn plot(scores: &[Scores]) -> String {
    let height = TOP + LINE * scores.len() as f64 + 40.0;
    let bottom = TOP + LINE * scores.len() as f64;
    let x = |percent: f64| LEFT + (WIDTH - LEFT - RIGHT) * percent / 100.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Accuracy by training set\">\n"
    );
    // Writing to a string does not fail.
    for percent in [0, 20, 40, 60, 80, 100] {
        let at = x(f64::from(percent));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at}\" y1=\"{TOP}\" x2=\"{at}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{at}\" y=\"{}\">{percent} %</text>",
            bottom + 18.0
        );
    }
    for (index, row) in scores.iter().enumerate() {
        let y = TOP + LINE * (index as f64 + 0.5);
        let label = super::markup::escaped(&row.label);
        let _ = writeln!(svg, "<text class=\"row\" x=\"{}\" y=\"{}\">{label}</text>", LEFT - 10.0, y + 4.0);
        let marks = [("proxy", row.summary(&[PROXY])), ("unseen", row.summary(&unseen(row)))];
        for (class, summary) in marks {
            if let Some(Summary { mean, std }) = summary {
                let _ = writeln!(
                    svg,
                    "<g class=\"{class}\"><line x1=\"{:.1}\" y1=\"{y}\" x2=\"{:.1}\" y2=\"{y}\"/>\
                     <circle cx=\"{:.1}\" cy=\"{y}\" r=\"5\"/></g>",
                    x((mean - std).max(0.0)),
                    x((mean + std).min(100.0)),
                    x(mean)
                );
            }
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Architecture;

    #[test]
    fn marks_lie_where_the_scores_are() {
        let networks = vec![
            (Architecture::ConvNet, vec![100.0]),
            (Architecture::ViT, vec![20.0]),
            (Architecture::Mlp, vec![30.0]),
        ];
        let svg = plot(&[Scores { label: "a < b".into(), networks }]);
        assert!(svg.contains("a &lt; b"));
        assert!(svg.contains("<g class=\"proxy\"><line x1=\"620.0\""), "{svg}");
        assert!(svg.contains("cx=\"282.5\""), "25 % of the way from 170 to 620: {svg}");
    }
}
