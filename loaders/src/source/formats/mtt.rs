//! MTT, GLaD, FTD, EDF, DATM and DC-BENCH: images and labels as a bare array each, in files that go by pairs of names.

use crate::labels::Labels;
use crate::source::adapters::{self, Canvases, Images, Joined};
use crate::source::containers::npy;
use crate::source::containers::tensor::{TensorFile, TensorRef};
use crate::source::facts::Facts;
use crate::source::format::{Format, Probe};
use crate::source::info::{self, Right};
use crate::source::options::{OpenOptions, Values};
use crate::source::place::{File, Folder, Kind, Place};
use crate::source::roles::{self, Choice, Named, Pair, Role};
use crate::source::{LabelKind, Source, ValueSpace};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder in which EDF and DATM put what others put into the run's own.
const NORMAL: &str = "Normal";

/// Words in the name of images whose labels go without.
const OF_IMAGES_ALONE: [&str; 4] = ["zca", "normalize", "normalized", "norm"];

/// DATM distils CIFAR and Tiny ImageNet, whitened: at most so many pixels and classes. EDF's smallest images, at 64
/// pixels, are ImageNet's, of a thousand classes.
const LARGEST_OF_DATM: usize = 64;
const MOST_CLASSES_OF_DATM: usize = 200;

const GLAD_CONSTANTS: &str = "if GLaD made the images with space=wp, their constants are mean 0.4377, 0.4438, 0.4728 and \
                              std 0.229, 0.224, 0.225 (for CIFAR-100, 0.5 and 0.5): pass them as `mean` and `std`";

/// Two files, each with an array.
pub(crate) struct Mtt;

impl Format for Mtt {
    fn name(&self) -> &'static str {
        "MTT, GLaD, FTD, EDF or DATM"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["canvas", "split"]
    }

    fn probe<'a>(&self, place: &'a Place, options: &'a OpenOptions) -> Result<Probe<'a>> {
        match place {
            Place::Folder(folder) => probe_folder(folder, options),
            Place::File(file) => probe_file(file, options),
        }
    }
}

/// The names of a folder's files that may hold one array, without their extension, and with it.
fn arrays(folder: &Folder) -> Vec<(&str, &str)> {
    folder.names().filter_map(|name| Some((stem(name)?, name))).collect()
}

/// The name of a file that may hold one array, without its extension.
fn stem(name: &str) -> Option<&str> {
    const EXTENSIONS: [&str; 4] = [".pth.tar", ".pth", ".pt", ".npy"];
    EXTENSIONS.iter().find_map(|extension| {
        let (stem, end) = name.split_at_checked(name.len().checked_sub(extension.len())?)?;
        end.eq_ignore_ascii_case(extension).then_some(stem)
    })
}

fn probe_folder<'a>(folder: &'a Folder, options: &'a OpenOptions) -> Result<Probe<'a>> {
    let mut near = None;
    for folder in [Some(folder), folder.folder(NORMAL)?].into_iter().flatten() {
        let files = arrays(folder);
        let file = |stem: &str| {
            let name = files.iter().find(|(of, _)| *of == stem).map_or(stem, |(_, name)| *name);
            folder.path().join(name)
        };
        let pairs = roles::pairs(files.iter().map(|(stem, _)| *stem));
        let parts = parts(folder, &files)?;
        if !parts.is_empty() && pairs.iter().all(|pair| pair.images.name.starts_with("images_best_")) {
            return Ok(Probe::matched(move || {
                let part = |path: &PathBuf| {
                    let facts = Facts::of_part(info::Format::Mtt, path, folder.path(), options)?;
                    open(&File::open(path)?, None, facts)
                };
                let parts = parts.iter().map(part).collect::<Result<_>>()?;
                Ok(Box::new(Joined::new(folder.path(), parts)?))
            }));
        }
        let alone = alone(&files, &pairs);
        match roles::choose(pairs, options.split.as_deref()) {
            Choice::One { pair, over } => {
                if let Some(later) = alone.iter().find(|named| named.is_after(&pair.images)) {
                    let reason = format!(
                        "it is a later result than {}, but the file with its {} is missing: add that file, or open {} \
                         itself",
                        pair.images.name,
                        if later.role == Role::Images { "labels" } else { "images" },
                        file(pair.images.name).display()
                    );
                    return Err(Error::format(&file(later.name), reason));
                }
                let (images, labels) = (file(pair.images.name), file(pair.labels.name));
                let prefix = pair.images.beside.first().filter(|word| *word == "ema" || *word == "rdm");
                let note =
                    prefix.map(|prefix| format!("{}: the {prefix} images were opened", pair.images.name));
                let alone: Vec<&str> = alone.iter().map(|named| named.name).collect();
                let beside = (!alone.is_empty()).then(|| {
                    format!(
                        "files without a partner are not read: {} (expected pairs of images and labels)",
                        alone.join(", ")
                    )
                });
                let chosen = format!("{}, of {} in the folder", pair.images.name, over.len() + 1);
                return Ok(Probe::matched(move || {
                    let mut facts = Facts::new(format_of(&images), &images, options)?;
                    if !over.is_empty() {
                        facts.state("images", chosen, Right::Guess);
                    }
                    facts.notes(note.into_iter().chain(beside));
                    open(&File::open(&images)?, Some(&labels), facts)
                }));
            }
            Choice::Several(pairs) => {
                let reason = format!(
                    "the folder has several sets: {}. Open one by the path of its images file",
                    roles::listed(&pairs)
                );
                return Err(Error::format(folder.path(), reason));
            }
            Choice::Initial(pairs) => {
                near = Some(format!(
                    "{} has the images that a run starts from; open that file if you want them",
                    file(pairs[0].images.name).display()
                ));
            }
            Choice::None => {
                let images: Vec<&str> =
                    files.iter().filter(|(stem, _)| is(stem, Role::Images)).map(|(_, name)| *name).collect();
                if let (Some(first), None) = (images.first(), &near) {
                    near = Some(format!("{first} has no file of labels beside it"));
                }
            }
        }
    }
    Ok(match near {
        Some(reason) => Probe::near(3, reason),
        None => {
            let has_arrays = u8::from(!arrays(folder).is_empty());
            Probe::near(has_arrays, "there is no pair of files such as images_best.pt and labels_best.pt")
        }
    })
}

