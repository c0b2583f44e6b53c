//! What every store has to do, for the tests of this crate and of stores elsewhere.

use super::store::PartStore;
use crate::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use std::thread;

/// Tries a store, which must be empty, and leaves it empty.
///
/// # Panics
/// If the store does anything wrong.
pub fn check(store: &Arc<dyn PartStore>) {
    names_and_bytes(&**store);
    what_is_not_there(&**store);
    one_writer_wins(store);
    for folder in ["one", "two"] {
        for name in store.list(folder).expect("lists") {
            store.delete(&format!("{folder}/{name}")).expect("deletes");
        }
        store.delete_folder(folder).expect("deletes an empty folder");
    }
    assert_eq!(store.folders().expect("lists folders"), Vec::<String>::new());
}

fn names_and_bytes(store: &dyn PartStore) {
    store.make_folder("one").expect("makes a folder");
    store.make_folder("one").expect("a folder that is there is no error");
    store.check_writable("one").expect("is writable");
    assert_eq!(store.list("one").expect("lists"), Vec::<String>::new(), "trying to write leaves nothing");
    store.put("one/a.json", b"{}").expect("puts");
    store.put("one/a.json", b"{\"a\":1}").expect("replaces");
    assert!(store.put_if_absent("one/part-0", b"0123456789").expect("puts what is absent"));
    assert!(!store.put_if_absent("one/part-0", b"x").expect("says that it is there"));
    assert!(store.put_if_absent("two/part-0", b"").expect("makes the folder that it needs"));
    let mut names = store.list("one").expect("lists");
    names.sort_unstable();
    assert_eq!(names, ["a.json", "part-0"]);
    let mut folders = store.folders().expect("lists folders");
    folders.sort_unstable();
    assert_eq!(folders, ["one", "two"]);
    assert_eq!(store.get("one/a.json").expect("gets"), "{\"a\":1}");
    assert_eq!(store.get("two/part-0").expect("gets"), "");
    for (range, expected) in [(0..10, "0123456789"), (3..5, "34"), (8..20, "89"), (10..12, ""), (4..4, "")] {
        let found = store.get_range("one/part-0", range.clone()).expect("gets a range");
        assert_eq!(found, expected, "{range:?}");
    }
    for (length, expected) in [(4, "6789"), (10, "0123456789"), (99, "0123456789")] {
        let tail = store.tail("one/part-0", length).expect("gets the end");
        assert_eq!(tail, (expected.into(), 10), "the last {length}");
    }
    assert_eq!(store.stat("one/part-0").expect("tells").map(|stat| stat.size), Some(10));
    what_is_said_of_files(store);
    store.rename("one/part-0", "one/part-1").expect("renames");
    assert_eq!(store.get("one/part-1").expect("gets"), "0123456789");
    assert_eq!(store.stat("one/part-0").expect("tells"), None);
    assert!(store.put_if_absent("one/part-0", b"y").expect("the old name is free"));
    assert!(store.place("one/part-0").to_string_lossy().ends_with("one/part-0"));
}

fn what_is_said_of_files(store: &dyn PartStore) {
    let mut entries = store.entries("one").expect("lists");
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for ((name, entry), expected) in entries.iter().zip(["a.json", "part-0"]) {
        let stat = store.stat(&format!("one/{name}")).expect("tells").expect("is there");
        assert_eq!((name.as_str(), entry.size, &entry.version), (expected, stat.size, &stat.version));
    }
    assert_eq!(entries.len(), 2);
    store.put("one/a.json", b"{\"a\":2}").expect("replaces");
    let now = store.stat("one/a.json").expect("tells").expect("is there").version;
    assert!(now.is_none() || now != entries[0].1.version, "another file has another version");
    store.put("one/a.json", b"{\"a\":1}").expect("replaces");
}

fn what_is_not_there(store: &dyn PartStore) {
    let tail = store.tail("one/none", 1).map(|(bytes, _)| bytes);
    for result in [tail, store.get("one/none"), store.get("none/none"), store.get_range("one/none", 0..1)] {
        match result {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            other => panic!("expected NotFound, found {other:?}"),
        }
    }
    assert_eq!(store.stat("none/none").expect("tells"), None);
    assert_eq!(store.list("none").expect("lists"), Vec::<String>::new());
    store.delete("none/none").expect("what is not there is deleted");
    store.rename("one/none", "one/other").expect("what is not there is renamed");
    store.delete_folder("none").expect("what is not there is deleted");
    store.delete_folder("one").expect("a folder with files stays");
    assert!(store.stat("one/a.json").expect("tells").is_some());
}

fn one_writer_wins(store: &Arc<dyn PartStore>) {
    for round in 0..8 {
        let name = format!("one/race-{round}");
        let writers = (0..8_u8).map(|writer| {
            let (store, name) = (Arc::clone(store), name.clone());
            thread::spawn(move || store.put_if_absent(&name, &[writer; 1000]).expect("puts"))
        });
        let won: Vec<bool> =
            writers.collect::<Vec<_>>().into_iter().map(|writer| writer.join().expect("ends")).collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "one winner");
        let winner = won.iter().position(|won| *won).expect("there is one");
        assert_eq!(store.get(&name).expect("gets"), vec![winner as u8; 1000], "whole, and the winner's");
    }
}
