//! FKD's soft-label trees (SRe2L, D4M, G-VBSM): for every batch of every epoch, how its images were cropped, flipped and
//! mixed, and what a teacher said of them.
//!
//! `<tree>/epoch_<e>/batch_<b>.tar`, each a file of `torch.save` in spite of its name:
//! `[coords, flip, mix_index, mix_lam, mix_bbox, soft_label]`, and in G-VBSM's also the images' indices.

mod agreement;
mod order;
mod views;

pub use views::{Mixed, Views};

use crate::paths::local;
use crate::source::containers::tensor::TensorFile;
use crate::source::containers::torch::{self, Pickle, Value};
use crate::source::{Format, Source, SourceInfo};
use crate::wording::counted;
use crate::{Error, Result};
use agreement::Agreement;
use order::{Draws, Order, Permutations};
use std::path::{Path, PathBuf};

/// The seed of the sampler in the methods' relabelling scripts.
const SEED: u32 = 42;

/// A tree of soft labels of an image folder's images.
///
/// ```no_run
/// use diver_loaders::CancelToken;
/// use diver_loaders::labels::fkd::SoftLabels;
///
/// let images = diver_loaders::open("syn_data")?;
/// let labels = SoftLabels::open("FKD_cutmix_fp16", &images)?;
/// let views = labels.views(0, 0)?;
/// let normalize = &images.info().normalize;
/// let pixels = views.pixels(&images, 224, normalize, &CancelToken::new())?; // [B, 3, 224, 224]
/// println!("{} views of {} classes, {} values", views.len(), views.classes(), pixels.len());
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug)]
pub struct SoftLabels {
    root: PathBuf,
    epochs: usize,
    batches: usize,
    batch_size: usize,
    samples: usize,
    /// Of each place in torchvision's order of the images, the index in the source.
    places: Vec<usize>,
    order: Order,
    permutations: Permutations,
    teacher_side: Option<usize>,
}

impl SoftLabels {
    /// Opens the tree at `root`, whose labels are of the image folder `images`, and finds out which image each row is
    /// of: by the indices that G-VBSM stores, else by the seeded order of torch's sampler, of which there are two
    /// (torch 1.12 and later draw two permutations an epoch and use the first).
    ///
    /// Rows count images in the order of the folder that the labels were made beside, sorted by names. Class folders that
    /// were renamed or renumbered since, all or some, change that order: they are refused, as the teacher's classes then
    /// follow each other in another order than the folders'. What cannot be seen, since no label tells one image from
    /// another of its class: files that were renamed within a class, and images that were moved to other folders. An
    /// [export](crate::export) keeps the order within a class.
    ///
    /// # Errors
    /// If `root` is not a local path, there is no such tree, `images` is no image folder, their numbers differ, the
    /// teacher agrees with the classes of the images in neither order, or it numbers some of them in another order.
    pub fn open(root: impl AsRef<Path>, images: &dyn Source) -> Result<Self> {
        let root = local("tree", root.as_ref())?;
        let epochs = count(|epoch| root.join(format!("epoch_{epoch}")));
        let batches = count(|batch| batch_path(root, 0, batch));
        let places = torchvision_order(images)?;
        let mut tree = Self {
            root: root.to_owned(),
            epochs,
            batches,
            batch_size: 0,
            samples: images.info().num_samples,
            places,
            order: Order::Stored,
            permutations: Permutations::new(SEED, images.info().num_samples),
            teacher_side: None,
        };
        if batches == 0 {
            return Err(Error::format(root, "no soft labels: epoch_0/batch_0.tar is expected"));
        }
        let first = tree.record(0, 0)?;
        tree.batch_size = first.rows();
        let last = if batches == 1 { first.rows() } else { tree.record(0, batches - 1)?.rows() };
        let rows = tree.batch_size.saturating_mul(batches - 1).saturating_add(last);
        if rows != tree.samples {
            let reason = format!(
                "epoch 0 labels {}, where {} has {}",
                counted(rows, "image"),
                images.info().path.display(),
                tree.samples
            );
            return Err(Error::format(root, reason));
        }
        let orders: &[Order] = if first.has_indices() {
            &[Order::Stored]
        } else {
            &[Order::Drawn(Draws::Two), Order::Drawn(Draws::One)]
        };
        tree.order = tree.find_order(images, orders)?;
        Ok(tree)
    }

