//! Teachers on libtorch: conformance, known logits, and every way in which a file can be wrong.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, data, device_choice, relative, tolerance};
use diver::{CancelToken, DeviceChoice, Error, Precision, ResNet, Teach, Teacher, TeacherBuilder};
use diver_loaders::teach::{TeachBatch, conformance};
use std::fs;
use std::path::{Path, PathBuf};
use tch::nn::{ModuleT, VarStore};
use tch::{CModule, Device, Kind, Tensor, vision};

const CLASSES: i64 = 5;
const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn built(builder: TeacherBuilder) -> Teacher {
    builder.device(device_choice()).build().unwrap()
}

fn script(name: &str) -> Teacher {
    built(Teacher::torchscript(data().join(name)))
}

fn logits(teacher: &mut Teacher, images: &Tensor) -> Tensor {
    teacher.logits(images, &CancelToken::new()).unwrap()
}

fn noise(shape: &[i64]) -> Tensor {
    let i = Tensor::arange(shape.iter().product::<i64>(), (Kind::Int64, Device::Cpu)).remainder(1009);
    ((&i * &i * 37 + &i * 11).remainder(1009).to_kind(Kind::Float) / 504.0 - 1.0).reshape(shape)
}

/// A weight of the golden ResNets, by `tests/golden/make_teacher.py`.
fn values(name: &str, shape: &[i64]) -> Tensor {
    match shape {
        [_, inputs @ ..] if !inputs.is_empty() => {
            noise(shape) * (6.0 / inputs.iter().product::<i64>() as f64).sqrt()
        }
        _ if name.ends_with("running_var") || name.ends_with("weight") => noise(shape) * 0.2 + 1.0,
        _ => noise(shape) * 0.1,
    }
}

/// tch's own network, with those weights.
fn reference(architecture: ResNet) -> (VarStore, Box<dyn ModuleT>) {
    let store = VarStore::new(Device::Cpu);
    let root = store.root();
    let network: Box<dyn ModuleT> = match architecture {
        ResNet::ResNet18 => Box::new(vision::resnet::resnet18(&root, CLASSES)),
        ResNet::ResNet34 => Box::new(vision::resnet::resnet34(&root, CLASSES)),
        ResNet::ResNet50 => Box::new(vision::resnet::resnet50(&root, CLASSES)),
        ResNet::ResNet101 => Box::new(vision::resnet::resnet101(&root, CLASSES)),
        ResNet::ResNet152 => Box::new(vision::resnet::resnet152(&root, CLASSES)),
    };
    tch::no_grad(|| {
        for (name, mut variable) in store.variables() {
            variable.copy_(&values(&name, &variable.size()));
        }
    });
    (store, network)
}

type Tensors = Vec<(String, Tensor)>;

/// A file of the network's weights as torchvision's state dict has them, after `change`.
fn resnet_file(architecture: ResNet, change: impl FnOnce(&mut Tensors)) -> (tempfile::TempDir, PathBuf) {
    let (store, _) = reference(architecture);
    let mut tensors: Tensors = store.variables().into_iter().collect();
    let counts = tensors.iter().filter_map(|(name, _)| name.strip_suffix("running_mean"));
    let counts = counts.map(|norm| (format!("{norm}num_batches_tracked"), Tensor::from(7_i64)));
    tensors.extend(counts.collect::<Vec<_>>());
    change(&mut tensors);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    Tensor::write_safetensors(&tensors, &path).unwrap();
    (folder, path)
}

fn tensor<'a>(tensors: &'a mut Tensors, name: &str) -> &'a mut Tensor {
    &mut tensors.iter_mut().find(|(other, _)| other == name).unwrap().1
}

fn make_small(tensors: &mut Tensors) {
    *tensor(tensors, "conv1.weight") = values("conv1.weight", &[64, 3, 3, 3]);
}

