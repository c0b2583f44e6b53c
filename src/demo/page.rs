//! The demonstration as one HTML page that needs nothing beside it.

use super::exhibit::Strip;
use super::markup::escaped;
use super::plot::plot;
use super::rows::Row;
use super::{PROXY, Results, cells};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use diver_loaders::{Result, Sheet};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(results: &[Results]) -> Result<String> {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>diver: what refinement changes</title>\n<style>\n{STYLE}</style>\n<body>\n\
         <h1>What refinement changes</h1>\n\
         <p>Distilled images are made on one small network (here a {PROXY}) and teach others little. \
         <b>diver</b> refines them with a diffusion model. Below: images of each set before and after, and how well \
         networks recognise real images after training on nothing but these. Every row has the same number of images \
         and the same training; the rows between raw and DIVER show what its parts do alone.</p>\n"
    );
    for result in results {
        section(&mut html, result)?;
    }
    html.push_str("</body>\n</html>\n");
    Ok(html)
}

fn section(html: &mut String, result: &Results) -> Result<()> {
    // Writing to a string does not fail.
    let _ = writeln!(html, "<h2>{}</h2>\n<p>The set: {}.</p>", result.exhibit.title, result.exhibit.set);
    html.push_str("<figure class=\"strips\">\n");
    for strip in &result.strips {
        let class = if strip.row == Row::Preset { " class=\"ours\"" } else { "" };
        let label = escaped(strip.row.label());
        let _ = writeln!(
            html,
            "<div{class}><span>{label}</span><img alt=\"{label}\" src=\"data:image/png;base64,{}\"></div>",
            STANDARD.encode(picture(strip)?)
        );
    }
    let seeds = result.scores.first().and_then(|row| row.networks.first()).map_or(0, |(_, s)| s.len());
    let _ = writeln!(
        html,
        "</figure>\n<p>Per cent of {} real test images recognised; {}. <i>Unseen</i> is the mean of the networks that \
         the set was not distilled on. In the plot: <span class=\"key unseen\">unseen</span>, \
         <span class=\"key proxy\">{PROXY}</span>.</p>",
        result.test_images,
        if seeds > 1 {
            format!("mean ± standard deviation over {seeds} seeds")
        } else {
            "one seed".to_owned()
        },
    );
    html.push_str(&plot(&result.scores));
    table(html, result);
    Ok(())
}

fn table(html: &mut String, result: &Results) {
    html.push_str("<table>\n<tr><th>trained on</th>");
    for (network, _) in result.scores.first().map_or(&[][..], |row| &row.networks) {
        let _ = write!(html, "<th>{network}</th>");
    }
    html.push_str("<th>unseen</th></tr>\n");
    for row in &result.scores {
        let ours = if row.label == Row::Preset.label() { " class=\"ours\"" } else { "" };
        let _ = write!(html, "<tr{ours}><th>{}</th>", escaped(&row.label));
        for cell in cells(row) {
            let _ = write!(html, "<td>{cell}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
}

fn picture(strip: &Strip) -> Result<Vec<u8>> {
    Sheet::new(2, 1)?.row(strip.images.clone()).to_image()?.to_png()
}
