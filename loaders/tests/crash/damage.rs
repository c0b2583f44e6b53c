//! Parts with damage: flipped bits, and ends that are missing.

use crate::sizes::{Random, sizes};
use crate::stub::{fingerprint, image, keys, maker};
use crate::switched::Switched;
use diver_loaders::cache::{ImageForm, ImageRow, PartStore as _, Partition, RowKey};
use diver_loaders::{Cache, CancelToken, Label};
use std::sync::Arc;

const ROWS: usize = 4;
const MAKER: u32 = 1;
/// Of a sound part that lies beside, with later rows of the same keys.
const LATER: u32 = 2;

/// The only partition's folder.
fn folder(store: &Switched) -> String {
    store.folders().unwrap().remove(0)
}

fn has_any(store: &Switched, extension: &str) -> bool {
    store.list(&folder(store)).unwrap().iter().any(|name| name.ends_with(extension))
}

fn part(store: &Switched) -> String {
    format!("{}/part-00000000.parquet", folder(store))
}

/// A row for each key, of samples 0, 1, ...
pub(crate) fn rows(maker: u32, keys: &[RowKey]) -> Vec<ImageRow> {
    let row = |(index, key): (usize, &RowKey)| ImageRow {
        key: *key,
        image: Arc::new(image(index as u32, maker)),
        // Damage within a raw image is found by its digest alone.
        form: [ImageForm::Png, ImageForm::Webp, ImageForm::Raw][index % 3],
        label: Label::Hard(0),
        index,
        variant: 0,
        seconds: 0.0,
    };
    keys.iter().enumerate().map(row).collect()
}

fn commit(partition: &Partition, rows: &[ImageRow]) {
    partition.commit(rows, &["cat".to_owned()]).unwrap();
}

/// A store with one part, of so many rows, and its bytes.
fn one_part(keys: &[RowKey]) -> (Switched, Vec<u8>) {
    let store = Switched::default();
    commit(&Cache::on(store.clone()).images(&fingerprint(0)).unwrap(), &rows(MAKER, keys));
    let bytes = store.get(&part(&store)).unwrap().to_vec();
    (store, bytes)
}

/// The same store, in which the part is another one.
fn with_part(bytes: &[u8]) -> (Switched, Partition) {
    let store = Switched::default();
    let cache = Cache::on(store.clone());
    cache.images(&fingerprint(0)).unwrap();
    store.put(&part(&store), bytes).unwrap();
    let partition = cache.images(&fingerprint(0)).unwrap();
    (store, partition)
}

/// Every row as it is read: right, or missing.
fn read(partition: &Partition, keys: &[RowKey], makers: &[u32], damage: &str) -> Vec<Option<u32>> {
    let read = |(sample, key): (usize, &RowKey)| {
        let image = partition.get(key).unwrap_or_else(|error| panic!("{damage}: {error}"))?;
        let maker = maker(&image, sample).filter(|maker| makers.contains(maker));
        Some(maker.unwrap_or_else(|| panic!("{damage}: a wrong row for sample {sample}: {image:?}")))
    };
    keys.iter().enumerate().map(read).collect()
}

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let mut random = Random::announced("flips");
    let keys = keys(ROWS);
    let (_, sound) = one_part(&keys);
    let (mut set_aside, mut left_alone, mut missed, mut harmless) = (0, 0, 0, 0);
    for _ in 0..sizes().flips {
        let (at, bit) = (random.below(sound.len()), random.below(8));
        let damage = format!("bit {bit} of byte {at}");
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << bit;
        let (store, partition) = with_part(&bytes);
        let found = read(&partition, &keys, &[MAKER], &damage);
        match (has_any(&store, ".corrupt"), found.iter().filter(|found| found.is_some()).count()) {
            // Some rows may have been read before the damage was met.
            (true, _) => set_aside += 1,
            (false, ROWS) => harmless += 1,
            // Taken for one of a newer format.
            (false, 0) => left_alone += 1,
            // The damage is in the name of a row.
            (false, _) => missed += 1,
        }
        // What is missing is made again, and read.
        let again: Vec<ImageRow> =
            rows(LATER, &keys).into_iter().filter(|row| !partition.contains(&row.key)).collect();
        commit(&partition, &again);
        assert!(read(&partition, &keys, &[MAKER, LATER], &damage).iter().all(Option::is_some), "{damage}");
        // Gathering carries no damage on.
        let (store, partition) = with_part(&bytes);
        commit(&partition, &rows(LATER, &keys));
        partition.compact(&CancelToken::new()).unwrap();
        let gathered = Cache::on(store).images(&fingerprint(0)).unwrap();
        read(&gathered, &keys, &[MAKER, LATER], &damage);
        assert!(read(&partition, &keys, &[MAKER, LATER], &damage).iter().all(Option::is_some), "{damage}");
    }
    println!(
        "flips: {} bits of {} bytes: {set_aside} parts were set aside, {left_alone} left alone, of {missed} some rows \
         were missed, {harmless} were harmless",
        sizes().flips,
        sound.len()
    );
    assert!(set_aside * 5 > sizes().flips, "damage is found");
}

#[test]
fn a_part_that_is_cut_short_is_found() {
    let keys = keys(2);
    let (_, sound) = one_part(&keys);
    for length in (0..sound.len()).step_by(sizes().truncation_step).chain([sound.len() - 1]) {
        let (store, partition) = with_part(&sound[..length]);
        let damage = format!("{length} of {} bytes", sound.len());
        assert_eq!(read(&partition, &keys, &[MAKER], &damage), [None, None], "{damage}");
        assert!(has_any(&store, ".corrupt") && !has_any(&store, ".parquet"), "{damage}");
    }
    println!("truncations: of {} bytes, each found", sound.len());
}
