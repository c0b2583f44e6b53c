//! Disks that are full, folders that cannot be written or that are deleted, under a running loader.
//!
//! Each scene is played by a process of its own: it hears all that this process is told, may need its own file systems or
//! another user, for whom permissions count.

use crate::child::{Child, scene};
use crate::place::all_files;
use crate::serving::Show;
use crate::sizes::sizes;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// A user without rights, if this process may become one.
const NOBODY: u32 = 65534;

/// Plays a scene of this file, in a folder that is given to the user `uid`.
fn play(scene: &str, prefix: &[&str], uid: Option<u32>) {
    let folder = tempfile::tempdir().unwrap();
    if let Some(uid) = uid {
        std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
    }
    let child = Child::play(prefix, &format!("disk::{scene}"), folder.path(), uid).unwrap();
    child.wait(sizes().patience);
}

/// Whom permissions bind: another user, where this process is root.
fn bound_user() -> Result<Option<u32>, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if tempfile::tempfile_in(folder.path()).is_err() {
        return Ok(None);
    }
    let this = std::env::current_exe().unwrap();
    let started = Child::start(&[], "nothing", &[], Some(NOBODY));
    let works = started.map(|child| child.wait(sizes().patience));
    works.map(|()| Some(NOBODY)).map_err(|error| format!("{}: as user {NOBODY}: {error}", this.display()))
}

/// A command that runs another one with a small file system of its own at `folder`, where that is permitted.
fn with_small_disk(folder: &Path) -> Result<[String; 6], String> {
    let mount = format!("mount -t tmpfs -o size=256k,mode=777 tmpfs {} && exec \"$@\"", folder.display());
    let command = ["unshare", "-rm", "sh", "-c", &mount, "sh"].map(str::to_owned);
    let tried = std::process::Command::new(&command[0]).args(&command[1..]).arg("true").output();
    match tried {
        Ok(tried) if tried.status.success() => Ok(command),
        Ok(tried) => Err(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    match with_small_disk(folder.path()) {
        Ok(prefix) => {
            let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
            let child = Child::play(&prefix, "disk::plays_a_full_disk", folder.path(), None).unwrap();
            child.wait(sizes().patience);
        }
        Err(reason) => println!("a full disk: skipped, as nothing can be mounted here: {reason}"),
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn plays_a_full_disk() {
    let Some(folder) = scene() else { return };
    let mut show = Show::begin(&folder.join("cache"), &std::env::temp_dir());
    show.serve_some();
    let ballast = folder.join("ballast");
    // All the room that there is: a write stops where it ends.
    assert!(fs::write(&ballast, vec![1; 1 << 20]).is_err(), "the disk is full");
    show.serve_all();
    show.warned_once_of("No space left");
    fs::remove_file(&ballast).unwrap();
    show.wait_until_written();
    show.end();
}

#[test]
fn a_folder_that_is_read_only() {
    match bound_user() {
        Ok(uid) => play("plays_a_folder_that_is_read_only", &[], uid),
        Err(reason) => println!("a read-only folder: skipped, as permissions bind nobody here: {reason}"),
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn plays_a_folder_that_is_read_only() {
    let Some(folder) = scene() else { return };
    let cache = folder.join("cache");
    let mut before = Show::begin(&cache, &folder);
    before.serve_some();
    before.end_early();
    allow(&cache, false);
    let mut show = before.begin_again();
    show.serve_all();
    show.warned_once_of("Permission denied");
    allow(&cache, true);
    show.wait_until_written();
    show.end();
}

#[test]
fn permissions_that_change() {
    match bound_user() {
        Ok(uid) => play("plays_permissions_that_change", &[], uid),
        Err(reason) => println!("permissions that change: skipped, as they bind nobody here: {reason}"),
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn plays_permissions_that_change() {
    let Some(folder) = scene() else { return };
    let cache = folder.join("cache");
    let mut show = Show::begin(&cache, &folder);
    show.serve_some();
    allow(&cache, false);
    show.serve_all();
    show.warned_once_of("Permission denied");
    allow(&cache, true);
    show.wait_until_written();
    show.end();
}

/// Lets the user write to a cache's folders, or not.
fn allow(cache: &Path, writes: bool) {
    let mode = if writes { 0o755 } else { 0o555 };
    let folders = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    for folder in folders.chain([cache.to_owned()]) {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_cache_that_is_deleted() {
    play("plays_a_cache_that_is_deleted", &[], None);
}

#[test]
#[ignore = "a process of the other tests"]
fn plays_a_cache_that_is_deleted() {
    let Some(folder) = scene() else { return };
    let cache = folder.join("cache");
    let mut show = Show::begin(&cache, &folder);
    show.serve_some();
    fs::remove_dir_all(&cache).unwrap();
    show.serve_all();
    show.warned_once_of("No such file");
    assert!(all_files(&cache).is_empty() && !cache.exists(), "it may be where a disk is mounted");
    fs::create_dir(&cache).unwrap();
    // What was there before it was deleted is gone, and in memory.
    show.wait_until_written_from(show.served_first());
    show.end();
}

/// Only the folder of one fingerprint: it is made again, and nobody is bothered.
#[test]
fn a_partition_that_is_deleted() {
    play("plays_a_partition_that_is_deleted", &[], None);
}

#[test]
#[ignore = "a process of the other tests"]
fn plays_a_partition_that_is_deleted() {
    let Some(folder) = scene() else { return };
    let cache = folder.join("cache");
    let mut show = Show::begin(&cache, &folder);
    show.serve_some();
    for entry in fs::read_dir(&cache).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    show.serve_all();
    show.wait_until_written_from(show.served_first());
    show.end();
    show.warned_of_nothing();
}
