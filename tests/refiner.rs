//! The refiner as the engine meets it: conformance, golden images, and every way in which a backbone can be wrong.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, backbone_folder, device_choice, relative};
use diver::{
    CancelToken, Conditioning, DeviceChoice, Digest, Knobs, Mode, Noise, Precision, Refine, Refiner,
    RgbImage, Sigma,
};
use diver_loaders::refine::{NoiseKey, RawBatch, Silent, conformance};
use std::fs;
use std::path::Path;
use std::process::Command;
use tch::{Kind, Tensor};

fn refiner(folder: &Path, knobs: Knobs) -> Refiner {
    Refiner::builder(folder).device(device_choice()).dtype(Precision::F32).knobs(knobs).build().unwrap()
}

fn classes(classes: impl IntoIterator<Item = usize>) -> Vec<Conditioning> {
    classes.into_iter().map(Conditioning::Class).collect()
}

#[test]
fn the_refiner_conforms() {
    let folder = backbone_folder();
    for (mode, side) in [(Mode::Full, 16), (Mode::Full, 12), (Mode::Raw, 16), (Mode::Vae, 16)] {
        let knobs = Knobs::builder().mode(mode).build().unwrap();
        conformance::check(&mut refiner(folder.path(), knobs), side, &classes(0..10));
    }
}

/// Five images, refined at once and in parts of two.
fn whole_and_parts(dtype: Precision) -> [Vec<RgbImage>; 2] {
    let folder = backbone_folder();
    let pixels: Vec<f32> = (0..5 * 3 * 256).map(|i| (i as f32 * 0.01).sin().abs()).collect();
    let keys: Vec<NoiseKey> =
        (0..5_u32).map(|i| NoiseKey { content: Digest::of(&i.to_le_bytes()), variant: i % 2 }).collect();
    let conditioning = classes([0, 3, 3, 9, 1]);
    let batch = RawBatch::new(&pixels, 16, 16, &conditioning, &keys).unwrap();
    [32, 2].map(|batch_size| {
        let mut refiner = Refiner::builder(folder.path())
            .device(device_choice())
            .dtype(dtype)
            .batch_size(batch_size)
            .build()
            .unwrap();
        assert_eq!(refiner.preferred_batch(), batch_size);
        refiner.refine(&batch, &CancelToken::new(), &Silent).unwrap()
    })
}

