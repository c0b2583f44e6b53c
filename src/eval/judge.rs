//! Many trainings under one recipe: sets by networks by seeds.

use super::{Architecture, Network, Recipe, Summary, accuracy, endless, labelled, parallel, train};
use diver_loaders::{CancelToken, Error, Loader, Result, Source, SourceInfo};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use tch::{Device, Tensor};

/// Trains networks on sets and tests each on the same real images: every set with every architecture from every seed,
/// on the CPU, several trainings at once.
///
/// ```
/// use diver::eval::{Architecture, Candidate, Judge, Recipe};
/// use diver_loaders::{CancelToken, Loader, MemorySource};
///
/// // Two classes, told apart by their brightness.
/// let pixels = [vec![0.0; 3 * 32 * 32], vec![1.0; 3 * 32 * 32]].concat();
/// let set = MemorySource::unit(2, [3, 32, 32], pixels, vec![0, 1])?;
/// let raw = Candidate::new("raw", |seed| Loader::builder(set.clone()).shuffle(true).seed(seed).build());
///
/// let judge = Judge::new(&set)?
///     .networks(vec![Architecture::Mlp])
///     .seeds(2)
///     .recipe(Recipe { steps: 5, ..Recipe::default() });
/// let scores = judge.run(&[raw], &CancelToken::new(), &|_, _| ())?;
/// assert_eq!(scores[0].summary(&[Architecture::Mlp]).unwrap().to_string(), "100.0 ± 0.0");
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug)]
pub struct Judge {
    networks: Vec<Architecture>,
    seeds: u64,
    recipe: Recipe,
    threads: usize,
    /// Images and labels. (Threads may hand tensors on, but not look at one together.)
    test: Mutex<(Tensor, Tensor)>,
    info: SourceInfo,
}

/// A set to judge: its name, and how it is streamed under a seed.
pub struct Candidate<'a> {
    label: String,
    stream: Box<dyn Fn(u64) -> Result<Loader> + Send + Sync + 'a>,
}

impl std::fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<'a> Candidate<'a> {
    /// A set named `label`. `stream` makes its loader for one training; it is called once for each, and from several
    /// threads.
    pub fn new(label: impl Into<String>, stream: impl Fn(u64) -> Result<Loader> + Send + Sync + 'a) -> Self {
        Self { label: label.into(), stream: Box::new(stream) }
    }
}

/// What networks learned from one set.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The set's name.
    pub label: String,
    /// For each architecture the accuracy, in per cent, of every seed.
    pub networks: Vec<(Architecture, Vec<f64>)>,
}

impl Scores {
    /// Mean and standard deviation over the seeds, of the mean over some `architectures`. `None` if one of them was
    /// not trained, none is given, or their numbers of seeds differ.
    pub fn summary(&self, architectures: &[Architecture]) -> Option<Summary> {
        let of =
            |wanted| self.networks.iter().find(|(trained, _)| *trained == wanted).map(|(_, scores)| scores);
        let chosen: Vec<&Vec<f64>> = architectures.iter().map(|a| of(*a)).collect::<Option<_>>()?;
        let seeds = chosen.first()?.len();
        if chosen.iter().any(|scores| scores.len() != seeds) {
            return None;
        }
        let mean = |seed: usize| chosen.iter().map(|scores| scores[seed]).sum::<f64>() / chosen.len() as f64;
        Some(Summary::of(&(0..seeds).map(mean).collect::<Vec<_>>()))
    }
}

