//! Eight processes that fill one cache.

use crate::child::{Child, digest, makers};
use crate::place::{Place, leftovers};
use crate::sizes::{Random, sizes};
use crate::stub::{BATCH, redone};
use diver_loaders::CancelToken;
use std::time::{Duration, Instant};

const PROCESSES: usize = 8;

/// As long as leases last by default: longer than a process on a busy machine stands still.
const CALM: Duration = Duration::from_secs(30);

#[test]
fn a_crowd_refines_each_sample_once_in_a_folder() {
    fill("eight processes, a folder", &Place::folder(), sizes().crowd, 0, 1);
}

#[test]
fn a_crowd_of_which_some_are_killed_redoes_little_in_a_folder() {
    fill("eight processes, kills, a folder", &Place::folder(), sizes().crowd, sizes().crowd_kills, 1);
}

#[cfg(feature = "cloud")]
#[test]
fn a_crowd_refines_each_sample_once_in_a_bucket() {
    fill("eight processes, a bucket", &Place::bucket(), sizes().bucket_crowd, 0, sizes().bucket_reading);
}

#[cfg(feature = "cloud")]
#[test]
fn a_crowd_of_which_some_are_killed_redoes_little_in_a_bucket() {
    fill(
        "eight processes, kills, a bucket",
        &Place::bucket(),
        sizes().bucket_crowd,
        sizes().crowd_kills,
        sizes().bucket_reading,
    );
}

/// Has eight processes refine `samples` samples; each of them reads every `reading`th row in the end.
fn fill(name: &str, place: &Place, samples: usize, kills: usize, reading: usize) {
    let (sizes, begun) = (sizes(), Instant::now());
    let mut random = Random::announced(name);
    let mut job = place.job(0, samples, if kills == 0 { CALM } else { sizes.expiry });
    job.reads = Some(reading);
    // Long enough that those who start last find work.
    job.delay = Duration::from_millis(20);
    let mut children: Vec<Child> = (0..PROCESSES).map(|_| job.start(&place.env())).collect();
    let mut killed = 0;
    while killed < kills {
        // Each after some more work, and the last long before the end.
        let enough = (killed + 1) * samples / (2 * kills + 2);
        let begun = Instant::now();
        while refined(place, samples) < enough {
            assert!(begun.elapsed() < sizes.patience, "nobody works:\n{}", children[0].said());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(random.time(Duration::from_millis(20)));
        let victim = children.swap_remove(random.below(children.len()));
        killed += usize::from(victim.kill());
        children.push(job.start(&place.env()));
    }
    children.into_iter().for_each(|child| child.wait(sizes.patience));

    let cache = place.cache();
    let found = makers(&cache, 0, samples);
    assert!(found.iter().all(Option::is_some), "every sample is there");
    let log = std::fs::read_to_string(place.log()).unwrap();
    let read: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("read ")).collect();
    assert_eq!(read, vec![digest(&found, reading).to_string(); PROCESSES], "all read the same");
    let makers: std::collections::BTreeSet<_> = found.iter().flatten().collect();
    let duplicates = redone(&place.log(), 0, samples);
    let verified = cache.verify(&CancelToken::new(), &|_, _| ()).unwrap();
    let left = leftovers(&place.on_disk());
    println!(
        "{name}: {samples} samples by {} processes, {kills} of them killed, {duplicates} refined twice, {} leftovers, {:.1?}",
        makers.len(),
        left.len(),
        begun.elapsed()
    );
    assert!(makers.len() > 1, "more than one has worked");
    assert!(verified.damaged.is_empty() && verified.faults.is_empty(), "{verified:?}");
    // With the full sizes this is less than one in two hundred.
    assert!(duplicates <= kills * BATCH, "{duplicates} samples were refined twice");
    assert!(left.is_empty(), "{left:?}");
}

/// How many refinements have begun.
fn refined(place: &Place, samples: usize) -> usize {
    crate::stub::times_refined(&place.log(), 0, samples).iter().sum()
}