#[test]
fn a_scripted_network_gives_torchs_logits() {
    let golden = Golden::read("teacher");
    for name in ["teacher_tiny.pt", "teacher_tiny_frozen.pt"] {
        let mut teacher = script(name);
        assert_eq!(teacher.num_classes(), None);
        golden.check("logits", &logits(&mut teacher, &golden.input("images")));
        assert_eq!(teacher.num_classes(), Some(5));
        let mut in_parts = built(Teacher::torchscript(data().join(name)).batch_size(2));
        assert_eq!(in_parts.preferred_batch(), 2);
        golden.check("logits", &logits(&mut in_parts, &golden.get("in.images").to_kind(Kind::Double)));
    }
}

#[test]
fn a_resnet_gives_torchs_logits() {
    let golden = Golden::read("teacher");
    let images = noise(&[2, 3, 32, 32]);
    let (_folder, path) = resnet_file(ResNet::ResNet18, |_| {});
    let mut teacher = built(Teacher::resnet(ResNet::ResNet18, &path));
    assert_eq!(teacher.num_classes(), Some(5));
    golden.check("resnet18", &logits(&mut teacher, &images));

    let (_folder, path) = resnet_file(ResNet::ResNet18, make_small);
    golden.check("resnet18_small", &logits(&mut built(Teacher::resnet(ResNet::ResNet18, &path)), &images));
}

#[test]
fn a_resnet_gives_tchs_logits() {
    let images = noise(&[2, 3, 40, 48]);
    for architecture in [ResNet::ResNet34, ResNet::ResNet50] {
        let (_store, network) = reference(architecture);
        let (_folder, path) = resnet_file(architecture, |_| {});
        let found = logits(&mut built(Teacher::resnet(architecture, &path)), &images);
        assert!(relative(&found, &network.forward_t(&images, false)) <= tolerance(), "{architecture}");
    }
}

#[test]
fn teachers_conform() {
    for name in ["teacher_tiny.pt", "teacher_tiny_frozen.pt"] {
        conformance::check(&mut script(name), [3, 12, 12], 1e-4);
        conformance::check(
            &mut built(Teacher::torchscript(data().join(name)).batch_size(2)),
            [3, 9, 7],
            1e-4,
        );
    }
    let (_folder, path) = resnet_file(ResNet::ResNet18, make_small);
    conformance::check(&mut built(Teacher::resnet(ResNet::ResNet18, &path)), [3, 16, 16], 1e-4);
}

/// Traced in training mode, which no switch can undo: the suite tells.
#[test]
fn dropout_that_was_traced_does_not_conform() {
    let folder = tempfile::tempdir().unwrap();
    let path = traced(folder.path(), |images| images.flatten(1, -1).dropout(0.5, true));
    let broken = conformance::try_check(&mut built(Teacher::torchscript(path)), [3, 4, 4], 1e-4);
    assert!(broken.unwrap_err().contains("evaluation mode"));
}

#[test]
fn lower_precision_is_near() {
    let (_folder, path) = resnet_file(ResNet::ResNet18, make_small);
    let images = noise(&[2, 3, 16, 16]);
    let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|dtype| {
        let found = logits(&mut built(Teacher::resnet(ResNet::ResNet18, &path).dtype(dtype)), &images);
        assert_eq!(found.kind(), Kind::Float);
        found
    });
    let apart = relative(&rounded, &exact);
    assert!((1e-5..5e-2).contains(&apart), "{apart}");
}

#[test]
fn the_fingerprint_holds_what_makes_logits() {
    let of = |builder: TeacherBuilder| built(builder).fingerprint().unwrap();
    let resnet = |path: &Path| Teacher::resnet(ResNet::ResNet18, path);
    let (_folder, path) = resnet_file(ResNet::ResNet18, |_| {});
    let usual = of(resnet(&path));
    assert_eq!((&usual["teacher"], &usual["dtype"]), (&"resnet18".into(), &"f32".into()));
    assert_eq!(usual, of(resnet(&path).batch_size(3)));
    assert_ne!(usual, of(resnet(&path).dtype(Precision::Bf16)));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_ne!(usual["weights"], of(resnet(&path))["weights"]);

    let [tiny, frozen] = ["teacher_tiny.pt", "teacher_tiny_frozen.pt"].map(|name| script(name).fingerprint());
    assert_eq!(tiny.as_ref().unwrap()["teacher"], "torchscript");
    assert_ne!(tiny, frozen);
}

