//! Tables as people have them: what each library writes, columns of all names and types, folders of several files, and
//! reading no more than is asked for.
#![allow(clippy::unwrap_used)]

use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, Int64Array, LargeBinaryArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use diver_loaders::source::{Columns, conformance};
use diver_loaders::{Error, Label, LabelKind, OpenOptions, Source, StoredPixels, open};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use proptest::prelude::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn tables() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tables").canonicalize().unwrap()
}

fn refused(options: &OpenOptions, path: impl AsRef<Path>) -> Error {
    let path = path.as_ref();
    options.open(path).err().unwrap_or_else(|| panic!("{} must be refused", path.display()))
}

/// Pixel [c, y, x] of image i, as the script that made the fixtures has it.
fn of_fixtures(index: usize) -> Vec<u8> {
    let places = (0..3).flat_map(|c| (0..8).flat_map(move |y| (0..8).map(move |x| 60 * c + 8 * y + x)));
    places.map(|place| ((40 * index + place) % 256) as u8).collect()
}

fn check_fixture(source: &dyn Source, name: &str) {
    conformance::check(source);
    assert_eq!(
        (source.info().num_samples, source.info().num_classes, source.info().shape),
        (6, 3, [3, 8, 8]),
        "{name}"
    );
    for index in 0..6 {
        let sample = source.sample(index).unwrap();
        let pixels = match sample.pixels {
            StoredPixels::U8(bytes) => bytes,
            StoredPixels::F32(floats) => floats.iter().map(|value| (value * 255.0).round() as u8).collect(),
        };
        assert!(pixels == of_fixtures(index), "{name}: image {index}");
        assert_eq!(sample.label.class(), index % 3, "{name}: label {index}");
    }
}

#[test]
fn what_each_library_writes_is_read() {
    let mut read = 0;
    for entry in fs::read_dir(tables()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("refused_") {
            continue;
        }
        let mut options = OpenOptions::new();
        if matches!(name, "saved" | "hub") {
            options = options.split("train");
        }
        check_fixture(&options.open(&path).unwrap_or_else(|e| panic!("{e}")), name);
        read += 1;
    }
    assert!(read > 30, "{read} fixtures");
}

#[test]
fn what_is_read_and_what_is_not_is_noted() {
    let notes = |name: &str| open(tables().join(name)).unwrap().info().notes.join("\n");
    let text = notes("img_fine_label.parquet");
    assert!(text.contains("`fine_label`") && text.contains("not used: coarse_label"), "{text}");
    assert!(notes("jpg_cls.parquet").contains("not used: __key__"));
    assert!(notes("text_labels.parquet").contains("text"), "{}", notes("text_labels.parquet"));
    assert!(!notes("image_label.parquet").contains("not used"));
    let logits = open(tables().join("logits.parquet")).unwrap();
    assert_eq!(logits.info().labels, LabelKind::Logits);
    assert_eq!(logits.label(1).unwrap(), Label::Logits(vec![-2.0, 2.0, -2.0]));
    assert_eq!(
        open(tables().join("text_labels.parquet")).unwrap().info().classes.as_ref().unwrap()[2],
        "owl"
    );
}

#[test]
fn two_readings_are_asked_about_and_none_is_explained() {
    for (name, field, mentions) in [
        ("refused_two_labels", "label", &["label, target", "columns=\"label="][..]),
        ("refused_two_images", "image", &["image, mask", "columns=\"image="]),
        ("refused_no_label", "label", &["image", "columns=\"label="]),
        ("refused_unlabelled", "label", &["-1", "without labels"]),
        ("refused_flat", "image", &["flat list"]),
    ] {
        let error = refused(&OpenOptions::new(), tables().join(name).with_extension("parquet"));
        assert!(matches!(&error, Error::Field { field: found, .. } if found == field), "{error:?}");
        let text = error.to_string();
        assert!(mentions.iter().all(|word| text.contains(word)), "{text}");
    }
    let with = |columns: &str| OpenOptions::new().columns(columns.parse().unwrap());
    for (name, columns) in [
        ("refused_two_labels", "label=target"),
        ("refused_two_labels", "label=label"),
        ("refused_two_images", "image=mask"),
        ("own_names", "image=photo,label=species"),
    ] {
        let path = tables().join(name).with_extension("parquet");
        check_fixture(&with(columns).open(path).unwrap(), name);
    }
    let error = refused(&with("label=nonsuch"), tables().join("own_names.parquet"));
    assert!(matches!(error, Error::Config { option: "columns", .. }), "{error:?}");
    assert!(error.to_string().contains("photo") && error.to_string().contains("nonsuch"), "{error}");
    let error = refused(&with("label=photo"), tables().join("own_names.parquet"));
    assert!(matches!(error, Error::Field { .. }), "{error:?}");
    let columns = Columns { image: Some("a".into()), ..Columns::default() };
    let error = refused(&OpenOptions::new().columns(columns), tables().join("../torch/small.pt"));
    assert!(matches!(error, Error::Config { option: "columns", .. }), "{error:?}");
}

