//! Processes that work on a cache: this test binary once more, told what to do by its environment.

use crate::heard::Heard;
use crate::stub::{Stub, fingerprint, keys, maker, set, write_down};
use diver_loaders::cache::{CacheOptions, Partition, RowKey};
use diver_loaders::refine::Silent;
use diver_loaders::{Cache, CancelToken, Digest, Refinery};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const JOB: &str = "DIVER_CRASH_JOB";
const SCENE: &str = "DIVER_CRASH_SCENE";

/// What a process has to fill.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The cache, as users write it.
    pub(crate) cache: String,
    /// Where refinements are written down.
    pub(crate) log: PathBuf,
    pub(crate) round: u64,
    pub(crate) samples: usize,
    /// How long a micro-batch takes.
    pub(crate) delay: Duration,
    pub(crate) expiry: Duration,
    /// Whether the process gathers parts meanwhile.
    pub(crate) compacts: bool,
    /// Whether it reads every so many rows in the end, and writes down what it read.
    pub(crate) reads: Option<usize>,
}

impl Job {
    /// Starts a process that does this.
    pub(crate) fn start(&self, env: &[(String, String)]) -> Child {
        let mut env = env.to_vec();
        env.push((JOB.to_owned(), serde_json::to_string(self).unwrap()));
        Child::start(&[], "child::fills", &env, None).unwrap()
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn fills() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Job = serde_json::from_str(&job).unwrap();
    let heard = Heard::listen();
    let cache =
        Cache::open(&job.cache).unwrap().with_options(CacheOptions::new().lease_expiry(job.expiry)).unwrap();
    let mut refinery =
        Refinery::new(set(job.samples), Stub::new(&job.log, job.round, job.delay), Some(&cache)).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if job.compacts {
            scope.spawn(|| {
                let partition = cache.images(&fingerprint(job.round)).unwrap();
                while !is_done.load(Ordering::SeqCst) {
                    partition.compact(&CancelToken::new()).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let done = refinery.run(0..job.samples, &CancelToken::new(), &Silent);
        is_done.store(true, Ordering::SeqCst);
        done.unwrap();
    });
    if let Some(every) = job.reads {
        let read = digest(&every_maker(&cache, job.round, job.samples, every), 1);
        write_down(&job.log, std::iter::once(format!("read {read}\n"))).unwrap();
    }
    assert_eq!(heard.warnings(), [""; 0], "there is nothing to warn of");
}

/// Who made the row of each sample that a reader gets who comes anew; `None` where there is none.
pub(crate) fn makers(cache: &Cache, round: u64, samples: usize) -> Vec<Option<u32>> {
    every_maker(cache, round, samples, 1)
}

fn every_maker(cache: &Cache, round: u64, samples: usize, every: usize) -> Vec<Option<u32>> {
    let partition = cache.images(&fingerprint(round)).unwrap();
    let read = |(sample, key)| maker_of(&partition, key, sample);
    keys(samples).iter().enumerate().step_by(every).map(read).collect()
}

/// Who made the row of a sample, if there is one.
pub(crate) fn maker_of(partition: &Partition, key: &RowKey, sample: usize) -> Option<u32> {
    let image = partition.get(key).unwrap()?;
    Some(maker(&image, sample).unwrap_or_else(|| panic!("a wrong row for sample {sample}: {image:?}")))
}

/// A name for what a reader got of every so many rows.
pub(crate) fn digest(makers: &[Option<u32>], every: usize) -> Digest {
    Digest::of(format!("{:?}", makers.iter().step_by(every).collect::<Vec<_>>()).as_bytes())
}

/// A process, which does not outlive its owner.
pub(crate) struct Child {
    process: std::process::Child,
    output: tempfile::NamedTempFile,
}

impl Child {
    /// Starts this binary with one of its ignored tests, through the command `prefix`, as the user `uid`.
    pub(crate) fn start(
        prefix: &[&str],
        test: &str,
        env: &[(String, String)],
        uid: Option<u32>,
    ) -> std::io::Result<Self> {
        let output = tempfile::NamedTempFile::new()?;
        let this = std::env::current_exe()?;
        let mut command = match prefix {
            [] => Command::new(&this),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&this);
                command
            }
        };
        command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.reopen()?).stderr(append(output.path())?);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid).current_dir("/");
        }
        Ok(Self { process: command.spawn()?, output })
    }

    /// Starts a scene that a process of its own plays in `folder`.
    pub(crate) fn play(
        prefix: &[&str],
        scene: &str,
        folder: &Path,
        uid: Option<u32>,
    ) -> std::io::Result<Self> {
        let folder = folder.to_str().unwrap().to_owned();
        Self::start(prefix, scene, &[(SCENE.to_owned(), folder)], uid)
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits until the process ends.
    pub(crate) fn wait(mut self, patience: Duration) {
        let started = Instant::now();
        while self.ended().is_none() {
            assert!(started.elapsed() < patience, "a process is stuck:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
        self.check();
    }

    /// Fails if the process, which has ended, has failed.
    pub(crate) fn check(&mut self) {
        let status = self.ended().unwrap();
        assert!(status.success(), "a process failed: {status}\n{}", self.said());
    }

    /// Kills the process by SIGKILL, if it has not ended by itself; says whether it had not.
    pub(crate) fn kill(mut self) -> bool {
        if self.ended().is_some() {
            self.check();
            return false;
        }
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        if std::os::unix::process::ExitStatusExt::signal(&status) == Some(9) {
            return true;
        }
        // It ended between our look and our signal.
        assert!(status.success(), "a process failed: {status}\n{}", self.said());
        false
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    File::options().append(true).open(path)
}

/// The folder of the scene that this process is to play.
pub(crate) fn scene() -> Option<PathBuf> {
    std::env::var_os(SCENE).map(PathBuf::from)
}