/// The files of images or of labels that belong to no pair. `images_zca_best` shares its labels with `images_best`.
fn alone<'a>(files: &[(&'a str, &str)], pairs: &[Pair<'_>]) -> Vec<Named<'a>> {
    let bare = |named: &Named<'_>| -> Vec<String> {
        named.beside.iter().filter(|word| !OF_IMAGES_ALONE.contains(&word.as_str())).cloned().collect()
    };
    let is_paired = |named: &Named<'_>| {
        pairs.iter().any(|pair| {
            [pair.images.name, pair.labels.name].contains(&named.name) || bare(&pair.images) == bare(named)
        })
    };
    let named = files.iter().filter_map(|(stem, _)| Named::parse(stem));
    named.filter(|named| !named.is_initial() && !is_paired(named)).collect()
}

fn is(name: &str, role: Role) -> bool {
    Named::parse(name).is_some_and(|named| named.role == role)
}

/// numpy's files are of no method's.
fn format_of(images: &Path) -> info::Format {
    let is_npy = images.extension().is_some_and(|extension| extension == "npy");
    if is_npy { info::Format::Tensors } else { info::Format::Mtt }
}

/// The images files of a set that DC-BENCH has in parts, `images_best_0.pt` and so on, if there are any in a folder.
///
/// # Errors
/// If a part is missing between others.
fn parts(folder: &Folder, files: &[(&str, &str)]) -> Result<Vec<PathBuf>> {
    let part = |stem: &str| stem.strip_prefix("images_best_")?.parse::<usize>().ok();
    let count = files.iter().filter(|(stem, _)| part(stem).is_some()).count();
    let part = |part: usize| {
        let name = format!("images_best_{part}.pt");
        let path = folder.path().join(&name);
        if folder.has_file(&name) {
            return Ok(path);
        }
        Err(Error::format(&path, "this part of the set is missing, although later parts are there"))
    };
    (0..count).map(part).collect()
}

fn probe_file<'a>(file: &'a File, options: &'a OpenOptions) -> Result<Probe<'a>> {
    let is_array = match file.kind() {
        Kind::Npy => true,
        _ => file.pickled()?.is_some_and(|pickled| pickled.pickle.root().as_tensor().is_some()),
    };
    if !is_array {
        return Ok(Probe::miss("it would be a single tensor or array, called images_<iteration>.pt"));
    }
    let stem = stem(file.name()).unwrap_or(file.name());
    match Named::parse(stem).map(|named| named.role) {
        Some(Role::Images) => {
            Ok(Probe::matched(|| open(file, None, Facts::new(format_of(file.path()), file.path(), options)?)))
        }
        Some(Role::Labels) => {
            Ok(Probe::near(4, "the file is named as labels are: open the file of the images beside it"))
        }
        None => Ok(Probe::near(
            4,
            "it is a single tensor, and its name says neither images nor labels: name the files images.pt and labels.pt",
        )),
    }
}

