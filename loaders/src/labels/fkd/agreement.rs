//! How far a teacher's labels agree with the classes of the images that they are taken to be of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Rows that are compared to tell orders apart: so many for each class that chance, which is right once in as many rows
/// as there are classes, stays below what is asked of the teacher.
const ROWS_OF_EACH_CLASS: usize = 4;
/// The fewest rows, if there are as many, where classes are few.
const LEAST_ROWS: usize = 64;
/// Rows of each class that seems to be taken for another one, if there are as many.
const ROWS_OF_SUSPECTS: usize = 16;

/// By how much the teacher must agree with the folders' classes more often than chance would.
const ABOVE_CHANCE: f64 = 4.0;
/// How often a teacher may take a class for one other class without its images being of that one. (Those who know the
/// images rarely reach a tenth.)
const CONFUSED: f64 = 0.3;
/// How unlikely confusion must be as the reason that classes are taken for one another in a cycle.
const UNLIKELY: f64 = 1e-4;

/// Counts of what a teacher said of the images of each class.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    said: BTreeMap<usize, HashMap<usize, usize>>,
    rows: usize,
    agreed: usize,
    classes: usize,
}

impl Agreement {
    /// Adds a row: an image of `class` of which the teacher said `said`, one of `classes`.
    pub(super) fn add(&mut self, class: usize, said: usize, classes: usize) {
        *self.said.entry(class).or_default().entry(said).or_default() += 1;
        self.rows += 1;
        self.agreed += usize::from(class == said);
        self.classes = classes;
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The share of rows in which the teacher says the image's class.
    pub(super) fn share(&self) -> f64 {
        self.agreed as f64 / self.rows.max(1) as f64
    }

    pub(super) fn is_above_chance(&self) -> bool {
        self.share() > (ABOVE_CHANCE / self.classes.max(1) as f64).min(0.5)
    }

    /// Whether more rows would tell more.
    pub(super) fn wants_more(&self) -> bool {
        let is_few = self.rows < (ROWS_OF_EACH_CLASS * self.classes).max(LEAST_ROWS);
        let is_unsure =
            |cycle: &[(usize, usize)]| cycle.iter().any(|(class, _)| self.rows_of(*class) < ROWS_OF_SUSPECTS);
        is_few || self.is_above_chance() && self.cycles().iter().any(|cycle| is_unsure(cycle))
    }

    /// Classes that are mostly taken for one another in a cycle, each with what it is taken for, if a teacher that
    /// confuses classes is unlikely to do so: of two that it cannot tell apart, it says the same. Where class folders are
    /// numbered in another order, it says of each what another one is.
    pub(super) fn cycle(&self) -> Option<Vec<(usize, usize)>> {
        self.cycles().into_iter().find(|cycle| {
            let likelihood: f64 = cycle
                .iter()
                .map(|(class, said)| likelihood(self.said[class][said], self.rows_of(*class)).ln())
                .sum();
            likelihood < UNLIKELY.ln()
        })
    }

    fn rows_of(&self, class: usize) -> usize {
        self.said.get(&class).map_or(0, |said| said.values().sum())
    }

    /// What a teacher says of more than half of the images of a class, if it is another class.
    fn taken_for(&self, class: usize) -> Option<usize> {
        let said = self.said.get(&class)?;
        let (most, count) = said.iter().max_by_key(|(_, count)| **count)?;
        (*most != class && 2 * count > self.rows_of(class)).then_some(*most)
    }

    fn cycles(&self) -> Vec<Vec<(usize, usize)>> {
        let (mut cycles, mut seen) = (Vec::new(), BTreeSet::new());
        for start in self.said.keys().copied() {
            let mut path: Vec<(usize, usize)> = Vec::new();
            let mut class = start;
            while seen.insert(class)
                && let Some(said) = self.taken_for(class)
            {
                path.push((class, said));
                class = said;
            }
            if let Some(first) = path.iter().position(|(other, _)| *other == class) {
                cycles.push(path.split_off(first));
            }
        }
        cycles
    }
}

/// How likely it is that a class is taken for another one in `count` of `rows`, where this happens to the share
/// [`CONFUSED`] of its rows.
fn likelihood(count: usize, rows: usize) -> f64 {
    let ways: f64 = (0..count).map(|i| (rows - i) as f64 / (count - i) as f64).product();
    ways * CONFUSED.powf(count as f64) * (1.0 - CONFUSED).powf((rows - count) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(rows: &[(usize, usize, usize)]) -> Agreement {
        let mut agreement = Agreement::default();
        for (class, said, count) in rows {
            (0..*count).for_each(|_| agreement.add(*class, *said, 10));
        }
        agreement
    }

    #[test]
    fn classes_in_another_order_are_seen() {
        let others: Vec<(usize, usize, usize)> = (4..10).map(|class| (class, class, 16)).collect();
        let cycle = |rows: &[(usize, usize, usize)]| agreement(&[rows, &others].concat()).cycle();
        assert_eq!(cycle(&[(0, 1, 16), (1, 0, 16)]), Some(vec![(0, 1), (1, 0)]));
        assert_eq!(cycle(&[(0, 1, 12), (0, 0, 4), (1, 0, 12), (1, 5, 4)]), Some(vec![(0, 1), (1, 0)]));
        assert_eq!(cycle(&[(0, 2, 4), (2, 3, 4), (3, 0, 4)]), Some(vec![(0, 2), (2, 3), (3, 0)]));
        // A few rows of each, as of one image a class.
        assert_eq!(cycle(&[(0, 1, 4), (1, 0, 4)]), Some(vec![(0, 1), (1, 0)]));
        for rows in [
            // All agree.
            &[(0, 0, 16), (1, 1, 16)][..],
            // Two classes that the teacher cannot tell apart.
            &[(0, 1, 16), (1, 1, 16)],
            &[(0, 1, 9), (0, 0, 7), (1, 0, 7), (1, 1, 9)],
            // Too few rows to say so.
            &[(0, 1, 1), (1, 0, 1)],
            &[(0, 1, 2), (0, 0, 1), (1, 0, 2), (1, 1, 1)],
            // It leads into what is recognised.
            &[(0, 1, 16), (1, 4, 16)],
            &[],
        ] {
            assert_eq!(cycle(rows), None, "{rows:?}");
        }
    }

    #[test]
    fn rows_are_asked_for_until_they_tell() {
        assert!(Agreement::default().wants_more() && agreement(&[(0, 0, 63)]).wants_more());
        assert!(!agreement(&[(0, 0, 64)]).wants_more());
        let suspects = |rows| agreement(&[(0, 1, rows), (1, 0, rows), (2, 2, 64)]);
        assert!(suspects(15).wants_more() && !suspects(16).wants_more());
        // What is refused in any case wants no more.
        assert!(!agreement(&[(0, 1, 40), (1, 0, 10), (2, 3, 40)]).wants_more());
        assert!(!Agreement::default().is_above_chance() && Agreement::default().cycle().is_none());
    }
}
