//! How a loader is made of its description.

use super::background::Background;
use super::draw::Draw;
use super::dtype::Dtype;
use super::held::Held;
use super::options::OnMiss;
use super::order::Orders;
use super::pick::{Chosen, Pick};
use super::pipeline::Pipeline;
use super::places::MixMode;
use super::plan::Plan;
use super::pool::Pool;
use super::progress::Watch;
use super::recipe::Recipe;
use super::shared::Shared;
use super::skip::Skipping;
use super::stages::{Flying, Labelling, Standing, Taught};
use super::{Loader, LoaderBuilder, Mix};
use crate::cache::Resident;
use crate::options::{Classes, Size, check};
use crate::planes::Scale;
use crate::refine::{Dataset, partition};
use crate::said::warn_once;
use crate::wording::counted;
use crate::{CancelToken, Error, Refine, Result, SourceInfo};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

impl LoaderBuilder {
    /// Makes the loader and starts its threads; nothing is read or refined yet.
    ///
    /// # Errors
    /// If an option has a value that it cannot have, a class cannot be refined, or the cache cannot be used.
    pub fn build(mut self) -> Result<Loader> {
        check(&self.options)?;
        let mix = self.share()?;
        self.check_teacher()?;
        let dataset = Arc::new(self.dataset()?);
        let plan = self.plan(mix, &dataset)?;
        self.say(&plan, &dataset);
        let refiner = self.refiner.as_deref();
        let store = self.store(refiner, &dataset)?;
        let held = self.is_resident.then(|| Held::new(&plan, &self.augment, &self.targets)).transpose()?;
        let taught = self.taught(refiner, &dataset)?;
        let teacher = self.teacher.map(|(teacher, _)| teacher).filter(|_| taught.is_some());
        let options = self.options;
        let shared = Shared {
            dataset: Arc::clone(&dataset),
            store: Arc::new(store),
            counters: Arc::default(),
            plan: plan.clone(),
            skipping: Skipping::new(options.on_error, options.max_skipped),
            on_miss: options.on_miss,
            labelling: Labelling { taught, targets: self.targets, augment: self.augment },
            held,
            dtype: options.dtype,
            memory_format: options.memory_format,
            // One buffer in the consumer's hands besides those on their way.
            sink: self.sink.unwrap_or_else(|| Box::new(Pool::new(options.prefetch + 1))),
            cancel: CancelToken::new(),
            background: Background::default(),
            standing: Standing::default(),
            flying: Flying::default(),
            watch: Watch::default(),
            chosen: Chosen::default(),
            teaching: AtomicUsize::new(0),
            scale: Scale::new(dataset.normalize()),
        };
        let counters = Arc::clone(&shared.counters);
        let info = SourceInfo { class_map: dataset.class_map()?, ..dataset.info().clone() };
        let pipeline = Pipeline::start(shared, self.refiner, teacher, options.threads)?;
        Ok(Loader::new(pipeline, plan, info, counters, options.prefetch))
    }

    /// What has no meaning without a refiner would otherwise stream raw samples without a word.
    fn check_refiner(&self, mix: &Mix) -> Result<()> {
        let options = &self.options;
        let asked = [
            (!mix.is_raw(), "mix", "asks for refined samples"),
            (options.mode != MixMode::Replace, "mode", "mixes raw with refined samples"),
            (options.variants > 1, "variants", "asks for refinements"),
            (options.pick != Pick::Turn, "pick", "picks among refinements"),
            (options.on_miss != OnMiss::Wait, "on_miss", "is about refinements"),
        ];
        match asked.into_iter().find(|(is_asked, _, _)| *is_asked && self.refiner.is_none()) {
            Some((_, option, what)) => {
                Err(Error::config(option, format!("{what}, but the loader has no refiner: give one")))
            }
            None => Ok(()),
        }
    }

    /// The share of refined samples: all where there is a refiner, unless it is said.
    fn share(&mut self) -> Result<Mix> {
        let mix = match self.mix.take() {
            Some(mix) => mix,
            None => Mix::constant(if self.refiner.is_some() { 1.0 } else { 0.0 })?,
        };
        self.check_refiner(&mix)?;
        Ok(mix)
    }

