//! Processes that are killed at random instants, one after the other.

use crate::child::{digest, maker_of, makers};
use crate::place::{Place, leftovers};
use crate::sizes::{Random, sizes};
use crate::stub::{BATCH, fingerprint, keys, redone, times_refined};
use diver_loaders::CancelToken;
use std::time::{Duration, Instant};

/// Samples that are filled until the next folder is begun: so many that most processes are killed at work.
const SAMPLES: usize = 96;
/// Rows that are known are read again after so many kills; in between it is their keys that must be there.
const READINGS: usize = 10;
const EXPIRY: Duration = Duration::from_millis(100);

#[test]
fn kills_lose_nothing_in_a_folder() {
    kills_lose_nothing("a folder", &Place::folder(), sizes().kills, Duration::from_millis(300));
}

#[cfg(feature = "cloud")]
#[test]
fn kills_lose_nothing_in_a_bucket() {
    kills_lose_nothing("a bucket", &Place::bucket(), sizes().bucket_kills, Duration::from_millis(600));
}

/// Kills a process at a random instant of its life, looks whether everything is there that was, and starts another one.
/// A third of them gather parts meanwhile. Then one process ends what was begun, undisturbed. `longest` is the longest
/// that a process lives: long enough to start, to wait for what a dead one held, and to go on.
fn kills_lose_nothing(name: &str, place: &Place, wanted: usize, longest: Duration) {
    let (sizes, started) = (sizes(), Instant::now());
    let mut random = Random::announced(name);
    let cache = place.cache();
    let (mut round, mut kills, mut all_redone, mut most_left) = (0, 0, 0, 0);
    let keys = keys(SAMPLES);
    // Who made the row of each sample, as it was first read.
    let mut known = vec![None; SAMPLES];
    while kills < wanted {
        let mut job = place.job(round, SAMPLES, EXPIRY);
        job.compacts = random.below(3) == 0;
        let child = job.start(&place.env());
        std::thread::sleep(random.time(longest));
        let was_killed = child.kill();
        kills += usize::from(was_killed);
        most_left = most_left.max(leftovers(&place.on_disk()).len());
        let partition = cache.images(&fingerprint(round)).unwrap();
        for (sample, (known, key)) in known.iter_mut().zip(&keys).enumerate() {
            if known.is_some() && was_killed && !kills.is_multiple_of(READINGS) {
                assert!(partition.contains(key), "sample {sample} is lost");
                continue;
            }
            let found = maker_of(&partition, key, sample);
            assert!(known.is_none() || *known == found, "sample {sample} was {known:?} and is {found:?}");
            *known = found;
        }
        if !was_killed {
            assert!(known.iter().all(Option::is_some), "a process that ended has filled the cache");
            all_redone += redone(&place.log(), round, SAMPLES);
            (round, known) = (round + 1, vec![None; SAMPLES]);
        }
    }
    let mut last = place.job(round, SAMPLES, EXPIRY);
    last.reads = Some(1);
    last.start(&place.env()).wait(sizes.patience);
    let found = makers(&cache, round, SAMPLES);
    assert!(known.iter().zip(&found).all(|(known, found)| known.is_none() || known == found));
    assert!(
        std::fs::read_to_string(place.log()).unwrap().ends_with(&format!("read {}\n", digest(&found, 1)))
    );
    all_redone += redone(&place.log(), round, SAMPLES);

    let verified = cache.verify(&CancelToken::new(), &|_, _| ()).unwrap();
    assert!(verified.damaged.is_empty() && verified.faults.is_empty(), "{verified:?}");
    for round in 0..=round {
        assert!(times_refined(&place.log(), round, SAMPLES).iter().all(|times| *times > 0));
        assert!(makers(&cache, round, SAMPLES).iter().all(Option::is_some));
    }
    let left = leftovers(&place.on_disk());
    println!(
        "{name}: {kills} kills, {} folders filled, {all_redone} samples redone in micro-batches of {BATCH}, at most \
         {most_left} leftovers between kills, {} in the end, {:.0?}",
        round + 1,
        left.len(),
        started.elapsed()
    );
    assert!(all_redone <= kills * BATCH, "at most one micro-batch is redone for each kill");
    assert!(left.is_empty(), "{left:?}");
}
