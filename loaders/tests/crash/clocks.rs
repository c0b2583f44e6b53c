//! Clocks that jump: files that are far older, or younger, than they are.

use crate::child::{Child, makers};
use crate::place::{Place, all_files, leftovers};
use crate::sizes::{Random, sizes};
use crate::stub::{fingerprint, keys, redone};
use crate::switched::Switched;
use diver_loaders::{Cache, CancelToken};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

const SAMPLES: usize = 120;
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Gives every file in a folder a time that is random: a century ago, now, or in a century.
fn meddle(folder: &Path, random: &mut Random) {
    let now = SystemTime::now();
    for path in all_files(folder) {
        let time = [SystemTime::UNIX_EPOCH, now, now + CENTURY][random.below(3)];
        // It may be gone by now, or be a folder.
        if let Ok(file) = File::options().write(true).open(path) {
            let _ = file.set_modified(time);
        }
    }
}

#[test]
fn nobody_is_misled_by_clocks_in_a_folder() {
    nobody_is_misled("clocks, a folder", &Place::folder());
}

#[cfg(feature = "cloud")]
#[test]
fn nobody_is_misled_by_clocks_in_a_bucket() {
    nobody_is_misled("clocks, a bucket", &Place::bucket());
}

/// Three processes work while the times of all files jump: none takes another one for dead, nor what another one is
/// writing for a leftover.
fn nobody_is_misled(name: &str, place: &Place) {
    let mut random = Random::announced(name);
    let is_done = AtomicBool::new(false);
    let job = place.job(0, SAMPLES, Duration::from_secs(30));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                meddle(&place.on_disk(), &mut random);
                // Whoever opens the folder tidies it up.
                place.cache().images(&fingerprint(0)).unwrap();
            }
        });
        let children: Vec<Child> = (0..3).map(|_| job.start(&place.env())).collect();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            children.into_iter().for_each(|child| child.wait(sizes().patience));
        }));
        is_done.store(true, Ordering::SeqCst);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(makers(&place.cache(), 0, SAMPLES).iter().all(Option::is_some));
    assert_eq!(redone(&place.log(), 0, SAMPLES), 0, "no sample is refined twice");
    assert_eq!(leftovers(&place.on_disk()), Vec::<std::path::PathBuf>::new());
}

/// What a dead process held is free after the term, whenever its lease says that it was written.
#[test]
fn a_lease_of_the_future_expires() {
    let place = Place::folder();
    let mut random = Random::announced("a lease of the future");
    let mut job = place.job(0, SAMPLES, Duration::from_millis(500));
    job.delay = Duration::from_millis(50);
    let child = job.start(&place.env());
    let begun = Instant::now();
    while crate::stub::times_refined(&place.log(), 0, SAMPLES).iter().all(|times| *times == 0) {
        assert!(begun.elapsed() < sizes().patience, "nobody works:\n{}", child.said());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.kill(), "it was at work");
    assert!(!leftovers(&place.on_disk()).is_empty(), "it held something");
    meddle(&place.on_disk(), &mut random);
    for path in leftovers(&place.on_disk()) {
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() + CENTURY).unwrap();
    }
    job.delay = Duration::from_millis(1);
    let begun = Instant::now();
    job.start(&place.env()).wait(sizes().patience);
    println!("a lease of the future: was waited for {:.1?}", begun.elapsed());
    assert!(makers(&place.cache(), 0, SAMPLES).iter().all(Option::is_some));
    assert_eq!(leftovers(&place.on_disk()), Vec::<std::path::PathBuf>::new());
}

/// Files of any age are read, gathered and checked.
#[test]
fn old_files_are_as_good_as_new_ones() {
    let store = Switched::default();
    let cache = Cache::on(store.clone());
    let rows = crate::damage::rows(1, &keys(8));
    for (jump, rows) in
        [Duration::ZERO, CENTURY, Duration::from_secs(1), CENTURY / 2].into_iter().zip(rows.chunks(2))
    {
        store.set_jump(jump);
        cache.images(&fingerprint(0)).unwrap().commit(rows, &["cat".to_owned()]).unwrap();
    }
    assert_eq!(cache.images(&fingerprint(0)).unwrap().compact(&CancelToken::new()).unwrap().gathered, 4);
    assert!(makers(&cache, 0, 8).iter().all(|maker| *maker == Some(1)));
}