    /// Says that the teacher saw views of `side` x `side` pixels, which no file says: the boxes of CutMix are in these.
    /// Without it, views are made at that size.
    ///
    /// # Errors
    /// If it is 0.
    pub fn with_teacher_side(self, side: usize) -> Result<Self> {
        if side == 0 {
            return Err(Error::config("teacher_side", "0 is not a number of pixels"));
        }
        Ok(Self { teacher_side: Some(side), ..self })
    }

    /// Number of epochs.
    pub fn epochs(&self) -> usize {
        self.epochs
    }

    /// Number of batches of each epoch.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Batch `batch` of epoch `epoch`.
    ///
    /// # Errors
    /// If there is no such batch, or its file is damaged.
    pub fn views(&self, epoch: usize, batch: usize) -> Result<Views> {
        let record = self.record(epoch, batch)?;
        Ok(record.views(&self.shown(&record, self.order, epoch, batch)?)?.seen_at(self.teacher_side))
    }

    /// The index of the image of each row, in this order.
    fn shown(&self, record: &Record, order: Order, epoch: usize, batch: usize) -> Result<Vec<usize>> {
        self.indices(match order {
            Order::Stored => record.indices()?,
            Order::Drawn(draws) => self.drawn(draws, epoch, batch, record.rows())?,
        })
    }

    fn drawn(&self, draws: Draws, epoch: usize, batch: usize, rows: usize) -> Result<Vec<usize>> {
        let first = batch.saturating_mul(self.batch_size);
        let permutation = self.permutations.get(draws, epoch);
        let places = permutation.get(first..first.saturating_add(rows));
        places.map(<[usize]>::to_vec).ok_or_else(|| {
            let reason =
                format!("{} from {first} on, of {}", counted(rows, "row"), counted(self.samples, "image"));
            Error::format(&batch_path(&self.root, epoch, batch), reason)
        })
    }

    fn indices(&self, places: Vec<usize>) -> Result<Vec<usize>> {
        places
            .into_iter()
            .map(|place| {
                self.places.get(place).copied().ok_or_else(|| {
                    Error::format(&self.root, format!("index {place}, of {}", counted(self.samples, "image")))
                })
            })
            .collect()
    }

    /// The order of `orders` in which the teacher agrees with the images' classes. Those of the sampler differ from the
    /// second epoch on.
    fn find_order(&self, images: &dyn Source, orders: &[Order]) -> Result<Order> {
        let mut found: Vec<Agreement> = orders.iter().map(|_| Agreement::default()).collect();
        let first = usize::from(self.epochs > 1 && orders.len() > 1);
        let batches_of = |epoch| (0..self.batches).map(move |batch| (epoch, batch));
        let mut batches = (first..self.epochs).flat_map(batches_of);
        while found.iter().any(Agreement::wants_more)
            && let Some((epoch, batch)) = batches.next()
        {
            self.compare(images, (epoch, batch), orders, &mut found)?;
        }
        let path = images.info().path.display();
        let refused = |reason| Err(Error::format(&self.root, reason));
        // Of equals the first: newer torch is likelier.
        let best = (0..found.len()).rev().max_by(|a, b| found[*a].share().total_cmp(&found[*b].share()));
        let Some(best) = best.filter(|best| found[*best].rows() > 0) else {
            if let [Order::Stored] = orders {
                return Ok(Order::Stored);
            }
            return refused(format!(
                "no row shows more of one image than of another (`mix_lam` is 0.5 in all of {}), so that nothing tells \
                 whether the soft labels are of {path}",
                counted(self.epochs * self.batches, "batch"),
            ));
        };
        if !found[best].is_above_chance() {
            let shares: Vec<String> = found.iter().map(|one| format!("{:.1}", 100.0 * one.share())).collect();
            let order = match orders {
                [Order::Stored] => "of images in another order".to_owned(),
                _ => format!("of another order than that of torch's sampler with seed {SEED}"),
            };
            return refused(format!(
                "the soft labels agree with the classes of {path} in {} % of {}: they are of other images, or {order}",
                shares.join(" and "),
                counted(found[best].rows(), "row")
            ));
        }
        // In the first epoch all orders agree: it tells none of them apart, but it tells classes apart.
        for (epoch, batch) in (0..first).flat_map(batches_of) {
            if found[best].wants_more() {
                self.compare(images, (epoch, batch), &orders[best..=best], &mut found[best..=best])?;
            }
        }
        if let Some(cycle) = found[best].cycle() {
            let names = images.info().names();
            let name = |class: &usize| names.get(*class).map_or_else(|| class.to_string(), String::clone);
            let pairs: Vec<String> =
                cycle.iter().map(|(class, said)| format!("{} as {}", name(class), name(said))).collect();
            return refused(format!(
                "the soft labels number some classes of {path} in another order ({}): the class folders were renamed or \
                 renumbered since, or `classes` lists them in another order. Open the images as they were when the \
                 labels were made",
                pairs.join(", ")
            ));
        }
        Ok(orders[best])
    }