#[test]
fn folders_are_read_by_split() {
    let split = |split: &str| OpenOptions::new().split(split);
    for name in ["saved", "hub"] {
        let folder = tables().join(name);
        let text = refused(&OpenOptions::new(), &folder).to_string();
        assert!(
            text.contains("train") && text.contains("test") && text.contains("split=\"train\""),
            "{text}"
        );
        assert_eq!(split("test").open(&folder).unwrap().info().num_samples, 1);
        let error = refused(&split("validation"), &folder);
        assert!(matches!(error, Error::Config { option: "split", .. }), "{error:?}");
        assert!(error.to_string().contains("train"), "{error}");
    }
    let error = refused(&split("train"), tables().join("image_label.parquet"));
    assert!(matches!(error, Error::Config { option: "split", .. }), "{error:?}");
    // Files of what was computed are beside those of the set.
    check_fixture(&open(tables().join("saved/train")).unwrap(), "saved/train");

    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(tables().join("image_label.parquet"), path).unwrap();
    };
    copy("plain_text/train-00000-of-00001.parquet");
    check_fixture(&open(folder.path()).unwrap(), "one split of one configuration");
    copy("plain_text/test-00000-of-00001.parquet");
    check_fixture(&split("training").open(folder.path()).unwrap(), "by another name");
    copy("other/train/0000.parquet");
    let text = refused(&split("train"), folder.path()).to_string();
    assert!(text.contains("other, plain_text"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    for number in [0, 2] {
        let name = format!("train-0000{number}-of-00003.parquet");
        fs::copy(tables().join("image_label.parquet"), folder.path().join(name)).unwrap();
    }
    let source = open(folder.path()).unwrap();
    assert_eq!(source.info().num_samples, 12);
    assert!(source.info().notes.iter().any(|note| note.contains("3 files")), "{:?}", source.info().notes);
}

/// A PNG of one pixel.
fn png(pixel: [u8; 3]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(1, 1, image::Rgb(pixel))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

fn pixel(row: usize) -> [u8; 3] {
    [(row % 256) as u8, (row / 256 % 256) as u8, (row * 7 % 251) as u8]
}

fn batch(rows: std::ops::Range<usize>, kind: usize) -> RecordBatch {
    let pngs: Vec<Vec<u8>> = rows.clone().map(|row| png(pixel(row))).collect();
    let bytes: ArrayRef = match kind % 4 {
        1 => Arc::new(LargeBinaryArray::from_iter_values(&pngs)),
        2 => Arc::new(BinaryViewArray::from_iter_values(&pngs)),
        _ => Arc::new(BinaryArray::from_iter_values(&pngs)),
    };
    let image = if kind.is_multiple_of(2) {
        let paths: ArrayRef =
            Arc::new(StringArray::from_iter_values(rows.clone().map(|row| row.to_string())));
        let fields: Fields = vec![
            Field::new("path", DataType::Utf8, true),
            Field::new("bytes", bytes.data_type().clone(), true),
        ]
        .into();
        Arc::new(StructArray::new(fields, vec![paths, bytes], None))
    } else {
        bytes
    };
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| (row % 5) as i64)));
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.map(|row| format!("row {row}"))));
    let columns = match kind / 4 % 2 {
        0 => vec![("id", ids), ("image", image), ("label", labels)],
        _ => vec![("label", labels), ("image", image), ("id", ids)],
    };
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Reads all rows in an order that jumps about, from several threads.
fn check_rows(source: &dyn Source, rows: usize) {
    assert_eq!(source.info().num_samples, rows);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                for place in 0..rows {
                    let row = (place * 7919 + thread * 31) % rows;
                    let sample = source.sample(row).unwrap();
                    assert_eq!(sample.pixels, StoredPixels::U8(pixel(row).to_vec()), "row {row}");
                    assert_eq!(sample.label, Label::Hard(row % 5), "row {row}");
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parquet_reads_as_it_was_written(
        rows in 1_usize..400,
        kind in 0_usize..8,
        group in 1_usize..500,
        page in 1_usize..200,
        codec in 0_usize..6,
        has_dictionary: bool,
        has_index: bool,
        is_second: bool,
    ) {
        // 7919 is a prime, and so all rows are visited.
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let codec = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::BROTLI(Default::default()),
            Compression::LZ4_RAW,
            Compression::ZSTD(ZstdLevel::default()),
        ][codec];
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_max_row_group_row_count(Some(group))
            .set_data_page_row_count_limit(page)
            .set_write_batch_size(page)
            .set_dictionary_enabled(has_dictionary)
            .set_statistics_enabled(if has_index { EnabledStatistics::Page } else { EnabledStatistics::None })
            .set_offset_index_disabled(!has_index)
            .set_writer_version(if is_second { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 })
            .build();
        let batch = batch(0..rows, kind);
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        check_rows(&open(&path).unwrap(), rows);
    }

    #[test]
    fn arrow_reads_as_it_was_written(
        rows in 1_usize..400,
        kind in 0_usize..8,
        size in 1_usize..500,
        codec in 0_usize..3,
        is_file: bool,
    ) {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let codec = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)][codec];
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let batches = (0..rows).step_by(size).map(|first| batch(first..(first + size).min(rows), kind));
        let schema = batch(0..0, kind).schema();
        let file = File::create(&path).unwrap();
        if is_file {
            let mut writer = FileWriter::try_new_with_options(file, &schema, options).unwrap();
            batches.for_each(|batch| writer.write(&batch).unwrap());
            writer.finish().unwrap();
        } else {
            let mut writer = StreamWriter::try_new_with_options(file, &schema, options).unwrap();
            batches.for_each(|batch| writer.write(&batch).unwrap());
            writer.finish().unwrap();
        }
        check_rows(&open(&path).unwrap(), rows);
    }
}