#[test]
fn parts_of_a_batch_make_the_same_images() {
    let [whole, parts] = whole_and_parts(Precision::F32);
    for (whole, part) in whole.iter().zip(&parts) {
        let apart = whole.as_bytes().iter().zip(part.as_bytes()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(apart <= Some(1), "a part of a batch differs by {apart:?} grey levels");
    }
    assert_eq!((whole.len(), whole[0].width()), (5, 16));
}

/// bf16 rounds otherwise for batches of another size: an RMS of 0.5 where this was measured.
#[test]
fn parts_of_a_batch_make_nearly_the_same_images_in_bf16() {
    let [whole, parts] = whole_and_parts(Precision::Bf16);
    let bytes =
        |images: &[RgbImage]| -> Vec<u8> { images.iter().flat_map(|i| i.as_bytes().to_vec()).collect() };
    let (whole, parts) = (bytes(&whole), bytes(&parts));
    let squares: f64 = whole.iter().zip(&parts).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    let rms = (squares / whole.len() as f64).sqrt();
    assert!(rms <= 2.0, "parts of a batch are {rms:.3} grey levels off");
}

#[test]
fn the_stages_give_the_golden_image() {
    let golden = Golden::read("diver_e2e");
    let folder = backbone_folder();
    let refiner = refiner(folder.path(), Knobs::default());
    let z0 = refiner.encode(&golden.input("img")).unwrap();
    golden.check("z0", &z0);
    let (noise, y) = (golden.input("noise"), golden.integers("y"));
    let z = refiner.sample_latents(&z0, &y, &noise, &CancelToken::new(), &Silent).unwrap();
    golden.check("z_hat0", &z);
    golden.check("image01", &refiner.decode(&z).unwrap());
}

/// Floats and bytes of the same batch, in parts.
#[test]
fn refined_tensors_are_the_bytes_before_rounding() {
    let folder = backbone_folder();
    let mut refiner = Refiner::builder(folder.path())
        .device(device_choice())
        .dtype(Precision::F32)
        .batch_size(2)
        .build()
        .unwrap();
    let images = Tensor::rand([3, 3, 16, 16], (Kind::Float, tch::Device::Cpu));
    let keys: Vec<NoiseKey> =
        (0..3_u32).map(|i| NoiseKey { content: Digest::of(&i.to_le_bytes()), variant: 0 }).collect();
    let refined = refiner.refine_images(&images, &[1, 2, 3], &keys, &CancelToken::new(), &Silent).unwrap();
    let rounded = (refined * 255.0).round().to_kind(Kind::Uint8).permute([0, 2, 3, 1]).flatten(0, -1);

    let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
    let conditioning = classes([1, 2, 3]);
    let batch = RawBatch::new(&pixels, 16, 16, &conditioning, &keys).unwrap();
    let bytes = refiner.refine(&batch, &CancelToken::new(), &Silent).unwrap();
    let bytes: Vec<u8> = bytes.iter().flat_map(|image| image.as_bytes().to_vec()).collect();
    assert_eq!(Vec::<u8>::try_from(rounded).unwrap(), bytes);

    let error = refiner.refine_images(&images, &[1, 2], &keys, &CancelToken::new(), &Silent).unwrap_err();
    assert_eq!(
        error.to_string(),
        "images: 3 images, 2 classes and 3 keys was given, one or more, a class and a key for each is expected"
    );
    // Parts are of two images each, at most.
    let _ = images.get(2).get(0).get(3).get(3).fill_(f64::NAN);
    let error = refiner.refine_images(&images, &[1, 2, 3], &keys, &CancelToken::new(), &Silent).unwrap_err();
    assert!(error.to_string().starts_with("images: a value of image 2 that is not finite"), "{error}");
}

#[test]
fn a_released_refiner_reads_its_networks_again() {
    let folder = backbone_folder();
    let mut refiner = refiner(folder.path(), Knobs::default());
    let images = Tensor::rand([1, 3, 16, 16], (Kind::Float, common::device()));
    let before = refiner.encode(&images).unwrap();
    let fingerprint = refiner.fingerprint();
    refiner.release();
    assert_eq!((refiner.fingerprint(), refiner.num_classes()), (fingerprint, Some(10)));
    assert!(relative(&refiner.encode(&images).unwrap(), &before) <= common::tolerance());

    refiner.release();
    change_tensors(folder.path(), "vae", |tensors| tensors[0].1 = &tensors[0].1 + 1.0);
    let error = refiner.encode(&images).unwrap_err().to_string();
    assert!(error.contains("is not the backbone, or `vae` not the autoencoder, that"), "{error}");
    fs::remove_dir_all(folder.path().join("vae")).unwrap();
    refiner.set_knobs(Knobs::builder().gamma(0.2).build().unwrap()).unwrap();
    let error = refiner.encode(&images).unwrap_err().to_string();
    assert!(error.contains("vae/config.json") && error.ends_with("make a new refiner"), "{error}");
}

#[test]
fn keyed_noise_is_the_seeds() {
    let folder = backbone_folder();
    let mut refiner = refiner(folder.path(), Knobs::default());
    let z0 = Tensor::zeros([1, 4, 8, 8], (Kind::Float, common::device()));
    let keys = [NoiseKey { content: Digest::of(b"one image"), variant: 0 }];
    let run = |refiner: &Refiner, noise: Noise<'_>| {
        refiner.sample_latents(&z0, &[2], noise, &CancelToken::new(), &Silent).unwrap()
    };
    let keyed = run(&refiner, Noise::Keyed(&keys));
    let drawn = diver::method::latent_noise(0, &keys, [4, 8, 8]).unwrap();
    assert!(relative(&keyed, &run(&refiner, Noise::Given(&drawn))) <= common::tolerance());
    refiner.set_knobs(Knobs::builder().refine_seed(1).build().unwrap()).unwrap();
    assert!(relative(&keyed, &run(&refiner, Noise::Keyed(&keys))) > 1e-2);
}