#[test]
fn a_released_teacher_reads_its_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.pt");
    fs::copy(data().join("teacher_tiny.pt"), &path).unwrap();
    let mut teacher = built(Teacher::torchscript(&path));
    let images = noise(&[2, 3, 12, 12]);
    let before = logits(&mut teacher, &images);
    teacher.release();
    assert!(relative(&logits(&mut teacher, &images), &before) <= tolerance());

    teacher.release();
    fs::copy(data().join("teacher_tiny_frozen.pt"), &path).unwrap();
    let error = teacher.logits(&images, &CancelToken::new()).unwrap_err();
    assert!(matches!(&error, Error::File { path: named, .. } if *named == path), "{error}");
    fs::remove_file(&path).unwrap();
    let error = teacher.logits(&images, &CancelToken::new()).unwrap_err();
    assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error}");
}

#[test]
fn data_parallel_names_are_known() {
    let (_folder, path) = resnet_file(ResNet::ResNet18, |tensors| {
        tensors.iter_mut().for_each(|(name, _)| name.insert_str(0, "module."));
    });
    assert_eq!(built(Teacher::resnet(ResNet::ResNet18, &path)).num_classes(), Some(5));
}

/// What is said of a file that holds no teacher; the error is of that file.
fn refused(builder: TeacherBuilder, path: &Path) -> String {
    match builder.device(DeviceChoice::Cpu).build() {
        // The latter from the reader of torch's files.
        Err(
            Error::File { path: named, reason }
            | Error::Engine(diver_loaders::Error::Format { path: named, reason }),
        ) => {
            assert_eq!(named, path);
            assert!(!reason.contains('\n'), "{reason}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let (_folder, path) = resnet_file(ResNet::ResNet18, |tensors| {
        tensors.retain(|(name, _)| name != "layer2.0.bn1.running_var");
        *tensor(tensors, "fc.bias") = Tensor::zeros([7], FLOAT);
        tensors.push(("head.scale".to_owned(), Tensor::zeros([1], FLOAT)));
    });
    let said = refused(Teacher::resnet(ResNet::ResNet18, &path), &path);
    for name in ["layer2.0.bn1.running_var", "fc.bias is [7] instead of [5]", "head.scale"] {
        assert!(said.contains(name), "{said}");
    }
    let (_folder, path) = resnet_file(ResNet::ResNet18, |_| {});
    let said = refused(Teacher::resnet(ResNet::ResNet34, &path), &path);
    assert!(said.contains("layer1.2.conv1.weight"), "{said}");
    let said = refused(Teacher::resnet(ResNet::ResNet50, &path), &path);
    assert!(said.contains("layer1.0.conv3.weight"), "{said}");
    let (_folder, path) = resnet_file(ResNet::ResNet18, |tensors| {
        *tensor(tensors, "fc.weight") = Tensor::zeros([0, 512], FLOAT);
    });
    assert!(refused(Teacher::resnet(ResNet::ResNet18, &path), &path).contains("fc.weight"));
}

#[test]
fn files_that_are_no_networks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.pt");
    for bytes in [&b""[..], b"no network", b"PK\x03\x04"] {
        fs::write(&path, bytes).unwrap();
        let said = refused(Teacher::torchscript(&path), &path);
        assert!(said.contains("is not a TorchScript file") && said.contains("torch.jit.script"), "{said}");
        refused(Teacher::resnet(ResNet::ResNet18, &path), &path);
    }
    // Weights without a network.
    fs::copy(data().join("dit_tiny_official.pt"), &path).unwrap();
    assert!(refused(Teacher::torchscript(&path), &path).contains("is not a TorchScript file"));

    let missing = folder.path().join("missing.pt");
    for builder in [Teacher::torchscript(&missing), Teacher::resnet(ResNet::ResNet18, &missing)] {
        let error = builder.device(DeviceChoice::Cpu).build().unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error}");
    }
}