/// Two files with as many rows of one image, of which none is left out as a repetition, and class 0 or 1.
fn large(folder: &Path, rows: usize) -> [PathBuf; 2] {
    let schema = Arc::new(Schema::new(vec![
        Field::new("image", DataType::Binary, false),
        Field::new("label", DataType::UInt8, false),
    ]));
    let image = png([1, 2, 3]);
    let batch = |count: usize| {
        let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(&image, count)));
        let labels: ArrayRef =
            Arc::new(arrow::array::UInt8Array::from_iter_values((0..count).map(|row| (row % 2) as u8)));
        RecordBatch::try_new(Arc::clone(&schema), vec![images, labels]).unwrap()
    };
    let [parquet, arrow] = ["large.parquet", "large.arrow"].map(|name| folder.join(name));
    let properties = WriterProperties::builder().set_column_dictionary_enabled("image".into(), false).build();
    let mut writer =
        ArrowWriter::try_new(File::create(&parquet).unwrap(), Arc::clone(&schema), Some(properties)).unwrap();
    let mut stream = StreamWriter::try_new(File::create(&arrow).unwrap(), &schema).unwrap();
    for _ in 0..rows.div_ceil(10_000) {
        let batch = batch(rows.min(10_000));
        writer.write(&batch).unwrap();
        stream.write(&batch).unwrap();
    }
    writer.close().unwrap();
    stream.finish().unwrap();
    [parquet, arrow]
}

