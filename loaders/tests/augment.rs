//! Augmentation against torchvision and DSA's published code (`tests/golden/make_augment_golden.py`).
#![allow(clippy::unwrap_used)]

use diver_loaders::Normalize;
use diver_loaders::augment::{Adjustment, Affine, Color, Crop, Cutout, Mixed, Shift, Step, Views};
use safetensors::SafeTensors;
use std::path::Path;

/// The tensors of the golden file.
struct Golden(Vec<u8>);

/// One case: a batch, parameters, and what they make of it.
struct Case<'a> {
    tensors: SafeTensors<'a>,
    name: String,
    shape: [usize; 4],
}

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/augment.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    /// The cases of a kind, of which there are some.
    fn cases(&self, kind: &str) -> Vec<Case<'_>> {
        let tensors = || SafeTensors::deserialize(&self.0).unwrap();
        let named = (0..).map(|number| format!("{kind}.{number}"));
        let shaped = named.map_while(|name| {
            let tensors = tensors();
            let shape = tensors.tensor(&format!("{name}.input")).ok()?.shape().try_into().unwrap();
            Some(Case { tensors, name, shape })
        });
        let cases: Vec<_> = shaped.collect();
        assert!(cases.len() >= 6, "{kind}");
        cases
    }
}

impl Case<'_> {
    fn values(&self, part: &str) -> Vec<f32> {
        let tensor = self.tensors.tensor(&format!("{}.{part}", self.name)).unwrap();
        tensor.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
    }

    /// The parameters of each sample.
    fn rows<const N: usize>(&self, part: &str) -> Vec<[f64; N]> {
        let values: Vec<f64> = self.values(part).into_iter().map(f64::from).collect();
        let (rows, rest) = values.as_chunks::<N>();
        assert!(rest.is_empty() && rows.len() == self.shape[0], "{}", self.name);
        rows.to_vec()
    }

    fn size(&self) -> [usize; 2] {
        [self.shape[2], self.shape[3]]
    }

    fn check(&self, step: Step) {
        let mut images = self.values("input");
        let views = Views::new([step], None);
        views.apply(&mut images, self.shape, &mut [], 0, &Normalize::IMAGENET).unwrap();
        self.assert_near("output", &images);
    }

    fn assert_near(&self, part: &str, found: &[f32]) {
        let expected = self.values(part);
        assert_eq!(found.len(), expected.len(), "{}", self.name);
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let apart = (found - expected).abs();
            assert!(apart <= 1e-5, "{}, {part}, value {place}: {found}, not {expected}", self.name);
        }
    }
}

#[test]
fn crops_are_torchvisions() {
    for case in Golden::read().cases("crop") {
        let boxes = case.rows("boxes").into_iter().map(|sides: [f64; 4]| {
            let [top, left, height, width] = sides.map(|side| side as usize);
            Crop { top, left, height, width }
        });
        case.check(Step::Crop(boxes.collect()));
    }
}

#[test]
fn flips_are_torchvisions() {
    for case in Golden::read().cases("flip") {
        case.check(Step::Flip(case.rows("flips").into_iter().map(|[flip]| flip == 1.0).collect()));
    }
}

#[test]
fn colour_jitter_is_torchvisions() {
    for case in Golden::read().cases("jitter") {
        let drawn = case.rows::<4>("orders").into_iter().zip(case.rows::<4>("factors"));
        let adjustments = drawn.map(|(order, factors)| {
            order.map(|kind| {
                let factor = factors[kind as usize] as f32;
                let adjustment = match kind as usize {
                    0 => Adjustment::Brightness(factor),
                    1 => Adjustment::Contrast(factor),
                    2 => Adjustment::Saturation(factor),
                    _ => Adjustment::Hue(factor),
                };
                (!factor.is_nan()).then_some(adjustment)
            })
        });
        case.check(Step::Jitter(adjustments.collect()));
    }
}

#[test]
fn mixes_are_torchvisions() {
    let golden = Golden::read();
    for kind in ["cut_mix", "mix_up"] {
        for case in golden.cases(kind) {
            let partners = case.rows("partners").into_iter().map(|[partner]| partner as usize).collect();
            let bounds = (kind == "cut_mix").then(|| {
                let bounds = case.values("bounds");
                std::array::from_fn(|side| bounds[side] as usize)
            });
            let mixed = Mixed { partners, share: f64::from(case.values("share")[0]), bounds };
            let (mut images, mut targets) = (case.values("input"), case.values("targets"));
            let views = Views::new([], Some(mixed));
            views.apply(&mut images, case.shape, &mut targets, 4, &Normalize::IMAGENET).unwrap();
            case.assert_near("output", &images);
            case.assert_near("mixed", &targets);
        }
    }
}

#[test]
fn operators_of_dsa_are_those_of_its_code() {
    let golden = Golden::read();
    for case in golden.cases("dsa_color") {
        let colors = case.rows("drawn").into_iter().map(|[brightness, saturation, contrast]| Color {
            brightness: (brightness - 0.5) as f32,
            saturation: (2.0 * saturation) as f32,
            contrast: (contrast + 0.5) as f32,
        });
        case.check(Step::Color(colors.collect()));
    }
    for case in golden.cases("dsa_crop") {
        let shift = |[rows, columns]: [f64; 2]| Shift { rows: rows as isize, columns: columns as isize };
        case.check(Step::Shift(case.rows("drawn").into_iter().map(shift).collect()));
    }
    for case in golden.cases("dsa_cutout") {
        let at = |centre: [f64; 2]| Cutout::at(centre.map(|place| place as usize), case.size());
        case.check(Step::Cutout(case.rows("drawn").into_iter().map(at).collect()));
    }
    for case in golden.cases("dsa_flip") {
        case.check(Step::Flip(case.rows("drawn").into_iter().map(|[unit]| unit < 0.5).collect()));
    }
    for case in golden.cases("dsa_scale") {
        let factor = |unit: f64| unit * (1.2 - 1.0 / 1.2) + 1.0 / 1.2;
        let maps = case.rows("drawn").into_iter().map(|[x, y]| Affine::scale(factor(x), factor(y)));
        case.check(Step::Affine(maps.collect()));
    }
    for case in golden.cases("dsa_rotate") {
        let maps = case.rows("drawn").into_iter();
        let maps = maps.map(|[unit]| Affine::rotation((unit - 0.5) * 2.0 * 15.0_f64.to_radians()));
        case.check(Step::Affine(maps.collect()));
    }
}