/// The labels that belong to the images in a file, by its name.
fn labels_of(images: &Path) -> Result<PathBuf> {
    let folder = folder_of(images);
    let listed = Folder::list(&folder)?;
    let files = arrays(&listed);
    let name = images.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = stem(name).unwrap_or(name);
    let named = Named::parse(stem);
    let beside = named.map(|named| named.beside).unwrap_or_default();
    let bare: Vec<String> =
        beside.iter().filter(|word| !OF_IMAGES_ALONE.contains(&word.as_str())).cloned().collect();
    let labels = || files.iter().filter_map(|(stem, name)| Some((Named::parse(stem)?, *name)));
    let labels = || labels().filter(|(named, _)| named.role == Role::Labels);
    for words in [&beside, &bare] {
        if let Some((_, name)) = labels().find(|(named, _)| named.beside == *words) {
            return Ok(images.with_file_name(name));
        }
    }
    let only =
        roles::pairs(files.iter().map(|(stem, _)| *stem)).into_iter().find(|pair| pair.images.name == stem);
    if let Some(pair) = only
        && let Some((_, name)) = files.iter().find(|(stem, _)| *stem == pair.labels.name)
    {
        return Ok(images.with_file_name(name));
    }
    let extension = images.extension().map(|extension| extension.display().to_string()).unwrap_or_default();
    let wanted = if bare.is_empty() { "labels".to_owned() } else { format!("labels_{}", bare.join("_")) };
    let there: Vec<&str> = labels().map(|(_, name)| name).collect();
    let there = if there.is_empty() { String::new() } else { format!("; there are {}", there.join(", ")) };
    Err(Error::format(
        images,
        format!("its labels are missing: expected {wanted}.{extension} beside it{there}"),
    ))
}

/// The array in a file of torch or numpy.
fn array(file: &File) -> Result<(Arc<TensorFile>, TensorRef)> {
    if file.kind() == Kind::Npy {
        let (file, tensor) = npy::open(file.path())?;
        return Ok((Arc::new(file), tensor));
    }
    let Some(pickled) = file.pickled()? else {
        return Err(Error::format(file.path(), format!("expected a tensor, but {}", file.describe())));
    };
    let root = pickled.pickle.root();
    match root.as_tensor() {
        Some(tensor) => Ok((Arc::clone(&pickled.file), tensor.clone())),
        None => Err(Error::format(file.path(), format!("expected a tensor, found {}", root.describe()))),
    }
}

/// Opens an images file, whose labels lie beside it.
fn open(file: &File, labels: Option<&Path>, mut facts: Facts<'_>) -> Result<Box<dyn Source>> {
    let path = file.path();
    let options = facts.options();
    let (tensors, tensor) = array(file)?;
    let mut images = Images::new(&tensor, tensors, "images")?;
    let name = file.name();
    let folder = folder_of(path);
    let is_unwhitened = name.starts_with("images_zca_");
    if is_unwhitened && options.zca.is_some() && options.values.is_none() {
        let reason = format!("{} already has pixels, with ZCA undone: leave the option out", path.display());
        return Err(Error::config("zca", reason));
    }
    let labels_path = labels.map_or_else(|| labels_of(path), |labels| Ok(labels.to_owned()))?;
    let (labels_file, labels) = array(&File::open(&labels_path)?)?;
    let labels = Labels::read(&labels_file, &labels, "labels", images.len(), options)?;

    let space = if facts.format() == info::Format::Tensors {
        images.space(&mut facts)?
    } else {
        images = images.of_floats()?;
        let whitened = if is_unwhitened { None } else { whitened(&folder, &images, &labels)? };
        match (is_unwhitened, whitened) {
            // Its name says it, whatever a sidecar says of the whitened ones.
            (true, _) if options.values.is_none() => facts.pixels(),
            (true, _) => facts.space(Values::Unit, None),
            (false, Some(why)) => facts.space(Values::Whitened, Some(why)),
            (false, None) => facts.space(Values::Normalized, None),
        }
    };
    let learning_rate = learning_rate(path, name)?;
    let method = method(&folder, name, labels.kind);
    let may_be_glad = method.as_ref().is_some_and(|method| method.contains("GLaD"));
    if may_be_glad && facts.are_constants_assumed() && matches!(space.values, ValueSpace::Normalized(_)) {
        facts.note(GLAD_CONSTANTS);
    }
    let canvas = canvas(&images, &mut facts);
    let source = images.into_source(labels, space, (method, learning_rate), facts)?;
    if canvas == 1 { Ok(source) } else { Ok(Box::new(Canvases::new(source, canvas)?)) }
}

