//! A path with a scheme is refused at every entrance, and nothing is made of it.
#![allow(clippy::unwrap_used)]

use diver_loaders::export::{ExportFormat, check, export};
use diver_loaders::labels::fkd::SoftLabels;
use diver_loaders::{Cache, CancelToken, ClassMap, Error, MemorySource, OpenOptions, Result, Source, open};
use std::fmt::Debug;
use std::path::Path;

fn refused<T: Debug>(option: &str, outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Config { option: found, .. } if found == option), "{option}: {error:?}");
    assert!(error.to_string().contains("://bucket/x"), "{error}");
}

#[test]
fn every_entrance_refuses_paths_with_a_scheme() {
    let set = MemorySource::unit(1, [3, 1, 1], vec![0.5; 3], vec![0]).unwrap();
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch/small.pt");
    for path in ["s3://bucket/x", "gs://bucket/x", "az://bucket/x", "hf://bucket/x", "https://bucket/x"] {
        refused("source", open(path));
        refused("zca", OpenOptions::new().zca(path).open(&small));
        if !["s3", "gs", "az"].iter().any(|store| path.starts_with(store)) {
            refused("cache", Cache::open(path));
        }
        refused("classes", ClassMap::from_file(path));
        refused("classes", ClassMap::find(path));
        refused("tree", SoftLabels::open(path, &set));
        let output = Path::new(path);
        refused("output", check(set.info(), ExportFormat::Mtt, output));
        let samples = [set.sample(0)];
        refused("output", export(set.info(), samples, ExportFormat::Mtt, output, &CancelToken::new()));
        assert!(!Path::new(path.split('/').next().unwrap()).exists(), "{path} is no folder here");
    }
}

/// What is refused is the scheme, not the name of a folder.
#[cfg(unix)]
#[test]
fn folders_that_are_named_like_a_scheme_are_folders() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path().join("s3:/bucket")).unwrap();
    assert!(cache.root().is_dir());
}

#[cfg(feature = "cli")]
#[test]
fn the_command_refuses_paths_with_a_scheme() {
    use diver_loaders::cli::{DemoArgs, DemoReport, Host, RefinerArgs, run};
    use diver_loaders::{Identity, Refine};

    struct Identities;

    impl Host for Identities {
        fn refiner(&self, _args: &RefinerArgs, _cancel: &CancelToken) -> Result<Box<dyn Refine>> {
            Ok(Box::new(Identity))
        }

        fn demo(&self, _args: &DemoArgs, _cancel: &CancelToken) -> Result<DemoReport> {
            panic!("nothing is demonstrated with paths that are refused")
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch/small.pt");
    let (set, local) = (set.to_str().unwrap(), folder.path().join("cache"));
    let (local, there) = (local.to_str().unwrap(), "s3://bucket/x");
    let sheet = "s3://bucket/x.png";
    for line in [
        &["inspect", there][..],
        &["inspect", set, "--zca", there],
        &["inspect", set, "--classes", there],
        &["refine", there, "--backbone", "x", "--cache", local],
        &["refine", set, "--backbone", "x", "--cache", "hf://bucket/x"],
        &["preview", set, "--backbone", "x", "--cache", local, "-o", sheet],
        &["preview", set, "--backbone", "x", "--cache", "hf://bucket/x", "-o", "sheet.png"],
        &["export", set, "--raw", "--to", "mtt", "-o", there],
        &["export", set, "--backbone", "x", "--cache", "hf://bucket/x", "--to", "mtt", "-o", local],
        &["bench", there, "--backbone", "x"],
        &["demo", "-o", there],
        &["demo", "--examples", there],
    ] {
        let args = ["diver"].iter().chain(line);
        assert_eq!(run(args, &Identities, &CancelToken::new()), 1, "{line:?}");
        assert!(!Path::new("s3:").exists(), "{line:?}");
    }
}