#[test]
#[cfg(target_os = "linux")]
fn a_million_rows_open_by_their_footers_and_labels() {
    // Of this thread alone.
    let read = || {
        let text = fs::read_to_string("/proc/thread-self/io").unwrap();
        text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    for path in large(folder.path(), 1_000_000) {
        let length = fs::metadata(&path).unwrap().len();
        let before = read();
        let source = open(&path).unwrap();
        let opening = read() - before;
        assert_eq!((source.info().num_samples, source.info().num_classes), (1_000_000, 2));
        assert!(opening * 20 < length, "{}: {opening} of {length} bytes", path.display());
        let before = read();
        for row in [999_999, 0, 500_001] {
            let sample = source.sample(row).unwrap();
            assert_eq!(
                (sample.pixels, sample.label),
                (StoredPixels::U8(vec![1, 2, 3]), Label::Hard(row % 2))
            );
        }
        let reading = read() - before;
        assert!(reading * 10 < length, "{}: {reading} of {length} bytes", path.display());
    }
}

#[test]
fn a_file_that_changes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for path in large(folder.path(), 2000) {
        let source = open(&path).unwrap();
        assert!(source.sample(1500).is_ok());
        let whole = fs::read(&path).unwrap();
        // Written over, as a copy writes; and cut.
        for bytes in [vec![0; whole.len()], whole[..whole.len() / 2].to_vec(), whole.clone()] {
            fs::write(&path, bytes).unwrap();
            let outcomes = (0..2000).map(|row| source.sample(row));
            for outcome in outcomes {
                match outcome {
                    Ok(sample) => assert_eq!(sample.pixels, StoredPixels::U8(vec![1, 2, 3])),
                    Err(error) => assert!(error.to_string().contains("large."), "{error}"),
                }
            }
        }
        // Replaced: the open file is still the old one.
        let source = open(&path).unwrap();
        let other = folder.path().join("other");
        fs::write(&other, b"another").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(source.sample(1999).unwrap().pixels, StoredPixels::U8(vec![1, 2, 3]));
    }
}

#[test]
fn damage_found_late_names_file_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("late.parquet");
    let images = (0..2000).map(|row| if row == 1500 { b"junk".to_vec() } else { png([row as u8, 0, 0]) });
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(images));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values((0..2000).map(|row| row % 2)));
    let batch = RecordBatch::try_from_iter(vec![("image", images), ("label", labels)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let source = open(&path).unwrap();
    assert!(source.sample(1499).is_ok() && source.sample(1501).is_ok());
    match source.sample(1500).unwrap_err() {
        Error::Sample { path: found, index, .. } => assert_eq!((found, index), (path, 1500)),
        other => panic!("{other:?}"),
    }
}

/// A Parquet file of two images and their labels.
fn two(path: &Path, images: ArrayRef, labels: ArrayRef) {
    let batch = RecordBatch::try_from_iter([("image", images), ("label", labels)]).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn pictures() -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values([png(pixel(0)), png(pixel(1))]))
}

#[test]
fn labels_of_two_types_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("0.parquet"), folder.path().join("1.parquet"));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![3, 1]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["cat", "dog"]));
    for [of_first, of_second] in [[&numbers, &names], [&names, &numbers]] {
        two(&first, pictures(), Arc::clone(of_first));
        two(&second, pictures(), Arc::clone(of_second));
        let error = refused(&OpenOptions::new(), folder.path());
        assert!(matches!(&error, Error::Field { field, .. } if field == "label"), "{error:?}");
        let text = error.to_string();
        for word in ["0.parquet", "1.parquet", "Int64", "Utf8"] {
            assert!(text.contains(word), "{text}");
        }
    }
}

#[test]
fn data_beside_the_files_of_a_set_is_told() {
    for (other, is_told) in [
        ("0.PARQUET", true),
        ("0.pq", true),
        ("a.arrow", true),
        ("set.tar", true),
        ("x/0.parquet", true),
        ("labels.csv", true),
        ("README.md", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let labels = || Arc::new(Int64Array::from(vec![0, 1])) as ArrayRef;
        two(&folder.path().join("1.parquet"), pictures(), labels());
        two(&folder.path().join(other), pictures(), labels());
        let source = open(folder.path()).unwrap();
        assert_eq!(source.info().num_samples, 2, "{other}");
        let notes = source.info().notes.join("\n");
        assert_eq!(notes.contains(other.split('/').next().unwrap()), is_told, "{other}: {notes}");
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["train-000000.parquet", "train-000002.parquet"] {
        two(&folder.path().join(name), pictures(), Arc::new(Int64Array::from(vec![0, 1])));
    }
    let notes = open(folder.path()).unwrap().info().notes.join("\n");
    assert!(notes.contains("000000 and 000002"), "{notes}");
}