#[test]
fn the_fingerprint_holds_what_makes_pixels() {
    let folder = backbone_folder();
    let of = |knobs| refiner(folder.path(), knobs).fingerprint().unwrap();
    let paper = of(Knobs::default());
    assert_eq!(paper, of(Knobs::default()));
    for field in ["algorithm", "knobs", "refine_seed", "backbone", "dtype", "resolution"] {
        assert!(!paper[field].is_null(), "{field}: {paper}");
    }
    assert_ne!(paper, of(Knobs::builder().gamma(0.2).build().unwrap()));
    assert_ne!(paper, of(Knobs::builder().refine_seed(1).build().unwrap()));

    let config = folder.path().join("vae/config.json");
    let mut changed: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    changed["scaling_factor"] = 0.5.into();
    fs::write(&config, changed.to_string()).unwrap();
    assert_ne!(paper["backbone"], of(Knobs::default())["backbone"]);

    let in_bf16 = Refiner::builder(backbone_folder().path())
        .device(device_choice())
        .dtype(Precision::Bf16)
        .build()
        .unwrap();
    let in_bf16 = in_bf16.fingerprint().unwrap();
    assert_eq!(paper["backbone"], in_bf16["backbone"]);
    assert_ne!(paper, in_bf16);
}

#[test]
fn one_bit_of_the_weights_changes_the_fingerprint() {
    let of = |folder: &Path| refiner(folder, Knobs::default()).fingerprint().unwrap();
    let paper = of(backbone_folder().path());
    for part in ["transformer", "vae"] {
        let folder = backbone_folder();
        let path = folder.path().join(part).join("diffusion_pytorch_model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        // The lowest byte of the last value, which no other copies.
        let at = bytes.len() - 4;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let changed = of(folder.path());
        assert_ne!(paper["backbone"], changed["backbone"], "{part}");
        assert_ne!(paper, changed, "{part}");
    }
}

#[test]
fn unknown_conditionings_are_refused() {
    let folder = backbone_folder();
    let mut refiner = refiner(folder.path(), Knobs::default());
    let refused = |c: &Conditioning| refiner.check_conditioning(c).unwrap_err().to_string();
    assert_eq!(refused(&Conditioning::Class(10)), "labels: class 10: this backbone knows the classes 0 to 9");
    let text = refused(&Conditioning::Prompt("a cat".to_owned()));
    assert!(text.ends_with("one of 10 classes, not on text"), "{text}");

    let (pixels, keys) = (vec![0.5; 768], [NoiseKey { content: Digest::of(b""), variant: 0 }]);
    let conditioning = classes([10]);
    let batch = RawBatch::new(&pixels, 16, 16, &conditioning, &keys).unwrap();
    assert!(refiner.refine(&batch, &CancelToken::new(), &Silent).is_err());
}

/// The message of a backbone that was changed by `damage`; it is one line and starts with the folder.
fn message(damage: impl FnOnce(&Path)) -> String {
    let folder = backbone_folder();
    damage(folder.path());
    let text = Refiner::builder(folder.path()).device(DeviceChoice::Cpu).build().unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text.strip_prefix(folder.path().to_str().unwrap())
        .unwrap_or_else(|| panic!("{text} names no file"))
        .trim_start_matches('/')
        .to_owned()
}

fn change_tensors(folder: &Path, part: &str, change: impl FnOnce(&mut Vec<(String, Tensor)>)) {
    let path = folder.join(part).join("diffusion_pytorch_model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    change(&mut tensors);
    Tensor::write_safetensors(&tensors, &path).unwrap();
}

fn change_config(folder: &Path, file: &str, key: &str, value: serde_json::Value) {
    let path = folder.join(file);
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn damaged_weights_name_file_and_key() {
    let file = "transformer/diffusion_pytorch_model.safetensors";
    let key = "transformer_blocks.1.attn1.to_k.weight";
    let missing = message(|folder| {
        change_tensors(folder, "transformer", |tensors| tensors.retain(|(name, _)| name != key));
    });
    assert_eq!(missing, format!("{file}: 1 key is missing ({key})"));

    let shape = message(|folder| {
        change_tensors(folder, "transformer", |tensors| {
            let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == key).unwrap();
            *tensor = tensor.narrow(0, 0, 16).contiguous();
        });
    });
    assert_eq!(shape, format!("{file}: 1 key does not fit ({key} is [16, 32] instead of [32, 32])"));

    let copy = message(|folder| {
        change_tensors(folder, "transformer", |tensors| {
            let part = "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight";
            let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == part).unwrap();
            *tensor = &*tensor + 1.0;
        });
    });
    assert!(copy.contains("embedding_table.weight differs from transformer_blocks.0"), "{copy}");

    let unknown = message(|folder| {
        change_tensors(folder, "vae", |tensors| {
            tensors.push(("encoder.extra".to_owned(), Tensor::zeros([1], (Kind::Float, tch::Device::Cpu))));
        });
    });
    assert_eq!(unknown, "vae/diffusion_pytorch_model.safetensors: 1 key is unknown (encoder.extra)");

    let cut = message(|folder| {
        let path = folder.join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert_eq!(cut, format!("{file}: was cut short, or has bytes after its tensors"));
}

#[test]
fn incomplete_folders_name_the_file() {
    let lost = |file: &'static str| message(move |folder| fs::remove_file(folder.join(file)).unwrap());
    assert!(lost("vae/config.json").starts_with("vae/config.json: cannot read: No such file"));
    assert!(
        lost("scheduler/scheduler_config.json").starts_with("scheduler/scheduler_config.json: cannot read")
    );
    assert_eq!(
        lost("vae/diffusion_pytorch_model.safetensors"),
        "vae: has no weights: no diffusion_pytorch_model.safetensors, model.safetensors or the like"
    );
}

#[test]
fn wrong_configurations_say_what_is_wrong() {
    let config = |file: &'static str, key: &'static str, value: serde_json::Value| {
        message(move |folder| change_config(folder, file, key, value))
    };
    let transformer = "transformer/config.json";
    assert!(config(transformer, "num_layers", 3.into()).contains("keys are missing (transformer_blocks."));
    // As placeholders, the stacked layers of so wide a network would not fit into memory.
    let wide = config(transformer, "attention_head_dim", 16_384.into());
    assert!(wide.starts_with("transformer/diffusion_pytorch_model.safetensors: "), "{wide}");
    assert!(wide.contains("keys do not fit ("), "{wide}");
    assert!(config(transformer, "attention_head_dim", 65_536.into()).contains("the width"));
    assert!(config(transformer, "sample_size", 65_536.into()).contains("the number of tokens"));
    assert!(config(transformer, "patch_size", 0.into()).contains("patch_size 0 is not from 1"));
    assert!(config(transformer, "norm_type", "layer_norm".into()).contains("is not ada_norm_zero"));
    assert!(
        config(transformer, "in_channels", 16.into()).contains("out_channels 8 is neither once nor twice")
    );
    assert_eq!(
        config("vae/config.json", "latent_channels", 16.into()),
        "vae/config.json: latents have 16 channels, and 4 in the diffusion model"
    );
    assert!(config("vae/config.json", "scaling_factor", (-1.0).into()).contains("is not above 0"));
    assert!(config("vae/config.json", "norm_num_groups", 7.into()).contains("does not divide 32"));
    let scheduler = "scheduler/scheduler_config.json";
    assert!(config(scheduler, "prediction_type", "v_prediction".into()).contains("is not epsilon"));
    assert!(config(scheduler, "rescale_betas_zero_snr", true.into()).contains("true is not supported"));
    assert!(config(scheduler, "_class_name", "FlowMatchHeunDiscreteScheduler".into()).contains("with betas"));
    assert!(config(scheduler, "beta_schedule", "cosine".into()).contains("neither linear nor scaled_linear"));
    assert!(config(scheduler, "beta_end", 1.5.into()).contains("does not rise within 0 and 1"));
}

#[test]
fn options_are_checked() {
    let folder = backbone_folder();
    let refused = |builder: diver::RefinerBuilder| builder.build().unwrap_err().to_string();
    let cpu = || Refiner::builder(folder.path()).device(DeviceChoice::Cpu);
    assert_eq!(refused(cpu().batch_size(0)), "batch_size: 0 must be at least 1");
    let knobs = Knobs::builder().steps(2000).build().unwrap();
    assert!(refused(cpu().knobs(knobs)).starts_with("chain: `dit` has no chain of 2000 steps"));
}

#[test]
fn bf16_stays_close_to_f32() {
    let golden = Golden::read("diver_e2e");
    let folder = backbone_folder();
    let refiner =
        Refiner::builder(folder.path()).device(device_choice()).dtype(Precision::Bf16).build().unwrap();
    let (z0, noise, y) = (golden.get("out.z0"), golden.input("noise"), golden.integers("y"));
    let z = refiner.sample_latents(z0, &y, &noise, &CancelToken::new(), &Silent).unwrap();
    let wanted = golden.get("out.z_hat0");
    let rms = |t: &Tensor| t.square().mean(Kind::Float).sqrt().double_value(&[]);
    let apart = rms(&(z.to_device(tch::Device::Cpu) - wanted)) / rms(wanted);
    assert!(apart < 0.1, "bf16 is {apart:.2e} off");
}

/// Cuts the tiny networks down to the first `channels` of a latent's four, and the variance head off.
fn cut_latents(folder: &Path, channels: i64) {
    change_config(folder, "transformer/config.json", "in_channels", channels.into());
    change_config(folder, "transformer/config.json", "out_channels", channels.into());
    change_config(folder, "vae/config.json", "latent_channels", channels.into());
    let cut = |tensor: &Tensor, dims: [Option<i64>; 2]| {
        let keep = |tensor: Tensor, (dim, kept): (i64, Option<i64>)| match kept {
            Some(kept) if dim < tensor.dim() as i64 => tensor.narrow(dim, 0, kept),
            _ => tensor,
        };
        (0..).zip(dims).fold(tensor.shallow_clone(), keep).contiguous()
    };
    let change = |tensors: &mut Vec<(String, Tensor)>| {
        for (name, tensor) in tensors {
            let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
            *tensor = match layer {
                "pos_embed.proj" | "decoder.conv_in" => cut(tensor, [None, Some(channels)]),
                "encoder.conv_out" => cut(tensor, [Some(2 * channels), None]),
                "quant_conv" => cut(tensor, [Some(2 * channels); 2]),
                "post_quant_conv" => cut(tensor, [Some(channels); 2]),
                "proj_out_2" => {
                    // Eight rows for each of 2 x 2 pixels.
                    let inputs = tensor.size()[1..].to_vec();
                    let pixels = tensor.view_([&[4, 8], &inputs[..]].concat());
                    cut(&pixels, [None, Some(channels)]).flatten(0, 1)
                }
                _ => continue,
            };
        }
    };
    change_tensors(folder, "transformer", change);
    change_tensors(folder, "vae", change);
}

#[test]
fn knobs_that_do_not_suit_the_backbone_are_refused() {
    let learned = Knobs::builder().sigma(Sigma::Learned).build().unwrap();
    let four = Knobs::builder().cfg_channels(4).build().unwrap();
    for (channels, knobs, expected) in [
        (4, learned, "sigma: `learned` needs a network with a variance head; this one has none"),
        (3, four, "cfg_channels: 4 is more than the 3 of a latent"),
    ] {
        let folder = backbone_folder();
        cut_latents(folder.path(), channels);
        let mut refiner = refiner(folder.path(), Knobs::default());
        assert_eq!(refiner.set_knobs(knobs.clone()).unwrap_err().to_string(), expected);
        assert_eq!(refiner.knobs(), &Knobs::default(), "the old settings stay");
        let builder = Refiner::builder(folder.path()).device(device_choice()).knobs(knobs);
        assert_eq!(builder.build().unwrap_err().to_string(), expected);
    }
}

#[test]
fn bytes_are_no_images() {
    let folder = backbone_folder();
    let bytes = Tensor::zeros([1, 3, 16, 16], (Kind::Uint8, common::device()));
    let error = refiner(folder.path(), Knobs::default()).encode(&bytes).unwrap_err().to_string();
    assert_eq!(error, "images: Uint8 was given, a floating-point dtype with values in [0, 1] is expected");
}

const CHILD: &str = "DIVER_TEST_CUDA_CHILD";

/// Runs in a process of its own: whether CUDA is there is decided once for each process.
#[test]
fn asking_for_cuda_works_or_says_what_is_missing() {
    let test = "asking_for_cuda_works_or_says_what_is_missing";
    if std::env::var_os(CHILD).is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let folder = backbone_folder();
    let must_work = std::env::var("DIVER_TEST_DEVICE").is_ok_and(|name| name.starts_with("cuda"));
    match Refiner::builder(folder.path()).device(DeviceChoice::Cuda(0)).build() {
        Ok(refiner) => {
            assert!(refiner.device().is_cuda());
            diver::load_cuda().unwrap();
            let far = Refiner::builder(folder.path())
                .device(DeviceChoice::Cuda(99))
                .build()
                .unwrap_err()
                .to_string();
            assert!(far.starts_with("device `cuda:99`: the last of"), "{far}");
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!must_work, "{text}");
            let named =
                ["libcuda.so.1", "libtorch_cuda.so", "sees no device"].iter().any(|part| text.contains(part));
            assert!(named && text.starts_with("device `cuda:0`: "), "{text}");
            assert!(text.ends_with("; the device `cpu` works without"), "{text}");
        }
    }
    let auto = Refiner::builder(folder.path()).build().unwrap();
    assert!(!must_work || auto.device().is_cuda());
    assert_eq!(auto.backbone().unwrap().resolution(), 16);
}
