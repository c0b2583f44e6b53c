//! Why samples are in a cache, or are not.

use super::any::AnyPartition;
use super::listing::{flattened, sort_by_use, summaries};
use crate::Result;
use crate::cache::{Cache, RowKey};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// How many of the nearest fingerprints are told.
const TOLD: usize = 3;

/// What a cache has of a set, refined in one way.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Whether every row that is wanted is there (`hit`), some are (`partly`) or none (`miss`).
    pub verdict: &'static str,
    /// The name of the fingerprint's folder.
    pub name: String,
    /// What makes the images.
    pub fingerprint: Value,
    /// How many rows the set needs: samples with equal content and class need one.
    pub wanted: usize,
    /// How many of them are there.
    pub found: usize,
    /// The other fingerprints of the cache, the most similar first.
    pub neighbours: Vec<Neighbour>,
}

/// Another fingerprint of the cache.
#[derive(Clone, Debug, Serialize)]
pub struct Neighbour {
    /// The name of its folder.
    pub name: String,
    /// How many of the rows that are wanted it has.
    pub found: usize,
    /// Every field in which it differs.
    pub differences: Vec<Difference>,
}

/// A field in which two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its path, as `knobs.steps`.
    pub field: String,
    /// The value that is asked for; `None` where there is no such field.
    pub wanted: Option<Value>,
    /// The neighbour's value.
    pub theirs: Option<Value>,
}

impl Cache {
    /// What the cache has of the rows `keys` under a fingerprint, and in what the fingerprints that it has differ.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn explain(&self, fingerprint: &Value, keys: &BTreeSet<RowKey>) -> Result<Explanation> {
        let name = crate::cache::Fingerprint::new(fingerprint).folder_name();
        let (mut own, mut neighbours) = (0, Vec::new());
        // Each is opened once, which takes as long as it has parts.
        let mut listed = summaries(&*self.store)?;
        sort_by_use(&mut listed);
        for listing in listed {
            let found = AnyPartition::open(self, &listing)?.map_or(0, |partition| partition.count(keys));
            if listing.name == name {
                own = found;
            } else if listing.fingerprint.is_some() {
                let differences = differences(fingerprint, listing.fingerprint.as_ref());
                neighbours.push(Neighbour { name: listing.name, found, differences });
            }
        }
        neighbours.sort_by_key(|neighbour| (neighbour.differences.len(), std::cmp::Reverse(neighbour.found)));
        neighbours.truncate(TOLD);
        let verdict = match own {
            own if own == keys.len() => "hit",
            0 => "miss",
            _ => "partly",
        };
        Ok(Explanation {
            verdict,
            name,
            fingerprint: fingerprint.clone(),
            wanted: keys.len(),
            found: own,
            neighbours,
        })
    }
}

fn differences(wanted: &Value, theirs: Option<&Value>) -> Vec<Difference> {
    let (wanted, theirs) = (flattened(Some(wanted)), flattened(theirs));
    let fields: BTreeSet<&String> = wanted.keys().chain(theirs.keys()).collect();
    let differs = fields.into_iter().filter(|field| wanted.get(*field) != theirs.get(*field));
    differs
        .map(|field| Difference {
            field: field.clone(),
            wanted: wanted.get(field).cloned(),
            theirs: theirs.get(field).cloned(),
        })
        .collect()
}
