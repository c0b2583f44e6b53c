//! Scores over seeds, and tables of them.

use std::fmt;

/// Mean and population standard deviation of some scores.
///
/// ```
/// use diver::eval::Summary;
///
/// let summary = Summary::of(&[80.0, 84.0]);
/// assert_eq!((summary.mean, summary.std), (82.0, 2.0));
/// assert_eq!(summary.to_string(), "82.0 ± 2.0");
/// assert_eq!(format!("{summary:.2}"), "82.00 ± 2.00");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean; NaN of no scores.
    pub mean: f64,
    /// Population standard deviation (divided by their number): 0 of one score, NaN of none.
    pub std: f64,
}

impl Summary {
    /// The summary of `scores`.
    pub fn of(scores: &[f64]) -> Self {
        let count = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / count;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
        Self { mean, std: variance.sqrt() }
    }
}

impl fmt::Display for Summary {
    /// `mean ± std`, with one decimal unless told otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(1);
        write!(f, "{:.decimals$} ± {:.decimals$}", self.mean, self.std)
    }
}

/// A table that reads well in a terminal and is Markdown at the same time.
///
/// ```
/// use diver::eval::Table;
///
/// let mut table = Table::new("images", ["ConvNet", "ViT"]);
/// table.row("raw", ["92.7", "23.5"]);
/// table.row("refined", ["93.2", "41.1"]);
/// assert_eq!(
///     table.to_string(),
///     "| images  | ConvNet |  ViT |\n\
///      |:--------|--------:|-----:|\n\
///      | raw     |    92.7 | 23.5 |\n\
///      | refined |    93.2 | 41.1 |\n"
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    /// The header and the rows; the first cell of each is its label.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of no rows, with the heading of its first column and those of the others.
    pub fn new<T: ToString>(corner: &str, columns: impl IntoIterator<Item = T>) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.row(corner, columns);
        table
    }

    /// Appends a row. Missing cells stay empty.
    pub fn row<T: ToString>(&mut self, label: &str, cells: impl IntoIterator<Item = T>) {
        let cells = cells.into_iter().map(|cell| cell.to_string());
        self.rows.push(std::iter::once(label.to_owned()).chain(cells).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &[String], column: usize| row.get(column).map_or("", String::as_str).to_owned();
        let width = |column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                match column {
                    0 => write!(f, "| {:<width$} |", cell(row, column))?,
                    _ => write!(f, " {:>width$} |", cell(row, column))?,
                }
            }
            writeln!(f)?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let rule = "-".repeat(width + 1);
                    if column == 0 { write!(f, "|:{rule}|")? } else { write!(f, "{rule}:|")? }
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_numpys_mean_and_std() {
        let summary = Summary::of(&[15.2, 21.7, 8.9]);
        assert!((summary.mean - 15.266_666_666_666_666).abs() < 1e-12);
        assert!((summary.std - 5.225_790_742_929_617).abs() < 1e-12);
        assert_eq!(Summary::of(&[4.0]).to_string(), "4.0 ± 0.0");
        assert!(Summary::of(&[]).mean.is_nan());
    }

    #[test]
    fn columns_align_and_rows_may_be_short() {
        let mut table = Table::new("set", ["a"]);
        table.row("x ± y", [Summary::of(&[1.0, 3.0])]);
        table.row("z", [] as [&str; 0]);
        let text = table.to_string();
        let lengths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(lengths, [lengths[0]; 4], "{text}");
        assert!(text.contains("| x ± y | 2.0 ± 1.0 |"), "{text}");
    }
}