    /// Counts, for each of the orders, what the teacher says of the images of a batch.
    fn compare(
        &self,
        images: &dyn Source,
        (epoch, batch): (usize, usize),
        orders: &[Order],
        found: &mut [Agreement],
    ) -> Result<()> {
        let record = self.record(epoch, batch)?;
        // Of whichever images, until it is known that they tell something: an order takes time to draw.
        let views = record.views(&vec![0; record.rows().min(self.samples)])?;
        let Some(shown) = views.most_shown() else { return Ok(()) };
        for (order, agreement) in orders.iter().zip(found) {
            let indices = self.shown(&record, *order, epoch, batch)?;
            for (row, shown) in shown.iter().enumerate() {
                let class = images.label(indices[*shown])?.class();
                agreement.add(class, views.label(row).class(), views.classes());
            }
        }
        Ok(())
    }

    fn record(&self, epoch: usize, batch: usize) -> Result<Record> {
        if epoch >= self.epochs || batch >= self.batches {
            let reason = format!(
                "no batch {batch} of epoch {epoch}, of {} with {} each",
                counted(self.epochs, "epoch"),
                counted(self.batches, "batch")
            );
            return Err(Error::format(&self.root, reason));
        }
        Record::open(&batch_path(&self.root, epoch, batch))
    }
}

fn batch_path(root: &Path, epoch: usize, batch: usize) -> PathBuf {
    root.join(format!("epoch_{epoch}")).join(format!("batch_{batch}.tar"))
}

/// How many of the numbered paths exist, from 0 on.
fn count(path: impl Fn(usize) -> PathBuf) -> usize {
    (0..).take_while(|number| path(*number).exists()).count()
}

/// The source's index of each image in the order of torchvision's `ImageFolder`: folders by name as text, then files.
fn torchvision_order(images: &dyn Source) -> Result<Vec<usize>> {
    let info: &SourceInfo = images.info();
    let names = info.classes.as_ref().filter(|_| info.format == Format::ImageFolder).ok_or_else(|| {
        Error::format(&info.path, format!("FKD labels image folders, and this is of format {}", info.format))
    })?;
    let mut order = Vec::with_capacity(info.num_samples);
    for index in 0..info.num_samples {
        order.push((names[images.label(index)?.class()].as_str(), index));
    }
    order.sort();
    Ok(order.into_iter().map(|(_, index)| index).collect())
}

/// One file of a tree, opened.
#[derive(Debug)]
struct Record {
    file: TensorFile,
    pickle: Pickle,
}

impl Record {
    fn open(path: &Path) -> Result<Self> {
        let (file, pickle) = torch::open(path)?;
        let record = Self { file, pickle };
        let items = record.pickle.root().items().map(|items| items.len());
        if !matches!(items, Some(6 | 7)) || record.rows() == 0 {
            let reason = "not FKD's: [coords, flip, mix_index, mix_lam, mix_bbox, soft_label] is expected";
            return Err(Error::format(path, reason));
        }
        Ok(record)
    }