#[test]
fn options_out_of_range_are_named() {
    let tiny = || Teacher::torchscript(data().join("teacher_tiny.pt")).device(DeviceChoice::Cpu);
    let knob = |builder: TeacherBuilder| match builder.build() {
        Err(Error::Knob { knob, .. }) => knob,
        other => panic!("{other:?}"),
    };
    assert_eq!(knob(tiny().batch_size(0)), "batch_size");
    assert_eq!(knob(tiny().dtype(Precision::Bf16)), "dtype");
    let url = Teacher::torchscript("s3://bucket/teacher.pt").device(DeviceChoice::Cpu).build().unwrap_err();
    assert!(url.to_string().starts_with("teacher: "), "{url}");
}

/// A TorchScript file of a function of images.
fn traced(folder: &Path, mut function: impl FnMut(&Tensor) -> Tensor) -> PathBuf {
    let path = folder.join("traced.pt");
    let images = [Tensor::zeros([2, 3, 4, 4], FLOAT)];
    let module =
        CModule::create_by_tracing("Teacher", "forward", &images, &mut |i| vec![function(&i[0])]).unwrap();
    module.save(&path).unwrap();
    path
}

#[test]
fn outputs_that_are_no_logits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    type Function = fn(&Tensor) -> Tensor;
    let functions: [(Function, &str); 4] = [
        (|images| images.relu(), "[2, 3, 4, 4]"),
        (|images| images.sum_dim_intlist([1_i64, 2, 3].as_slice(), false, Kind::Float), "[2]"),
        (|images| images.flatten(0, 1).flatten(1, -1), "[6, 16]"),
        (|images| images.flatten(1, -1).argsort(1, false), "integers"),
    ];
    let check = |path: &Path, found: &str| {
        let mut teacher = built(Teacher::torchscript(path));
        let error = teacher.logits(&Tensor::zeros([2, 3, 4, 4], FLOAT), &CancelToken::new()).unwrap_err();
        let said = error.to_string();
        assert!(matches!(&error, Error::File { path: named, .. } if *named == path), "{said}");
        assert!(said.contains(found), "{said} does not say {found}");
    };
    for (function, found) in functions {
        check(&traced(folder.path(), function), found);
    }
    check(&data().join("teacher_pair.pt"), "a tuple of 2");
    // As many classes as pixels: another number of them is no logit of the same teacher.
    let mut teacher = built(Teacher::torchscript(traced(folder.path(), |images| images.flatten(1, -1))));
    let of = |teacher: &mut Teacher, side| {
        teacher.logits(&Tensor::zeros([2, 3, side, side], FLOAT), &CancelToken::new())
    };
    assert_eq!(of(&mut teacher, 4).unwrap().size(), [2, 48]);
    let said = of(&mut teacher, 5).unwrap_err().to_string();
    assert!(said.contains("75") && said.contains("48"), "{said}");
}

#[test]
fn images_that_do_not_suit_the_network_are_refused() {
    let (_folder, path) = resnet_file(ResNet::ResNet18, make_small);
    let live = CancelToken::new();
    for mut teacher in [script("teacher_tiny.pt"), built(Teacher::resnet(ResNet::ResNet18, &path))] {
        let named = teacher.path().to_owned();
        let error = teacher.logits(&Tensor::zeros([2, 1, 12, 12], FLOAT), &live).unwrap_err();
        let said = error.to_string();
        assert!(matches!(&error, Error::File { path, .. } if *path == named), "{said}");
        assert!(said.contains("3 channels") && said.contains('1') && !said.contains('\n'), "{said}");
        // The engine meets it as a matter of that file.
        let pixels = [0.0; 16];
        let batch = TeachBatch::new(&pixels, [1, 1, 4, 4]).unwrap();
        let error = teacher.teach(&batch, &live).unwrap_err();
        assert!(matches!(&error, diver_loaders::Error::Format { path, .. } if *path == named), "{error}");

        for bad in [
            Tensor::zeros([3, 12, 12], FLOAT),
            Tensor::zeros([2, 3, 0, 12], FLOAT),
            Tensor::zeros([2, 3, 12, 12], (Kind::Uint8, Device::Cpu)),
        ] {
            let error = teacher.logits(&bad, &live).unwrap_err();
            assert!(matches!(error, Error::Tensor { what: "images", .. }), "{error}");
        }
    }
}