impl Judge {
    /// A judge with the real images of `test`, in the normalised space of its [`info`](Source::info), which must be
    /// that of the sets to judge. Both may have a single channel; if only one has, the constants of that space must be
    /// the same for every channel. All architectures, three seeds and the default recipe, unless told otherwise.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn new(test: &dyn Source) -> Result<Self> {
        Ok(Self {
            networks: Architecture::ALL.to_vec(),
            seeds: 3,
            recipe: Recipe::default(),
            threads: thread::available_parallelism().map_or(1, usize::from),
            test: Mutex::new(labelled(test)?),
            info: test.info().clone(),
        })
    }

    /// Which networks are trained.
    #[must_use]
    pub fn networks(mut self, networks: Vec<Architecture>) -> Self {
        self.networks = networks;
        self
    }

    /// How many times each is trained: with the seeds from 0 on, which decide the initial weights, the shifts and,
    /// in the hands of the candidate, order and choice of the images. At least 1.
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds.max(1);
        self
    }

    /// How they are trained; its seed is replaced by each seed in turn.
    #[must_use]
    pub fn recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// How many trainings run at once, each on one thread of torch's if the caller has set that number
    /// (`tch::set_num_threads(1)`, which is the fastest for networks this small). As many as there are processors
    /// unless told otherwise; at least 1. Results do not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// How many real images there are.
    pub fn test_images(&self) -> usize {
        self.info.num_samples
    }

    /// The scores of every candidate, in their order. `progress` hears, from the threads that train, how many
    /// trainings of all are done.
    ///
    /// # Errors
    /// The first training that fails, after which no other starts; [`Error::Cancelled`] soon after `cancel` is set.
    pub fn run(
        &self,
        candidates: &[Candidate<'_>],
        cancel: &CancelToken,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<Scores>> {
        let jobs: Vec<(&Candidate<'_>, Architecture, u64)> = candidates
            .iter()
            .flat_map(|candidate| self.networks.iter().map(move |network| (candidate, *network)))
            .flat_map(|(candidate, network)| (0..self.seeds).map(move |seed| (candidate, network, seed)))
            .collect();
        let done = AtomicUsize::new(0);
        let results = parallel::map(&jobs, self.threads, cancel, |&(candidate, network, seed)| {
            let score = self.score(candidate, network, seed, cancel)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
            Ok(score)
        })?;
        let mut by_network = results.chunks(self.seeds as usize).map(<[f64]>::to_vec);
        let scores = |candidate: &Candidate<'_>| Scores {
            label: candidate.label.clone(),
            networks: self.networks.iter().copied().zip(by_network.by_ref()).collect(),
        };
        Ok(candidates.iter().map(scores).collect())
    }

    /// Refuses a set in another space than the test images: its scores would look plausible and be wrong.
    fn check(&self, label: &str, set: &SourceInfo) -> Result<()> {
        let test = &self.info;
        // A single channel is normalised as the first of three would be, and then repeated.
        let by_channel =
            [test.normalize.mean, test.normalize.std].iter().any(|of| of.iter().any(|n| *n != of[0]));
        let same = "the same options";
        let (differs, with) = if set.normalize != test.normalize {
            (format!("normalised with {:?}, the test images with {:?}", set.normalize, test.normalize), same)
        } else if set.num_classes != test.num_classes {
            (format!("{} classes, the test images have {}", set.num_classes, test.num_classes), same)
        } else if set.shape[1..] != test.shape[1..] {
            (format!("images of shape {:?}, the test images of {:?}", set.shape, test.shape), same)
        } else if set.shape[0] != test.shape[0] && by_channel {
            let (set, test, by) = (set.shape[0], test.shape[0], test.normalize);
            let differs = format!(
                "{set} channels, the test images have {test}, and each has constants of its own in {by:?}"
            );
            (differs, "one mean and one std for all channels")
        } else {
            return Ok(());
        };
        Err(Error::config("candidate", format!("{label}: {differs}; open both with {with}")))
    }

    /// The accuracy of one network after one training, per cent.
    fn score(
        &self,
        candidate: &Candidate<'_>,
        architecture: Architecture,
        seed: u64,
        cancel: &CancelToken,
    ) -> Result<f64> {
        let mut loader = (candidate.stream)(seed)?;
        self.check(&candidate.label, loader.info())?;
        let (side, classes) = (self.info.shape[1], self.info.num_classes);
        let mut network = Network::new(architecture, side, classes, seed, Device::Cpu)?;
        let batches = endless(&mut loader, Device::Cpu).map(|batch| cancel.check().and(batch));
        train(&mut network, batches, &Recipe { seed, ..self.recipe.clone() })?;
        let (images, labels) = {
            let test = self.test.lock().unwrap_or_else(PoisonError::into_inner);
            (test.0.shallow_clone(), test.1.shallow_clone())
        };
        Ok(100.0 * accuracy(&network, &images, &labels)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diver_loaders::{MemorySource, Normalize};

    fn set() -> MemorySource {
        let pixels = (0..4 * 3 * 32 * 32).map(|i| (i as f32).sin().abs()).collect();
        MemorySource::unit(4, [3, 32, 32], pixels, vec![0, 1, 2, 3]).unwrap()
    }

    fn judge(threads: usize) -> Judge {
        Judge::new(&set())
            .unwrap()
            .networks(vec![Architecture::Mlp, Architecture::ConvNet])
            .seeds(2)
            .threads(threads)
            .recipe(Recipe { steps: 3, ..Recipe::default() })
    }

    fn candidates() -> Vec<Candidate<'static>> {
        let stream = |seed| Loader::builder(set()).batch_size(2).shuffle(true).seed(seed).build();
        vec![Candidate::new("a", stream), Candidate::new("b", stream)]
    }

    #[test]
    fn scores_depend_on_the_seed_and_not_on_threads() {
        let progress = Mutex::new(Vec::new());
        let one = judge(1).run(&candidates(), &CancelToken::new(), &|done, of| {
            progress.lock().unwrap().push((done, of));
        });
        let one = one.unwrap();
        assert_eq!(*progress.lock().unwrap(), (1..=8).map(|done| (done, 8)).collect::<Vec<_>>());
        assert_eq!(one, judge(4).run(&candidates(), &CancelToken::new(), &|_, _| ()).unwrap());
        assert_eq!((one[0].label.as_str(), one[1].label.as_str()), ("a", "b"));
        assert_eq!(one[0].networks, one[1].networks, "equal sets under equal seeds");
        assert_eq!(
            one[0].networks.iter().map(|(a, s)| (*a, s.len())).collect::<Vec<_>>(),
            [(Architecture::Mlp, 2), (Architecture::ConvNet, 2)]
        );
    }

    #[test]
    fn a_failure_ends_all_and_is_the_one_reported() {
        let failing = Candidate::new("broken", |_| Err(Error::config("set", "is broken")));
        let error = judge(3).run(&[candidates().remove(0), failing], &CancelToken::new(), &|_, _| ());
        assert_eq!(error.unwrap_err().to_string(), "set: is broken");
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(matches!(judge(2).run(&candidates(), &cancel, &|_, _| ()), Err(Error::Cancelled)));
    }

    #[test]
    fn a_summary_is_over_seeds_of_the_mean_over_networks() {
        let networks = vec![(Architecture::Mlp, vec![10.0, 20.0]), (Architecture::ViT, vec![30.0, 60.0])];
        let scores = Scores { label: "x".into(), networks };
        let of = |architectures: &[Architecture]| scores.summary(architectures);
        assert_eq!(of(&[Architecture::Mlp]), Some(Summary { mean: 15.0, std: 5.0 }));
        assert_eq!(of(&[Architecture::Mlp, Architecture::ViT]), Some(Summary { mean: 30.0, std: 10.0 }));
        assert_eq!(of(&[Architecture::ConvNet]), None);
        assert_eq!(of(&[]), None);
        let networks = vec![(Architecture::Mlp, vec![10.0]), (Architecture::ViT, vec![30.0, 60.0])];
        let ragged = Scores { label: "x".into(), networks };
        assert_eq!(ragged.summary(&[Architecture::Mlp, Architecture::ViT]), None);
    }

    #[test]
    fn a_set_in_another_space_is_refused() {
        let mut info = set().info().clone();
        info.normalize = Normalize::new([0.5; 3], [0.5; 3]).unwrap();
        let other = Candidate::new("other", move |_| {
            let pixels = vec![0.5; 4 * 3 * 32 * 32];
            let labels = (0..4).map(diver_loaders::Label::Hard).collect();
            Loader::builder(MemorySource::new(info.clone(), pixels, labels)?).build()
        });
        let error = judge(1).run(&[other], &CancelToken::new(), &|_, _| ()).unwrap_err().to_string();
        assert!(error.starts_with("candidate: other: normalised with"), "{error}");
    }

    /// Gray images, in one channel or three.
    #[test]
    fn sets_of_one_channel_are_judged_as_their_copies_in_three() {
        let gray = |channels: usize, normalize: Normalize| {
            let image = |i| (0..32 * 32).map(move |pixel| ((i * 1024 + pixel) as f32).sin().abs());
            let pixels = (0..4).flat_map(|i| (0..channels).flat_map(move |_| image(i))).collect();
            let info = SourceInfo { shape: [channels, 32, 32], normalize, ..set().info().clone() };
            MemorySource::new(info, pixels, (0..4).map(diver_loaders::Label::Hard).collect()).unwrap()
        };
        let scores = |trained: usize, tested: usize, normalize: Normalize| {
            let candidate = Candidate::new("gray", move |seed| {
                Loader::builder(gray(trained, normalize)).batch_size(2).shuffle(true).seed(seed).build()
            });
            let recipe = Recipe { steps: 8, ..Recipe::default() };
            let judge = Judge::new(&gray(tested, normalize)).unwrap().networks(vec![Architecture::Mlp]);
            judge.seeds(2).recipe(recipe).run(&[candidate], &CancelToken::new(), &|_, _| ())
        };
        let one_constant = Normalize::new([0.5; 3], [0.25; 3]).unwrap();
        let expected = scores(3, 3, one_constant).unwrap();
        for (trained, tested) in [(1, 1), (1, 3), (3, 1)] {
            assert_eq!(scores(trained, tested, one_constant).unwrap(), expected, "{trained} and {tested}");
        }
        scores(1, 1, Normalize::IMAGENET).unwrap();
        for (trained, tested) in [(1, 3), (3, 1)] {
            let error = scores(trained, tested, Normalize::IMAGENET).unwrap_err().to_string();
            let start =
                format!("candidate: gray: {trained} channels, the test images have {tested}, and each");
            assert!(error.starts_with(&start), "{error}");
        }
    }

    #[test]
    fn no_seeds_are_taken_for_one() {
        let scores = judge(1).seeds(0).run(&candidates(), &CancelToken::new(), &|_, _| ()).unwrap();
        assert_eq!(scores[0].networks[0].1.len(), 1);
    }
}