    fn item(&self, index: usize) -> Option<Value<'_>> {
        self.pickle.root().items()?.nth(index)
    }

    /// Number of views, by its soft labels.
    fn rows(&self) -> usize {
        let tensor = self.item(5).and_then(Value::as_tensor);
        tensor.and_then(|tensor| tensor.shape().first().copied()).unwrap_or(0)
    }

    fn has_indices(&self) -> bool {
        self.item(6).and_then(Value::as_tensor).is_some()
    }

    /// G-VBSM's places in torchvision's order.
    fn indices(&self) -> Result<Vec<usize>> {
        self.integers(6, "index", usize::MAX)
    }

    fn refused(&self, field: &str, reason: impl Into<String>) -> Error {
        Error::field(self.file.path(), field, reason)
    }

    /// A tensor `[rows]` of integers from 0, below `limit`.
    fn integers(&self, item: usize, field: &str, limit: usize) -> Result<Vec<usize>> {
        let tensor = self.item(item).and_then(Value::as_tensor).filter(|t| t.shape() == [self.rows()]);
        let tensor = tensor.ok_or_else(|| self.refused(field, "a number for each row is expected"))?;
        let values = self.file.read::<i64>(tensor, field)?;
        let valid = |value: i64| usize::try_from(value).ok().filter(|value| *value < limit);
        values
            .into_iter()
            .map(|value| valid(value).ok_or_else(|| self.refused(field, format!("{value} is out of range"))))
            .collect()
    }

    /// The views of the images `indices`, one for each row.
    fn views(&self, indices: &[usize]) -> Result<Views> {
        let rows = self.rows();
        if indices.len() != rows {
            return Err(self.refused(
                "index",
                format!("{} for {}", counted(indices.len(), "image"), counted(rows, "row")),
            ));
        }
        let tensor = |item: usize, field: &str, dimensions: usize| {
            let tensor = self.item(item).and_then(Value::as_tensor);
            let tensor = tensor.filter(|t| t.shape().len() == dimensions && t.shape()[0] == rows);
            tensor.ok_or_else(|| {
                self.refused(field, format!("a tensor of {} is expected", counted(rows, "row")))
            })
        };
        let coords = tensor(0, "coords", 2)?;
        if coords.shape()[1] != 4 {
            return Err(self.refused("coords", "four numbers for each row are expected"));
        }
        let coords = self.file.read::<f32>(coords, "coords")?;
        let flips = self.file.read::<u8>(tensor(1, "flip", 1)?, "flip")?;
        let soft = tensor(5, "soft_label", 2)?;
        let classes = soft.shape()[1];
        let logits = self.file.read::<f32>(soft, "soft_label")?;
        if coords.iter().any(|c| !(0.0..=1.0).contains(c)) {
            return Err(self.refused("coords", "a part of an image that lies outside of it"));
        }
        if classes == 0 || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(self.refused("soft_label", "logits that are not finite, or none"));
        }
        let mix = match self.item(2) {
            Some(value) if !value.is_none() => Some(self.mixed()?),
            _ => None,
        };
        Ok(Views::new(
            self.file.path().to_owned(),
            indices.to_vec(),
            coords.as_chunks().0.to_vec(),
            flips.into_iter().map(|flip| flip != 0).collect(),
            mix,
            logits,
            classes,
        ))
    }

    fn mixed(&self) -> Result<Mixed> {
        let partners = self.integers(2, "mix_index", self.rows())?;
        let share = self.item(3).and_then(Value::as_float).filter(|share| (0.0..=1.0).contains(share));
        let share = share.ok_or_else(|| self.refused("mix_lam", "a number from 0 to 1 is expected"))?;
        let bounds = match self.item(4) {
            Some(value) if !value.is_none() => {
                let bounds: Option<Vec<usize>> = value
                    .items()
                    .and_then(|items| items.map(|v| usize::try_from(v.as_int()?).ok()).collect());
                let bounds = bounds.and_then(|bounds| <[usize; 4]>::try_from(bounds).ok());
                let ordered = bounds.filter(|[top, left, bottom, right]| top <= bottom && left <= right);
                // As the file has them: rows from and to, columns from and to.
                Some(ordered.ok_or_else(|| self.refused("mix_bbox", "four integers are expected"))?)
            }
            _ => None,
        };
        Ok(Mixed { partners, share, bounds })
    }
}