    /// Whether anything is asked of a teacher.
    fn asks_teacher(&self) -> bool {
        self.targets.needs_teacher() || self.options.pick == Pick::Best
    }

    fn check_teacher(&self) -> Result<()> {
        match (self.asks_teacher(), self.teacher.is_some()) {
            (true, false) if self.options.pick == Pick::Best => {
                Err(Error::config("pick", "`best` asks a teacher, but the loader has none: give one"))
            }
            (true, false) => Err(Error::config("labels", "are a teacher's, but the loader has no teacher")),
            (false, true) => {
                let reason =
                    "has nothing to do: labels are stored ones; ask for `Targets::teacher` or `average`";
                Err(Error::config("teacher", reason))
            }
            _ => Ok(()),
        }
    }

    fn dataset(&mut self) -> Result<Dataset> {
        let options = &self.options;
        let classes = options.classes.as_ref().map(Classes::resolve).transpose()?;
        let size = options.image_size.map(|Size { height, width }| (height, width));
        let dataset =
            Dataset::new(Box::new(Arc::clone(&self.source)), classes, size, self.refiner.as_deref())?;
        if options.dtype == Dtype::Uint8 {
            dataset.info().value_space.check_pixels().map_err(|error| {
                Error::config("dtype", format!("uint8 needs pixels, and this set has none. {error}"))
            })?;
        }
        Ok(dataset.with_variants(options.variants))
    }

    fn plan(&self, mix: Mix, dataset: &Dataset) -> Result<Plan> {
        let (options, samples) = (&self.options, dataset.info().num_samples);
        let plan = Plan {
            samples,
            draw: Draw::new(dataset.portions(), samples, options.seed)?.map(Arc::new),
            batch_size: options.batch_size,
            shuffle: options.shuffle,
            drop_last: options.drop_last,
            seed: options.seed,
            rank: self.ranks.rank(),
            world: self.ranks.world_size(),
            uneven: options.uneven,
            mix,
            mode: options.mode,
            variants: options.variants,
            pick: options.pick,
            orders: Orders::default(),
        };
        plan.validated()
    }

    /// Says what was found and assumed.
    fn say(&self, plan: &Plan, dataset: &Dataset) {
        if plan.world > 1 && self.ranks.is_found() {
            warn_once(&format!("{}: the loaders of this process stream the share of this rank", self.ranks));
        }
        // Ranks are alike: one speaks for all.
        if plan.rank > 0 {
            return;
        }
        dataset.say_notes();
        if let Some((left, places)) = plan.left_out() {
            tracing::warn!(
                "{}: {} of {} of an epoch are left out, as they do not divide among {} ranks: `uneven` is drop; pad \
                 keeps all",
                dataset.info().path.display(),
                left,
                counted(places, "sample"),
                plan.world,
            );
        }
    }

    fn store(&self, refiner: Option<&dyn Refine>, dataset: &Dataset) -> Result<Resident> {
        let limit = self.options.memory_limit;
        let store = Resident::new(partition(self.cache.as_ref(), refiner)?, limit, dataset.size());
        let images = dataset.info().num_samples.saturating_mul(self.options.variants as usize);
        let bytes = images.saturating_mul(3 * dataset.size().0 * dataset.size().1);
        if refiner.is_some() && store.disk().is_none() && bytes > limit {
            let reason = format!(
                "{bytes} bytes of refined images do not fit into {limit}, and would be refined again in every epoch: \
                 raise the limit, or give a cache and a refiner with a fingerprint"
            );
            return Err(Error::config("memory_limit", reason));
        }
        Ok(store)
    }

    fn taught(&self, refiner: Option<&dyn Refine>, dataset: &Dataset) -> Result<Option<Taught>> {
        let Some((teacher, per)) = self.teacher.as_ref().filter(|_| self.asks_teacher()) else {
            return Ok(None);
        };
        let recipe = Recipe {
            per: *per,
            form: self.logit_form,
            augment: &self.augment,
            seed: self.options.seed,
            limit: self.options.memory_limit / 4,
        };
        recipe.taught(&**teacher, refiner, self.cache.as_ref(), dataset).map(Some)
    }
}
