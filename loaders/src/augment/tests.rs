use super::*;
use crate::{Normalize, options};
use proptest::prelude::*;

fn all() -> Vec<Augmentation> {
    vec![
        RandomResizedCrop::default().into(),
        HorizontalFlip::default().into(),
        ColorJitter::new(0.4, 0.4, 0.4, 0.1).unwrap().into(),
        Dsa::default().into(),
        Dsa::new("color_crop_cutout_flip_scale_rotate", DsaMode::Idc).unwrap().into(),
        CutMix::default().into(),
    ]
}

#[test]
fn lists_are_plain_json() {
    let json = r#"[{"random_resized_crop":{"scale":[0.5,1.0],"ratio":[1.0,1.0]}},{"horizontal_flip":{"p":0.25}},{"color_jitter":{"brightness":0.4,"contrast":0.0,"saturation":0.0,"hue":0.1}},{"dsa":{"strategy":"color_crop","mode":"idc"}},{"mix_up":{"alpha":0.8,"p":1.0}}]"#;
    let augment: Augment = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&augment).unwrap(), json);
    assert_eq!(augment.recipe()["augmentations"][0]["random_resized_crop"]["scale"][0], 0.5);
    assert_eq!(augment.recipe()["version"], 1);
    let usual = r#"[{"random_resized_crop": {}}, {"horizontal_flip": {}}, {"color_jitter": {}}, {"dsa": {}}, {"cut_mix": {}}]"#;
    let expected = Augment::new([
        RandomResizedCrop::default().into(),
        HorizontalFlip::default().into(),
        ColorJitter::default().into(),
        Dsa::default().into(),
        CutMix::default().into(),
    ]);
    assert_eq!(serde_json::from_str::<Augment>(usual).unwrap(), expected.unwrap());
    assert_eq!(options::schema::<Augment>()["type"], "array");
}

