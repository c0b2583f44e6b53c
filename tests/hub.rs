//! Repositories from a hub on the loopback, with everything that a network and a hub may do.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says when it is skipped")]

#[path = "common/hub.rs"]
mod server;

use diver::Error;
use server::{
    Files, Hub, NEEDED, Place, Twist, WEIGHTS, autoencoder, files, git_sha1, is_weights, sha256, snapshot,
};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The first request for the weights ends after some bytes.
fn cut_once(hub: &Hub, count: usize) {
    let cuts = AtomicUsize::new(0);
    hub.behave(move |asked| {
        (is_weights(asked) && cuts.fetch_add(1, Ordering::SeqCst) == 0).then_some(Twist::Cut(count))
    });
}

fn assert_whole(folder: &Path) {
    for file in NEEDED {
        assert!(fs::read(folder.join(file)).unwrap() == files()[file], "{file}");
    }
}

#[test]
fn the_first_run_downloads_what_is_needed_and_the_second_nothing() {
    let place = Place::new();
    let folder = place.fetch();
    assert_eq!(folder, place.folder().join("snapshots").join(place.hub.head()));
    assert_whole(&folder);
    assert!(!folder.join("README.md").exists());
    assert_eq!(fs::read_dir(folder.join("transformer")).unwrap().count(), 2);

    place.hub.log();
    assert_eq!(place.fetch(), folder);
    let log = place.hub.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].path, "/api/models/owner/name/revision/main");

    let by_commit = format!("owner/name@{}", place.hub.head());
    assert_eq!(snapshot(&by_commit, &place.options()).unwrap(), folder);
    assert!(place.hub.log().is_empty(), "a commit never changes");
}

#[test]
fn the_cache_has_the_layout_of_python() {
    let place = Place::new();
    let folder = place.fetch();
    assert_eq!(fs::read_to_string(place.folder().join("refs/main")).unwrap(), place.hub.head());
    let mut blobs: Vec<_> = NEEDED
        .iter()
        .map(|file| {
            let bytes = &files()[*file];
            if file.ends_with("safetensors") { sha256(bytes) } else { git_sha1(bytes) }
        })
        .collect();
    blobs.sort();
    let names = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(names(&place.folder().join("blobs")), blobs);
    assert_eq!(names(&place.folder()), ["blobs", "refs", "snapshots"]);
    if cfg!(unix) {
        let link = fs::read_link(folder.join("vae/diffusion_pytorch_model.safetensors")).unwrap();
        assert_eq!(link, Path::new("../../../blobs").join(sha256(b"the vae")));
        let link = fs::read_link(folder.join("model_index.json")).unwrap();
        assert!(link.starts_with("../../blobs"), "{}", link.display());
    }
}

