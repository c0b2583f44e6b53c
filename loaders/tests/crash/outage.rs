//! Stores that cannot be reached for a while.

use crate::child::{Child, scene};
use crate::serving::Show;
use crate::sizes::sizes;
use crate::switched::Switched;
use diver_loaders::Cache;

#[test]
fn a_store_that_fails_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let scene = "outage::plays_a_store_that_fails_for_a_while";
    Child::play(&[], scene, folder.path(), None).unwrap().wait(sizes().patience);
}

#[test]
#[ignore = "a process of the other tests"]
fn plays_a_store_that_fails_for_a_while() {
    let Some(folder) = scene() else { return };
    let store = Switched::default();
    let mut show = Show::on(Cache::on(store.clone()), None, &folder);
    show.serve_some();
    store.set_down(true);
    show.serve_all();
    std::thread::sleep(sizes().outage);
    show.serve_all();
    assert!(show.warned_of_the_store() > 0);
    store.set_down(false);
    show.wait_until_written();
    show.end();
}

#[cfg(feature = "cloud")]
#[test]
fn a_bucket_that_answers_503_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let scene = "outage::plays_a_bucket_that_answers_503_for_a_while";
    Child::play(&[], scene, folder.path(), None).unwrap().wait(sizes().patience);
}

/// Requests are repeated for a minute: what lasts no longer is not told, and at the end of it all is there.
#[cfg(feature = "cloud")]
#[test]
#[ignore = "a process of the other tests"]
fn plays_a_bucket_that_answers_503_for_a_while() {
    let Some(folder) = scene() else { return };
    let server = crate::bucket::Server::start();
    let proxy = crate::proxy::Proxy::start(server.port());
    let store = server.store(proxy.port(), "s3://bucket/cache").unwrap();
    let mut show = Show::on(Cache::on(store), Some(server.folder().join("bucket/cache")), &folder);
    show.serve_some();
    proxy.set_down(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(sizes().outage);
            proxy.set_down(false);
        });
        show.serve_all();
    });
    assert!(proxy.refused() > 0, "somebody asked meanwhile");
    show.wait_until_written();
    show.end();
    show.warned_of_the_store();
}