#[test]
fn what_cannot_be_is_refused_when_it_is_read() {
    for (json, mentioned) in [
        (r#"[{"random_resized_crop": {"scale": [1.0, 0.5]}}]"#, "scale"),
        (r#"[{"horizontal_flip": {"p": 2}}]"#, "p: 2 must be in [0, 1] (in `horizontal_flip`)"),
        (r#"[{"horizontal_flip": {"probability": 0.5}}]"#, "unknown field `probability`"),
        (r#"[{"color_jitter": {"hue": 0.6}}]"#, "hue"),
        (r#"[{"dsa": {"strategy": "colour"}}]"#, "did you mean `color`?"),
        (r#"[{"dsa": {"mode": "idcc"}}]"#, "did you mean `idc`?"),
        (r#"[{"cut_mix": {"alpha": 0}}]"#, "alpha"),
        (r#"[{"mix_up": {"p": -1}}]"#, "p: -1"),
        (r#"[{"cutmix": {}}]"#, "`cut_mix`"),
        (r#"[{"cut_mix": {}}, {"mix_up": {}}]"#, "both mix images"),
        (r#"[{"cut_mix": {}}, {"dsa": {}}]"#, "move it behind `dsa`"),
    ] {
        let error = serde_json::from_str::<Augment>(json).unwrap_err().to_string();
        assert!(error.contains(mentioned), "{json}: {error}");
    }
}

#[test]
fn where_nothing_is_drawn_nothing_is_done() {
    let idle = Augment::new([
        HorizontalFlip::new(0.0).unwrap().into(),
        ColorJitter::default().into(),
        Dsa::new("none", DsaMode::Dsa).unwrap().into(),
        MixUp::new(1.0, 0.0).unwrap().into(),
    ]);
    assert!(idle.unwrap().draw(0, 0, &[0, 1], [4, 4]).is_identity());
    assert!(Augment::default().draw(0, 0, &[0], [4, 4]).is_identity() && Augment::default().is_empty());
    assert!(Augment::new(all()).unwrap().draw(0, 0, &[], [4, 4]).is_identity());
    // An image without pixels has no views, but drawing them does no harm.
    assert!(!Augment::new(all()).unwrap().draw(0, 0, &[0], [0, 0]).is_identity());
}

#[test]
fn the_same_augmentation_twice_draws_twice() {
    let flips = Augment::new(vec![HorizontalFlip::default().into(); 2]).unwrap();
    let positions: Vec<u64> = (0..64).collect();
    let views = flips.draw(0, 0, &positions, [1, 1]);
    assert_ne!(views.steps()[0], views.steps()[1]);
    // Another kind in between moves nothing.
    let [flip, crop] = [HorizontalFlip::default().into(), RandomResizedCrop::default().into()];
    let apart: Augment = Augment::new([flip, crop, HorizontalFlip::default().into()]).unwrap();
    assert_eq!(apart.draw(0, 0, &positions, [1, 1]).steps()[2], views.steps()[1]);
}

#[test]
fn views_are_stable_across_versions() {
    let mut list = all();
    // IDC's variant draws by the same functions, and more of them.
    list.remove(3);
    let crop = |[top, left, height, width]: [usize; 4]| Crop { top, left, height, width };
    let color = |[brightness, saturation, contrast]: [f32; 3]| Color { brightness, saturation, contrast };
    let turn = |cos: f64, sin: f64| Affine { matrix: [[cos, -sin], [sin, cos]] };
    use Adjustment::{Brightness, Contrast, Hue, Saturation};
    let steps = [
        Step::Crop([[12, 7, 15, 16], [8, 4, 15, 17], [2, 3, 22, 21]].map(crop).to_vec()),
        Step::Flip(vec![false, true, true]),
        Step::Jitter(vec![
            [Saturation(0.9552817), Hue(-0.07484059), Brightness(1.1100891), Contrast(1.1984929)].map(Some),
            [Brightness(0.7481858), Hue(0.041937348), Saturation(1.3610165), Contrast(0.8106822)].map(Some),
            [Saturation(0.6258781), Brightness(1.1997198), Contrast(1.0173966), Hue(0.02050418)].map(Some),
        ]),
        Step::Flip(vec![false, true, false]),
        Step::Color(vec![
            color([-0.13815483, 0.13042086, 1.129177]),
            color([-0.286139, 1.7939792, 1.0631969]),
            color([-0.06704575, 1.7959515, 1.0076853]),
        ]),
        Step::Affine(vec![
            turn(0.9909823360327689, 0.13399257319357818),
            turn(0.9900090053982231, 0.1410041461462078),
            turn(0.9952459590009177, -0.09739343454434461),
        ]),
        Step::Cutout(
            [[5, 9, 21, 21], [0, 16, 10, 24], [4, 0, 20, 8]].map(|bounds| Cutout { bounds }).to_vec(),
        ),
    ];
    let mixed = Mixed { partners: vec![1, 0, 2], share: 0.96875, bounds: Some([2, 6, 8, 10]) };
    let views = Augment::new(list).unwrap().draw(7, 1, &[5, 6, 8], [32, 24]);
    assert_eq!(views, Views::new(steps, Some(mixed)));
    let up = Augment::new([MixUp::default().into()]).unwrap().draw(7, 1, &[5, 6, 8], [32, 24]);
    assert_eq!(up.mix(), Some(&Mixed { partners: vec![2, 1, 0], share: 0.159091362468358, bounds: None }));
}

/// A batch of `rows` images of `size` with values beyond what pixels normalise to, and one-hot targets of 3 classes.
fn batch(rows: usize, channels: usize, [height, width]: [usize; 2]) -> (Vec<f32>, Vec<f32>) {
    let values = rows * channels * height * width;
    let images = (0..values).map(|place| ((place * 37 + 11) % 101) as f32 / 15.0 - 3.3).collect();
    let targets = (0..rows * 3).map(|place| f32::from(u8::from(place % 3 == place / 3 % 3))).collect();
    (images, targets)
}

proptest! {
    #[test]
    fn a_view_depends_on_its_position_alone(
        seed: u64, epoch: u64, start in 0..u64::MAX - 9, channels in prop::sample::select(vec![1_usize, 3]),
        size in [1_usize..20, 1_usize..20]
    ) {
        // All that is drawn for each sample.
        let augment = Augment::new(&all()[..3]).unwrap();
        let positions: Vec<u64> = (start..start + 5).collect();
        let shape = |rows| [rows, channels, size[0], size[1]];
        let (mut images, mut targets) = batch(5, channels, size);
        let before = (images.clone(), targets.clone());
        let views = augment.draw(seed, epoch, &positions, size);
        views.apply(&mut images, shape(5), &mut targets, 3, &Normalize::IMAGENET).unwrap();
        let per_image = images.len() / 5;
        for (row, position) in positions.iter().enumerate() {
            let mut alone = before.0[row * per_image..(row + 1) * per_image].to_vec();
            let view = augment.draw(seed, epoch, &[*position], size);
            view.apply(&mut alone, shape(1), &mut [], 0, &Normalize::IMAGENET).unwrap();
            prop_assert_eq!(&alone, &images[row * per_image..(row + 1) * per_image]);
        }
        prop_assert_eq!(targets, before.1);
    }

    #[test]
    fn whatever_is_drawn_can_be_applied(
        seed: u64, rows in 1_u64..6, channels in prop::sample::select(vec![1_usize, 3]),
        size in [1_usize..24, 1_usize..24]
    ) {
        let augment = Augment::new(all()).unwrap();
        let positions: Vec<u64> = (0..rows).collect();
        let rows = positions.len();
        let (mut images, mut targets) = batch(rows, channels, size);
        let views = augment.draw(seed, 0, &positions, size);
        let shape = [rows, channels, size[0], size[1]];
        views.apply(&mut images, shape, &mut targets, 3, &Normalize::IMAGENET).unwrap();
        prop_assert!(images.iter().all(|value| value.is_finite()));
        for target in targets.chunks_exact(3) {
            prop_assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        prop_assert_eq!(augment.draw(seed, 0, &positions, size), views);
    }
}