/// Runs Python with `huggingface_hub`, if it is there.
fn python(place: &Place, code: &str) -> Option<String> {
    let interpreter = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let run = |code: &str| {
        Command::new(&interpreter)
            .args(["-c", code])
            .env("HF_HOME", place.home.path())
            .env("HF_ENDPOINT", &place.hub.endpoint)
            .env("HF_HUB_DISABLE_XET", "1")
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("HF_TOKEN")
            .output()
            .ok()
    };
    if !run("import huggingface_hub").is_some_and(|output| output.status.success()) {
        println!("skipped: there is no Python with huggingface_hub");
        return None;
    }
    let output = run(code).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn python_finds_what_was_downloaded_here() {
    let place = Place::new();
    let folder = place.fetch();
    place.hub.log();
    let code = "import huggingface_hub as h; print(h.snapshot_download('owner/name', local_files_only=True)); \
                print(h.hf_hub_download('owner/name', 'vae/config.json', local_files_only=True)); \
                print(h.scan_cache_dir().warnings)";
    let Some(said) = python(&place, code) else { return };
    let folder = folder.display();
    assert_eq!(said, format!("{folder}\n{folder}/vae/config.json\n[]"));
    let log = place.hub.log();
    assert!(!log.iter().any(|asked| asked.path.contains("owner/name")), "{log:?}");
}

#[test]
fn what_python_downloaded_is_found_here() {
    let place = Place::new();
    let code = "import huggingface_hub as h; print(h.snapshot_download('owner/name', allow_patterns=['*.json', \
                '*model.safetensors']))";
    let Some(folder) = python(&place, code) else { return };
    place.hub.log();
    assert_eq!(place.fetch(), Path::new(&folder));
    assert_eq!(place.hub.log().len(), 1, "nothing is downloaded again");
    let mut options = place.options();
    options.offline = true;
    assert_whole(&snapshot("owner/name", &options).unwrap());
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let place = Place::new();
    cut_once(&place.hub, 700_000);
    assert_whole(&place.fetch());
    let log = place.hub.log();
    let ranges: Vec<_> = log.iter().filter(|asked| is_weights(asked)).map(|asked| asked.range).collect();
    assert!(matches!(ranges[..], [None, Some(1..=700_000)]), "{ranges:?}");
}

#[test]
fn another_process_goes_on_where_the_first_was_cut() {
    let place = Place::new();
    place.hub.behave(|asked| is_weights(asked).then_some(Twist::Cut(400_000)));
    let mut options = place.options();
    options.retries = 0;
    let error = snapshot("owner/name", &options).unwrap_err().to_string();
    assert!(error.starts_with(&format!("owner/name: {WEIGHTS}: the connection failed")), "{error}");
    let weights = &files()[WEIGHTS];
    let part = place.folder().join("blobs").join(format!("{}.incomplete", sha256(weights)));
    let length = fs::metadata(&part).unwrap().len();
    assert!(length > 0);
    assert!(!place.folder().join("refs/main").exists(), "what is not whole is not noted");

    place.hub.behave(|_| None);
    place.hub.log();
    assert_whole(&place.fetch());
    let ranges: Vec<_> = place.hub.log().iter().filter(|a| is_weights(a)).map(|a| a.range).collect();
    assert_eq!(ranges, [Some(length)]);
    assert!(!part.exists());
}

#[test]
fn a_part_that_is_wrong_too_long_or_whole_does_no_harm() {
    let weights = &files()[WEIGHTS];
    for (part, requests) in [
        (vec![7; 1000], 2),
        (vec![7; weights.len()], 1),
        (vec![7; weights.len() + 1], 1),
        (weights.clone(), 0),
        (Vec::new(), 1),
    ] {
        let place = Place::new();
        let blobs = place.folder().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", sha256(weights))), &part).unwrap();
        assert_whole(&place.fetch());
        let asked = place.hub.log().iter().filter(|asked| is_weights(asked)).count();
        assert_eq!(asked, requests, "{} bytes", part.len());
    }
}

#[test]
fn a_hub_that_knows_no_ranges_sends_the_whole() {
    let place = Place::new();
    let cuts = AtomicUsize::new(0);
    place.hub.behave(move |asked| match is_weights(asked) {
        true if cuts.fetch_add(1, Ordering::SeqCst) == 0 => Some(Twist::Cut(500_000)),
        true => Some(Twist::Whole),
        false => None,
    });
    assert_whole(&place.fetch());
}

#[test]
fn a_connection_that_never_lasts_gives_up() {
    let place = Place::new();
    place.hub.behave(|asked| is_weights(asked).then_some(Twist::Cut(0)));
    let error = place.fault();
    assert!(error.contains("the connection failed"), "{error}");
    let tries = place.hub.log().iter().filter(|asked| is_weights(asked)).count();
    assert_eq!(tries, 5, "one, and four further ones");
}

#[test]
fn bytes_that_are_not_the_files_are_refused_and_forgotten() {
    let place = Place::new();
    place.hub.behave(|asked| is_weights(asked).then_some(Twist::Damaged));
    let error = place.fault();
    let expected = format!("owner/name: {WEIGHTS}: {} gave a file whose hash is ", place.hub.endpoint);
    assert!(error.starts_with(&expected), "{error}");
    place.hub.behave(|_| None);
    assert_whole(&place.fetch());

    let place = Place::new();
    place.hub.behave(|asked| {
        (asked.method == "GET" && asked.path.ends_with("vae/config.json")).then_some(Twist::Damaged)
    });
    let error = place.fault();
    assert!(error.contains("vae/config.json") && error.contains("whose hash is"), "{error}");
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let place = Place::new();
    place.hub.behave(|asked| {
        is_weights(asked).then_some(Twist::Redirect("/blobs/more".to_owned())).or_else(|| {
            let long = "HTTP/1.1 200 X\r\nconnection: close\r\n\r\nmuch longer than a small file may be";
            (asked.method == "GET" && asked.path.ends_with("vae/config.json")).then_some(Twist::Raw(long))
        })
    });
    let error = place.fault();
    assert!(error.contains("vae/config.json") && error.contains("more than the 13 bytes"), "{error}");
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let place = Place::new();
    place.hub.behave(|asked| {
        (asked.host == "hub" && asked.token.is_none()).then_some(Twist::Status(401, "GatedRepo"))
    });
    let error = place.fault();
    let expected = format!(
        "owner/name: access is granted on request only (\"told by the hub\"): ask for it at {}/owner/name",
        place.hub.endpoint
    );
    assert!(error.starts_with(&expected) && error.contains("set HF_TOKEN"), "{error}");

    fs::write(place.home.path().join("token"), "hf_abc\n").unwrap();
    place.hub.log();
    assert_whole(&place.fetch());
    let log = place.hub.log();
    let tokens = |host| log.iter().filter(move |a| a.host == host).map(|a| a.token.as_deref());
    assert!(tokens("hub").all(|token| token == Some("Bearer hf_abc")));
    assert!(tokens("cdn").count() >= 2 && tokens("cdn").all(|token| token.is_none()), "{log:?}");
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new();
    let mut with_token = place.options();
    with_token.token = Some("hf_abc".to_owned());
    for (status, code, token, expected) in [
        (401, "RepoNotFound", false, "knows no such repository, and there is no such folder here"),
        (401, "", false, "if it is private or gated, set HF_TOKEN"),
        (404, "RepoNotFound", true, "the access token in use gives no right to it"),
        (401, "", true, "refuses the access token in use"),
        (403, "", true, "have no right to read owner/name"),
        (403, "GatedRepo", true, "with the account of the access token in use"),
        (404, "RevisionNotFound", false, "there is no revision `main` of owner/name"),
        (429, "", false, "gets too many requests"),
        (503, "", false, "answered with status 503"),
    ] {
        place.hub.behave(move |_| Some(Twist::Status(status, code)));
        let options = if token { &with_token } else { &place.options() };
        let error = snapshot("owner/name", options).unwrap_err();
        assert!(matches!(error, Error::Hub { .. }));
        let error = error.to_string();
        assert!(error.starts_with("owner/name: ") && error.contains(expected), "{status} {code}: {error}");
        assert!(!error.contains("hf_abc"));
    }
    place.hub.behave(|_| None);
    let error = snapshot("owner/other", &place.options()).unwrap_err().to_string();
    assert!(error.starts_with("owner/other: ") && error.contains("no such repository"), "{error}");
    let error = snapshot("owner/name@v9", &place.options()).unwrap_err().to_string();
    assert!(error.starts_with("owner/name@v9: there is no revision `v9`"), "{error}");
}

#[test]
fn a_hub_that_stumbles_is_asked_again() {
    let place = Place::new();
    let requests = AtomicUsize::new(0);
    place.hub.behave(move |_| {
        (requests.fetch_add(1, Ordering::SeqCst).is_multiple_of(3)).then_some(Twist::Status(503, ""))
    });
    assert_whole(&place.fetch());
}

#[test]
fn revisions_are_branches_requests_and_commits() {
    let place = Place::new();
    let old = place.hub.head();
    let mut newer = files();
    newer.insert("vae/config.json".to_owned(), b"newer".to_vec());
    place.hub.push("refs/pr/1", newer.clone());
    let folder = snapshot("owner/name@refs/pr/1", &place.options()).unwrap();
    assert_eq!(fs::read(folder.join("vae/config.json")).unwrap(), b"newer");
    assert!(place.folder().join("refs/refs/pr/1").is_file());

    place.hub.log();
    let folder = snapshot(&format!("owner/name@{old}"), &place.options()).unwrap();
    assert_whole(&folder);
    let bodies = place.hub.log().iter().filter(|asked| asked.method == "GET").count();
    assert_eq!(bodies, 2, "the listing, and the one file that differs");

    place.fetch();
    newer.insert("vae/config.json".to_owned(), b"newest".to_vec());
    place.hub.push("main", newer);
    assert_eq!(fs::read(place.fetch().join("vae/config.json")).unwrap(), b"newest", "a branch moves on");
}

#[test]
fn offline_means_the_cache_or_nothing() {
    let place = Place::new();
    let mut options = place.options();
    options.offline = true;
    let error = snapshot("owner/name", &options).unwrap_err().to_string();
    assert!(error.starts_with("owner/name: is neither a folder here nor in the cache"), "{error}");
    assert!(place.hub.log().is_empty());

    let folder = place.fetch();
    place.hub.log();
    assert_eq!(snapshot("owner/name", &options).unwrap(), folder);
    let commit = format!("owner/name@{}", place.hub.head());
    assert_eq!(snapshot(&commit, &options).unwrap(), folder);
    assert!(snapshot("owner/name@v2", &options).is_err());
    fs::remove_file(folder.join("vae/config.json")).unwrap();
    let error = snapshot("owner/name", &options).unwrap_err().to_string();
    assert!(
        error.starts_with("owner/name: is in the cache without vae/config.json, and HF_HUB_OFFLINE"),
        "{error}"
    );
    assert!(place.hub.log().is_empty());
}

#[test]
fn without_a_network_the_cache_serves_if_it_can() {
    let place = Place::new();
    let error = snapshot("owner/name", &place.unreachable()).unwrap_err().to_string();
    assert!(error.starts_with("owner/name: is neither a folder here nor in the cache"), "{error}");
    assert!(
        error.contains("and http://127.0.0.1:")
            && error.contains("cannot be reached (")
            && error.contains("check the network"),
        "{error}"
    );

    let folder = place.fetch();
    assert_eq!(snapshot("owner/name", &place.unreachable()).unwrap(), folder);
    place.hub.behave(|_| Some(Twist::Status(500, "")));
    assert_eq!(place.fetch(), folder);
    place.hub.behave(|_| Some(Twist::Status(404, "RevisionNotFound")));
    assert!(
        place.fault().contains("there is no revision"),
        "a revision that is gone is not taken from the cache"
    );

    let mut options = place.unreachable();
    options.endpoint = "http://nowhere.invalid".to_owned();
    assert_eq!(snapshot("owner/name", &options).unwrap(), folder);
}

#[test]
fn a_hub_that_says_nothing_is_left() {
    let place = Place::new();
    place.hub.behave(|_| Some(Twist::Silence(Duration::from_secs(30))));
    let mut options = place.options();
    (options.timeout, options.retries) = (Duration::from_millis(200), 1);
    let begin = Instant::now();
    let error = snapshot("owner/name", &options).unwrap_err().to_string();
    assert!(error.contains("the connection failed (timeout"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_no_hub_says_is_no_panic() {
    let place = Place::new();
    let mut options = place.options();
    options.retries = 1;
    for text in [
        "",
        "\r\n\r\n",
        "hello",
        "HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n<html",
        "HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\n{}",
        "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 X\r\ncontent-length: 24\r\n\r\n{\"sha\":\"../../../../x\"}  ",
        "HTTP/1.1 302 X\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 X\r\nlocation: :::\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 X\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 X\r\n\r\n",
    ] {
        place.hub.behave(move |_| Some(Twist::Raw(text)));
        let error = snapshot("owner/name", &options).unwrap_err();
        assert!(matches!(error, Error::Hub { .. }), "{text:?}: {error}");
    }
    // The same, where files are asked for.
    for text in [
        "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 X\r\netag: \"../../x\"\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 X\r\netag: \"x\"\r\nx-repo-commit: y\r\ncontent-length: 0\r\n\r\n",
    ] {
        place.hub.behave(move |asked| (asked.method == "HEAD").then_some(Twist::Raw(text)));
        let error = snapshot("owner/name", &options).unwrap_err().to_string();
        assert!(error.starts_with("owner/name: model_index.json: "), "{text:?}: {error}");
    }
}

#[test]
fn a_repository_that_was_renamed_is_followed() {
    let place = Place::new();
    place.hub.behave(|asked| {
        let old = asked.path.contains("old/name").then(|| asked.path.replace("old/name", "owner/name"));
        old.map(Twist::Redirect)
    });
    let folder = snapshot("old/name", &place.options()).unwrap();
    assert_whole(&folder);
    assert!(folder.starts_with(place.home.path().join("hub/models--old--name")));
}

#[test]
fn what_is_no_backbone_is_said_to_be_none() {
    let place = Place::new();
    place.hub.push("words", [("config.json".to_owned(), b"{}".to_vec())].into());
    let error = snapshot("owner/name@words", &place.options()).unwrap_err().to_string();
    assert!(error.starts_with("owner/name@words: is no diffusion model of diffusers"), "{error}");
    assert!(error.ends_with("; an autoencoder is named as `vae`"), "{error}");
    let error = autoencoder("owner/name@words", &place.options()).unwrap_err().to_string();
    assert!(error.starts_with("owner/name@words: has no weights that can be read"), "{error}");
    place.hub.push("nothing", Files::new());
    let error = snapshot("owner/name@nothing", &place.options()).unwrap_err().to_string();
    assert!(error.starts_with("owner/name@nothing: is no diffusion model of diffusers"), "{error}");
    let error = autoencoder("owner/name@nothing", &place.options()).unwrap_err().to_string();
    assert!(error.starts_with("owner/name@nothing: has no autoencoder"), "{error}");
}

#[test]
fn an_autoencoder_comes_without_the_rest() {
    let place = Place::new();
    let options = place.options();
    let mut offline = place.options();
    offline.offline = true;
    let asked = || {
        let log = place.hub.log();
        let files = log.iter().filter(|asked| asked.method == "HEAD").map(|asked| &asked.path[..]);
        let names = files.filter_map(|path| path.split_once(&format!("{}/", place.hub.head())));
        names.map(|(_, name)| name.to_owned()).collect::<Vec<_>>()
    };
    let folder = autoencoder("owner/name", &options).unwrap();
    let files = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"];
    assert_eq!(asked(), files);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);

    // What is there serves as an autoencoder, and is no backbone.
    let by_commit = format!("owner/name@{}", place.hub.head());
    assert_eq!(autoencoder("owner/name", &offline).unwrap(), folder);
    assert_eq!(autoencoder(&by_commit, &options).unwrap(), folder);
    assert_eq!(autoencoder("owner/name", &place.unreachable()).unwrap(), folder);
    assert!(place.hub.log().is_empty());
    let error = snapshot("owner/name", &offline).unwrap_err().to_string();
    assert!(error.starts_with("owner/name: is in the cache without model_index.json"), "{error}");
    assert!(snapshot("owner/name", &place.unreachable()).is_err());

    // The rest comes when it is needed.
    assert_eq!(snapshot(&by_commit, &options).unwrap(), folder);
    assert_whole(&folder);
    let came = asked();
    assert_eq!(came.len(), NEEDED.len() - files.len(), "{came:?}");
    assert!(!came.iter().any(|file| file.starts_with("vae")), "{came:?}");
}

#[test]
fn a_whole_backbone_has_an_autoencoder_too() {
    let place = Place::new();
    let folder = place.fetch();
    let mut offline = place.options();
    offline.offline = true;
    assert_eq!(autoencoder("owner/name", &offline).unwrap(), folder);
    fs::remove_file(folder.join("vae/config.json")).unwrap();
    let error = autoencoder("owner/name", &offline).unwrap_err().to_string();
    assert!(error.starts_with("owner/name: is in the cache without vae/config.json"), "{error}");
}

#[test]
fn an_autoencoder_does_not_take_the_place_of_an_older_backbone() {
    let place = Place::new();
    let whole = snapshot("owner/name", &place.options()).unwrap();
    let mut newer = files();
    newer.insert("README.md".to_owned(), "newer".into());
    place.hub.push("main", newer);
    let newer = autoencoder("owner/name", &place.options()).unwrap();
    assert_ne!(newer, whole);
    let mut offline = place.options();
    offline.offline = true;
    assert_eq!(snapshot("owner/name", &offline).unwrap(), whole);
    assert_eq!(autoencoder("owner/name", &offline).unwrap(), whole);
}

#[test]
fn one_network_may_be_all_that_a_repository_has() {
    let place = Place::new();
    let vae = ["README.md", "config.json", "diffusion_pytorch_model.safetensors"];
    place.hub.push("main", vae.map(|file| (file.to_owned(), file.as_bytes().to_vec())).into());
    let folder = autoencoder("owner/name", &place.options()).unwrap();
    assert!(vae.iter().all(|file| folder.join(file).is_file() != (*file == "README.md")));
    let mut offline = place.options();
    offline.offline = true;
    assert_eq!(autoencoder("owner/name", &offline).unwrap(), folder);
    assert!(snapshot("owner/name", &offline).is_err());
}

#[test]
fn a_repository_without_an_index_is_found_in_the_cache() {
    let place = Place::new();
    let mut without = files();
    without.remove("model_index.json");
    place.hub.push("main", without);
    let folder = place.fetch();
    assert!(!folder.join("model_index.json").exists());
    assert_eq!(snapshot("owner/name", &place.unreachable()).unwrap(), folder);
    place.hub.log();
    let mut offline = place.options();
    offline.offline = true;
    assert_eq!(snapshot("owner/name", &offline).unwrap(), folder);
    let by_commit = format!("owner/name@{}", place.hub.head());
    assert_eq!(snapshot(&by_commit, &place.options()).unwrap(), folder);
    assert!(place.hub.log().is_empty(), "a commit never changes");

    for file in [WEIGHTS, "vae/config.json", "scheduler/scheduler_config.json"] {
        let path = folder.join(file);
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        let error = snapshot("owner/name", &offline).unwrap_err().to_string();
        assert!(error.starts_with(&format!("owner/name: is in the cache without {file}, and ")), "{error}");
        fs::rename(&aside, &path).unwrap();
    }
}

#[test]
fn many_at_once_download_once() {
    let place = Place::new();
    place.hub.behave(|asked| is_weights(asked).then_some(Twist::Silence(Duration::from_millis(300))));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_whole(&place.fetch()));
        }
    });
    let log = place.hub.log();
    assert_eq!(log.iter().filter(|asked| is_weights(asked)).count(), 1);
    let leftover = fs::read_dir(place.folder().join("blobs")).unwrap().count();
    assert_eq!(leftover, NEEDED.len());
}

#[test]
fn a_download_can_be_cancelled_and_gone_on_with() {
    let place = Place::new();
    let options = place.options();
    let cancel = options.cancel.clone();
    place.hub.behave(move |asked| {
        if is_weights(asked) {
            cancel.cancel();
        }
        None
    });
    assert!(matches!(snapshot("owner/name", &options), Err(Error::Cancelled)));
    place.hub.behave(|_| None);
    assert_whole(&place.fetch());
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let place = Place::new();
    fs::write(place.home.path().join("hub"), "a file").unwrap();
    let error = place.fault();
    assert!(error.contains("hub") && error.contains("cannot make the folder"), "{error}");
    let mut options = place.options();
    for endpoint in ["", "huggingface.co", "ftp://x", "http://", "http://a b"] {
        options.endpoint = endpoint.to_owned();
        let error = snapshot("owner/name", &options).unwrap_err().to_string();
        assert!(error.starts_with("HF_ENDPOINT: "), "{endpoint}: {error}");
    }
}