/// How many images lie along each side of a stored one.
fn canvas(images: &Images, facts: &mut Facts<'_>) -> usize {
    let shape = images.tensor.shape();
    if let Some(along) = facts.options().canvas {
        facts.state("canvas", along.to_string(), Right::Option);
        return along;
    }
    let Some((side, dataset, right)) = facts.native_side() else { return 1 };
    let Some(along) = adapters::along([shape[2], shape[3]], side) else { return 1 };
    let dataset = dataset.name();
    if right == Right::Option {
        facts.state("canvas", along.to_string(), Right::Guess);
        facts.note(format!(
            "the stored images have {} pixels a side, but those of {dataset} have {side}, so they are taken for texture \
             canvases of {along} x {along} images, as MTT's --texture runs store them; pass `canvas` if that is wrong (1 \
             for single images)",
            shape[2]
        ));
        return along;
    }
    facts.note(format!(
        "the images have {} pixels a side, but those of {dataset}, which the path names, have {side}: pass `canvas` \
         ({along}) if they are texture canvases, as MTT's --texture runs store them; they are read as single images",
        shape[2]
    ));
    1
}

/// Why the images of a run are taken for whitened, if they are.
fn whitened(folder: &Path, images: &Images, labels: &Labels) -> Result<Option<String>> {
    let how = "pass `values` if that is wrong";
    let listed = Folder::list(folder)?;
    if let Some(zca) = listed.names().find(|name| name.starts_with("images_zca_")) {
        return Ok(Some(format!(
            "the images are taken to be ZCA-whitened and are streamed as they are stored, because {zca} lies beside them, \
             as --zca runs write it. {zca} has pixels, which can be refined; {how}"
        )));
    }
    let side = images.tensor.shape()[2];
    let is_small = side <= LARGEST_OF_DATM && labels.classes <= MOST_CLASSES_OF_DATM;
    if labels.kind == LabelKind::Logits && folder.ends_with(NORMAL) && is_small {
        return Ok(Some(format!(
            "the images are taken to be ZCA-whitened and are streamed as they are stored: logits beside images of {side} \
             pixels are DATM's, which are whitened by default; {how}"
        )));
    }
    Ok(None)
}

/// The folder of a file, by its whole name: a relative one may hide that it is `Normal`.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// What wrote the files, as far as their names tell.
fn method(folder: &Path, name: &str, labels: LabelKind) -> Option<String> {
    let in_normal = folder.ends_with(NORMAL);
    let suffix = name.strip_prefix("images_").and_then(|rest| rest.strip_suffix(".pt"));
    let five_digits = suffix.is_some_and(|it| it.len() == 5 && it.starts_with('0'));
    let of_bench = name.strip_suffix("_images.pt").is_some_and(|prefix| !prefix.is_empty());
    let method = match labels {
        LabelKind::Logits => "EDF or DATM, by labels that are logits",
        _ if in_normal => "EDF or DATM, by the folder Normal",
        _ if name.starts_with("ema_") => "FTD, by the prefix ema_",
        _ if of_bench => "a selection of DC-BENCH's, by the names of its files",
        _ if five_digits => "GLaD, by an iteration of five digits in the file's name",
        _ if suffix.is_some() => "MTT or GLaD, by the names of its files",
        _ => return None,
    };
    Some(method.to_owned())
}

/// The learning rate that EDF and DATM learn: `lr_best.pt`, a tensor of one number, or a number.
fn learning_rate(images: &Path, name: &str) -> Result<Option<f32>> {
    let Some(suffix) = name.strip_prefix("images_") else { return Ok(None) };
    let path = images.with_file_name(format!("lr_{}", suffix.strip_prefix("zca_").unwrap_or(suffix)));
    if !path.is_file() {
        return Ok(None);
    }
    let file = File::open(&path)?;
    let refused =
        |found: String| Err(Error::field(&path, "lr", format!("expected one finite number, found {found}")));
    let Some(pickled) = file.pickled()? else { return refused(file.describe()) };
    let root = pickled.pickle.root();
    let rate = match root.as_tensor() {
        Some(tensor) if tensor.shape().iter().product::<usize>() == 1 => {
            pickled.file.read::<f32>(tensor, "lr")?.first().copied()
        }
        Some(tensor) => return refused(format!("a tensor of shape {:?}", tensor.shape())),
        None => root.as_float().or_else(|| root.as_int().map(|rate| rate as f64)).map(|rate| rate as f32),
    };
    match rate {
        Some(rate) if rate.is_finite() => Ok(Some(rate)),
        Some(rate) => refused(rate.to_string()),
        None => refused(root.describe()),
    }
}
