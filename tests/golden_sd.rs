//! Stable Diffusion's networks against the reference: text encoder, UNet, and the whole method on them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, Worst, config, place, relative, stable_diffusion_folder, weights};
use diver::backbone::{ClipText, ClipTokenizer, Place, StableDiffusion, Unet, UnetConfig, Weights};
use diver::method::{Denoiser, Sampler};
use diver::{Chain, ChainKind, Knobs, Mode, NoiseSchedule};
use serde_json::{Value, json};
use std::fs;
use tch::{Device, Kind, Tensor};

const PROMPTS: [&str; 2] = ["a photo of a d", "a photo of a h"];

fn unet() -> Unet {
    Unet::new(config("unet_tiny"), weights("unet_tiny"), place()).unwrap()
}

fn text() -> ClipText {
    ClipText::new(config("clip_tiny"), weights("clip_tiny"), place()).unwrap()
}

fn networks() -> StableDiffusion {
    StableDiffusion::from_folder(stable_diffusion_folder().path(), common::device(), Kind::Float).unwrap()
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::scaled_linear(0.00085, 0.012, 1000).unwrap()
}

#[test]
fn prompts_become_embeddings() {
    let golden = Golden::read("diver_sd");
    let networks = networks();
    for (ids, prompts) in [("ids", &PROMPTS[..]), ("ids_uncond", &[""])] {
        let found: Vec<i64> =
            prompts.iter().flat_map(|prompt| networks.tokenizer().ids(prompt).unwrap()).collect();
        assert_eq!(found, Vec::<i64>::try_from(golden.get(&format!("in.{ids}")).flatten(0, -1)).unwrap());
    }
    let mut worst = Worst::default();
    worst.see(golden.check("emb_cond", &text().forward(&golden.input("ids")).unwrap()), "emb_cond");
    worst
        .see(golden.check("emb_uncond", &text().forward(&golden.input("ids_uncond")).unwrap()), "emb_uncond");
    worst.report("diver_sd, text encoder");
}

#[test]
fn keys_of_every_transformers_are_read() {
    let golden = Golden::read("diver_sd");
    let path = common::data().join("clip_tiny.safetensors");
    let tensors = Tensor::read_safetensors(&path).unwrap();
    let read = |prefix: &str| {
        let name = |name: &str| format!("{prefix}{}", name.strip_prefix("text_model.").unwrap());
        let mut tensors: Vec<_> = tensors.iter().map(|(n, t)| (name(n), t.shallow_clone())).collect();
        let positions = Tensor::arange(77, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        tensors.push((format!("{prefix}embeddings.position_ids"), positions));
        let folder = tempfile::tempdir().unwrap();
        Tensor::write_safetensors(&tensors, folder.path().join("model.safetensors")).unwrap();
        ClipText::new(config("clip_tiny"), Weights::read_folder(folder.path()).unwrap(), place()).unwrap()
    };
    for prefix in ["", "text_model."] {
        golden.check("emb_cond", &read(prefix).forward(&golden.input("ids")).unwrap());
    }
}

#[test]
fn forward_pass() {
    let golden = Golden::read("diver_sd");
    let (x, t) = (golden.input("fwd_x"), golden.input("fwd_t"));
    let prompts = golden.get("out.emb_cond").to_device(common::device());
    let unet = unet();
    let found = unet.forward(&x, &t, &prompts).unwrap();
    let mut worst = Worst::default();
    worst.see(golden.check("unet_forward", &found), "unet_forward");
    worst.report("diver_sd, UNet");

    // The rows in another order and number, and prompts that are told by row.
    let more = Tensor::from_slice(&[1_i64, 0, 1]).to_device(common::device());
    let pick = |tensor: &Tensor| tensor.index_select(0, &more);
    let other = unet.forward(&pick(&x), &pick(&t), &pick(&prompts)).unwrap();
    assert!(relative(&other, &pick(&found)) <= common::tolerance());
    let context = unet.context(&prompts, Some(&[1, 0, 1])).unwrap();
    let other = unet.forward_in(&pick(&x), &pick(&t), &context).unwrap();
    assert!(relative(&other, &pick(&found)) <= common::tolerance());

    // One prompt and one time for all.
    let one = |tensor: &Tensor| tensor.narrow(0, 0, 1);
    let all = unet.forward(&x, &one(&t), &one(&prompts)).unwrap();
    let first = unet.forward(&one(&x), &one(&t), &one(&prompts)).unwrap();
    assert!(relative(&one(&all), &first) <= common::tolerance());
    let context = unet.context(&prompts, Some(&[0])).unwrap();
    let told = unet.forward_in(&x, &one(&t), &context).unwrap();
    assert!(relative(&told, &all) <= common::tolerance());
}

#[test]
fn forward_pass_in_bf16() {
    let golden = Golden::read("diver_sd");
    let unet = Unet::new(
        config("unet_tiny"),
        weights("unet_tiny"),
        Place { device: common::device(), kind: Kind::BFloat16 },
    )
    .unwrap();
    let prompts = golden.get("out.emb_cond").to_device(common::device());
    let found = unet.forward(&golden.input("fwd_x"), &golden.input("fwd_t"), &prompts).unwrap();
    assert_eq!(found.kind(), Kind::BFloat16);
    let mut worst = Worst::default();
    worst.see(golden.check_within("unet_forward", &found, 3e-2), "unet_forward");
    worst.report("diver_sd, UNet in bf16");
}

#[test]
fn linear_projections_are_convolutions() {
    let golden = Golden::read("diver_sd");
    let path = common::data().join("unet_tiny.safetensors");
    let tensors = Tensor::read_safetensors(&path).unwrap().into_iter().map(|(name, tensor)| {
        let is_projection = name.ends_with("proj_in.weight") || name.ends_with("proj_out.weight");
        let tensor = if is_projection { tensor.flatten(1, -1) } else { tensor };
        (name, tensor)
    });
    let mut fields: Value = config("unet_tiny");
    fields["use_linear_projection"] = true.into();
    let config: UnetConfig = serde_json::from_value(fields).unwrap();
    let unet = Unet::new(config, Weights::from_tensors(&path, tensors), place()).unwrap();
    let prompts = golden.get("out.emb_cond").to_device(common::device());
    golden.check(
        "unet_forward",
        &unet.forward(&golden.input("fwd_x"), &golden.input("fwd_t"), &prompts).unwrap(),
    );
}

#[test]
fn the_whole_method() {
    let golden = Golden::read("diver_sd");
    let networks = networks();
    let net = networks.guided(&PROMPTS, 7.5).unwrap();
    let (z0, noise) = (golden.input("z0"), golden.input("noise"));
    let mut worst = Worst::default();
    for mode in [Mode::Full, Mode::Raw, Mode::SiSg] {
        let knobs = Knobs::builder().mode(mode).chain(ChainKind::SdLeading1).build().unwrap();
        let chain = Chain::new(knobs.chain(), knobs.steps(), &schedule()).unwrap();
        let mut sampler = Sampler::new(&chain, &knobs, &z0, &noise).unwrap();
        let (mut latents, mut eps) = (vec![sampler.latent().copy()], Vec::new());
        while let Some(prediction) = sampler.step(&net).unwrap() {
            assert!(prediction.variance.is_none());
            latents.push(sampler.latent().copy());
            eps.push(prediction.eps);
        }
        if mode == Mode::Full {
            let expected = golden.get("out.traj.full");
            assert_eq!(expected.size()[0], latents.len() as i64);
            for (j, latent) in latents.iter().enumerate() {
                let apart = relative(latent, &expected.get(j as i64));
                assert!(apart <= common::tolerance(), "traj.full[{j}] is {apart:.2e} off");
                worst.see(apart, &format!("traj.full[{j}]"));
            }
            worst.see(golden.check("eps_full", &Tensor::stack(&eps, 0)), "eps_full");
        } else {
            let key = format!("final.{mode}");
            worst.see(golden.check(&key, sampler.latent()), &key);
        }
    }
    worst.report("diver_sd, trajectories");
}

#[test]
fn a_scale_of_one_is_the_conditional_branch() {
    let golden = Golden::read("diver_sd");
    let networks = networks();
    let z = golden.input("z0");
    let alone = networks.guided(&PROMPTS, 1.0).unwrap().predict(&z, 501).unwrap().eps;
    let prompts = golden.get("out.emb_cond").to_device(common::device());
    let full = unet().forward(&z, &Tensor::from_slice(&[501_i64]), &prompts).unwrap();
    assert!(relative(&alone, &full) <= common::tolerance());

    // A prompt of an earlier batch, among others of this one, and alone.
    let of = |prompts: &[&str], rows: i64| {
        let z = z.narrow(0, 1, 1).repeat([rows, 1, 1, 1]);
        networks.guided(prompts, 7.5).unwrap().predict(&z, 501).unwrap().eps
    };
    let three = of(&["a d", PROMPTS[1], ""], 3);
    assert!(relative(&three.narrow(0, 1, 1), &of(&PROMPTS[1..], 1)) <= common::tolerance());
}

#[test]
fn what_does_not_fit_is_refused() {
    let networks = networks();
    let refused = networks.guided(&[], 7.5).unwrap_err().to_string();
    assert_eq!(refused, "no prompt: one is needed for each image");
    let net = networks.guided(&PROMPTS, 7.5).unwrap();
    let refused = |shape: &[i64]| {
        let z = Tensor::zeros(shape, (Kind::Float, common::device()));
        net.predict(&z, 0).unwrap_err().to_string()
    };
    assert_eq!(refused(&[3, 4, 8, 8]), "latents: [3, 4, 8, 8] was given, [2, 4, h, w] is expected");
    let expected = "latents: [4, 4, 8, 12] was given, [B, 4, h, w] with sides that 8 divides is expected";
    assert_eq!(refused(&[2, 4, 8, 12]), expected);

    let unet = unet();
    let float = (Kind::Float, common::device());
    let (x, t, prompts) =
        (Tensor::zeros([2, 4, 8, 8], float), Tensor::zeros([2], float), Tensor::zeros([2, 77, 16], float));
    let refused =
        |x: &Tensor, t: &Tensor, prompts: &Tensor| unet.forward(x, t, prompts).unwrap_err().to_string();
    let expected = "embeddings: [2, 77, 12] was given, [U, tokens, 16] is expected";
    assert_eq!(refused(&x, &t, &prompts.narrow(2, 0, 12)), expected);
    let expected = "timesteps: [3] was given, [2] or [1] is expected";
    assert_eq!(refused(&x, &Tensor::zeros([3], float), &prompts), expected);
    let expected = "latents: 1 was given, 2 rows, one a prompt is expected";
    assert_eq!(refused(&x.narrow(0, 0, 1), &t, &prompts), expected);
    assert!(
        unet.context(&prompts, Some(&[0, 2])).unwrap_err().to_string().starts_with("rows: [0, 2] was given")
    );

    let refused = |ids: &[i64]| {
        let ids = Tensor::from_slice(ids).unsqueeze(0);
        text().forward(&ids).unwrap_err().to_string()
    };
    assert_eq!(refused(&[62, 64]), "token ids: 62 to 64 was given, 0 to 63 is expected");
    assert_eq!(
        refused(&[1; 78]),
        "token ids: [1, 78] was given, [R, tokens] with 1 to 77 tokens is expected"
    );
}

#[test]
fn weights_that_are_not_the_configurations_are_refused() {
    let path = common::data().join("unet_tiny.safetensors");
    let with = |fields: Value, missing: &str| {
        let mut all: Value = config("unet_tiny");
        for (name, value) in fields.as_object().unwrap() {
            all[name] = value.clone();
        }
        let tensors =
            Tensor::read_safetensors(&path).unwrap().into_iter().filter(|(name, _)| name != missing);
        let config: UnetConfig = serde_json::from_value(all).unwrap();
        Unet::new(config, Weights::from_tensors("unet", tensors), place()).unwrap_err().to_string()
    };
    let key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    assert_eq!(with(json!({}), key), format!("unet: 1 key is missing ({key})"));
    let found = with(json!({"cross_attention_dim": 24}), "");
    assert!(found.starts_with("unet: 32 keys do not fit (down_blocks.0.attentions.0."), "{found}");
    assert!(found.contains("attn2.to_k.weight is [8, 16] instead of [8, 24]"), "{found}");
    let found = with(json!({"layers_per_block": 1}), "");
    assert!(found.contains("keys are unknown"), "{found}");
    // A slip of the keys would take all memory if placeholders were real.
    let found = with(json!({"block_out_channels": [65536, 65536, 65536, 65536]}), "");
    assert!(found.contains("keys do not fit"), "{found}");
}

#[test]
fn folders_that_are_not_whole_are_refused() {
    let folder = stable_diffusion_folder();
    let from = || StableDiffusion::from_folder(folder.path(), common::device(), Kind::Float);
    let refused = || from().unwrap_err().to_string();
    let digest = from().unwrap().digest().unwrap();
    assert_eq!(from().unwrap().digest(), Some(digest));

    let edit = |part: &str, field: &str, value: Value| {
        let path = folder.path().join(part).join("config.json");
        let before = fs::read_to_string(&path).unwrap();
        let mut fields: Value = serde_json::from_str(&before).unwrap();
        fields[field] = value;
        fs::write(&path, fields.to_string()).unwrap();
        let found = refused();
        fs::write(&path, before).unwrap();
        found
    };
    let found = edit("unet", "class_embed_type", "timestep".into());
    assert!(
        found.contains("unet/config.json: ")
            && found.contains("class_embed_type: \"timestep\" is not supported")
    );
    let found = edit("text_encoder", "model_type", "t5".into());
    assert!(found.ends_with("model_type `t5` is not clip_text_model"), "{found}");
    let found = edit("text_encoder", "hidden_act", "relu".into());
    assert!(found.ends_with("hidden_act `relu` is neither quick_gelu nor gelu"), "{found}");

    let merges = folder.path().join("tokenizer/merges.txt");
    let before = fs::read_to_string(&merges).unwrap();
    for (line, expected) in [
        ("p h o", "line 7: `p h o` is not two tokens"),
        (
            "photo</w> photo</w>",
            "`photo</w>photo</w>`, of merge `photo</w> photo</w>`, is not in the vocabulary",
        ),
        ("q h", "`q`, of merge `q h`, is not in the vocabulary"),
    ] {
        fs::write(&merges, format!("{before}{line}\n")).unwrap();
        let found = refused();
        assert!(found.ends_with(&format!("merges.txt: {expected}")), "{found}");
    }
    fs::write(&merges, &before).unwrap();
    let config = folder.path().join("tokenizer/tokenizer_config.json");
    fs::write(&config, r#"{"pad_token": "!"}"#).unwrap();
    assert!(refused().ends_with("`!`, a special token, is not in the vocabulary"), "{}", refused());
    fs::write(&config, r#"{"model_max_length": 1}"#).unwrap();
    assert!(refused().ends_with("tokenizer: model_max_length 1 has no room for a prompt"), "{}", refused());
    fs::write(&config, r#"{"model_max_length": 80}"#).unwrap();
    assert!(refused().ends_with("model_max_length: 80 exceeds max_position_embeddings 77"), "{}", refused());
    fs::write(&config, r#"{"model_max_length": 40}"#).unwrap();
    assert_ne!(from().unwrap().digest(), Some(digest));
    fs::remove_file(&config).unwrap();
    fs::remove_file(folder.path().join("tokenizer/vocab.json")).unwrap();
    assert!(refused().contains("tokenizer/vocab.json: cannot read"), "{}", refused());
}

#[derive(serde::Deserialize)]
struct Case {
    prompt: String,
    ids: Vec<i64>,
}

fn check_tokenizer(tokenizer: &ClipTokenizer) {
    let text = fs::read_to_string(common::data().join("tokenizer/prompts.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    for case in cases {
        assert_eq!(tokenizer.ids(&case.prompt).unwrap(), case.ids, "{:?}", case.prompt);
    }
}

#[test]
fn prompts_are_tokenized_as_by_transformers() {
    let source = common::data().join("tokenizer");
    let reference = ClipTokenizer::from_folder(&source).unwrap();
    check_tokenizer(&reference);

    // The same vocabulary in the one file of newer versions, merges in either of its spellings.
    let folder = tempfile::tempdir().unwrap();
    for name in ["special_tokens_map.json", "tokenizer_config.json"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let vocabulary: Value =
        serde_json::from_str(&fs::read_to_string(source.join("vocab.json")).unwrap()).unwrap();
    let merges = fs::read_to_string(source.join("merges.txt")).unwrap();
    let lines: Vec<&str> = merges.lines().skip(1).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    for merges in [json!(lines), json!(pairs)] {
        let file = json!({"model": {"type": "BPE", "vocab": &vocabulary, "merges": merges}});
        fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
        check_tokenizer(&tokenizer);
        assert_eq!(tokenizer.digest(), reference.digest());
    }
    let file = json!({"model": {"type": "Unigram", "vocab": {}, "merges": []}});
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    let refused = ClipTokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(refused.ends_with("tokenizer.json: model.type `Unigram` is not BPE"), "{refused}");
}

#[test]
fn padding_is_what_the_files_say() {
    let folder = stable_diffusion_folder();
    let path = folder.path().join("tokenizer");
    fs::write(path.join("tokenizer_config.json"), r#"{"model_max_length": 6}"#).unwrap();
    fs::write(path.join("special_tokens_map.json"), r#"{"pad_token": {"content": "a</w>"}}"#).unwrap();
    let tokenizer = ClipTokenizer::from_folder(&path).unwrap();
    assert_eq!(tokenizer.ids("of d").unwrap(), [62, 7, 13, 63, 5, 5]);
    // A letter that the vocabulary lacks is unknown; what is too long ends in the last token all the same.
    assert_eq!(tokenizer.ids("x a a a of d").unwrap(), [62, 63, 5, 5, 5, 63]);
}
