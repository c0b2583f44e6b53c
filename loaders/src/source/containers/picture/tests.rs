//! Every format, whole, cut off at every byte, and damaged.

use super::*;
use image::codecs::pnm::{PnmEncoder, PnmSubtype, SampleEncoding};
use image::{ExtendedColorType as Color, ImageEncoder as _};
use std::fs;
use std::path::Path;

const WIDTH: usize = 7;
const HEIGHT: usize = 5;

fn decoded(bytes: &[u8]) -> Result<RgbImage, String> {
    decode(Cursor::new(bytes), |_| Ok(()))
}

/// RGB values that differ from pixel to pixel, `[height, width, 3]`.
fn rgb() -> Vec<u8> {
    (0..WIDTH * HEIGHT * 3).map(|i| (i * 67 % 251) as u8).collect()
}

fn encoded(format: ImageFormat, pixels: &[u8], color: Color) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (WIDTH as u32, HEIGHT as u32);
    if format == ImageFormat::Pnm {
        let subtype = match color {
            Color::L8 => PnmSubtype::Graymap(SampleEncoding::Binary),
            _ => PnmSubtype::Pixmap(SampleEncoding::Binary),
        };
        let encoder = PnmEncoder::new(&mut bytes).with_subtype(subtype);
        encoder.write_image(pixels, width, height, color).unwrap();
    } else {
        image::write_buffer_with_format(&mut bytes, pixels, width, height, color, format).unwrap();
    }
    bytes.into_inner()
}

/// A GIF whose frame of 3 x 2 lies at (2, 1) on a canvas of 7 x 5.
fn gif(indices: &[u8], transparent: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let palette = [9, 8, 7, 255, 0, 0, 0, 255, 0, 0, 0, 255];
    let mut encoder = ::gif::Encoder::new(&mut bytes, WIDTH as u16, HEIGHT as u16, &palette).unwrap();
    let mut frame = ::gif::Frame::from_indexed_pixels(3, 2, indices, transparent);
    (frame.left, frame.top) = (2, 1);
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    bytes
}

/// An uncompressed TIFF of one strip, with tags of one short value each.
fn tiff(tags: &[(u16, u16)], pixels: &[u8]) -> Vec<u8> {
    let (offset, length) = (8 + 2 + (tags.len() + 2) * 12 + 4, pixels.len());
    let mut entries: Vec<(u16, u16)> = tags.to_vec();
    entries.extend([(273, offset as u16), (279, length as u16)]);
    entries.sort_unstable();
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, value) in entries {
        bytes.extend([tag.to_le_bytes(), [3, 0], [1, 0], [0, 0], value.to_le_bytes(), [0, 0]].concat());
    }
    bytes.extend([0; 4]);
    [bytes, pixels.to_vec()].concat()
}

const GREY_TIFF: [(u16, u16); 6] =
    [(256, WIDTH as u16), (257, HEIGHT as u16), (258, 8), (259, 1), (262, 1), (277, 1)];

/// The images that Pillow wrote, by their names.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/image");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let sound = files.filter_map(|file| {
        let name = file.file_name().into_string().unwrap();
        name.starts_with("sound").then(|| (name, fs::read(file.path()).unwrap()))
    });
    let sound: Vec<_> = sound.collect();
    assert!(sound.len() > 20);
    sound
}

fn size(bytes: &[u8]) -> Result<[usize; 2], String> {
    look(Cursor::new(bytes)).map(|(size, _)| size)
}

#[test]
fn lossless_formats_give_the_pixels_that_were_written() {
    let (rgb, grey) = (rgb(), &rgb()[..WIDTH * HEIGHT]);
    let repeated: Vec<u8> = grey.iter().flat_map(|value| [*value; 3]).collect();
    let rgba: Vec<u8> = rgb.as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [*r, *g, *b, r ^ g]).collect();
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm]
    {
        let mut cases = vec![(&rgb[..], Color::Rgb8, &rgb), (grey, Color::L8, &repeated)];
        if format != ImageFormat::Pnm {
            // Alpha is dropped.
            cases.push((&rgba, Color::Rgba8, &rgb));
        }
        for (pixels, color, expected) in cases {
            let bytes = encoded(format, pixels, color);
            assert_eq!(size(&bytes), Ok([HEIGHT, WIDTH]), "{format:?} {color:?}");
            assert_eq!(decoded(&bytes).unwrap().as_bytes(), expected, "{format:?} {color:?}");
        }
    }
    let inverted: Vec<u8> = repeated.iter().map(|value| 255 - value).collect();
    let white_is_zero = GREY_TIFF.map(|(tag, value)| (tag, if tag == 262 { 0 } else { value }));
    assert_eq!(decoded(&tiff(&white_is_zero, grey)).unwrap().as_bytes(), inverted);
    let text = format!(
        "P2 # a comment\n{WIDTH} {HEIGHT}\n255\n{}\n",
        grey.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
    );
    assert_eq!(decoded(text.as_bytes()).unwrap().as_bytes(), repeated);
}

#[test]
fn gif_frames_lie_where_they_belong() {
    let bytes = gif(&[0, 1, 2, 3, 1, 0], None);
    assert_eq!(size(&bytes), Ok([HEIGHT, WIDTH]));
    let image = decoded(&bytes).unwrap();
    let pixel = |row: usize, column: usize| &image.as_bytes()[(row * WIDTH + column) * 3..][..3];
    // What the frame leaves free has the first color, as in Pillow.
    for (row, column, expected) in
        [(0, 0, [9, 8, 7]), (1, 2, [9, 8, 7]), (1, 3, [255, 0, 0]), (2, 2, [0, 0, 255]), (4, 6, [9, 8, 7])]
    {
        assert_eq!(pixel(row, column), expected, "{row}, {column}");
    }
    let transparent = decoded(&gif(&[0, 1, 2, 3, 1, 0], Some(1))).unwrap();
    assert_eq!(transparent.as_bytes()[..3], [255, 0, 0]);
    assert!(decoded(&gif(&[0, 1, 2, 3, 1, 9], None)).unwrap_err().contains("palette"));
}

#[test]
fn no_cut_file_gives_other_pixels() {
    let made = [
        ("png", encoded(ImageFormat::Png, &rgb(), Color::Rgb8)),
        ("jpeg", encoded(ImageFormat::Jpeg, &rgb(), Color::Rgb8)),
        ("webp", encoded(ImageFormat::WebP, &rgb(), Color::Rgb8)),
        ("bmp", encoded(ImageFormat::Bmp, &rgb(), Color::Rgb8)),
        ("gif", gif(&[0, 1, 2, 3, 1, 0], None)),
        ("tiff", encoded(ImageFormat::Tiff, &rgb(), Color::Rgb8)),
        ("ppm", encoded(ImageFormat::Pnm, &rgb(), Color::Rgb8)),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in made.into_iter().chain(seeds()) {
        let whole = decoded(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut accepted = 0;
        for length in 0..bytes.len() {
            // A text that ends within its last number cannot be told from a whole one.
            if let Ok(image) = decoded(&bytes[..length])
                && !name.ends_with("text")
            {
                assert_eq!(image, whole, "{name}, the first {length} of {} bytes", bytes.len());
                accepted += 1;
            }
        }
        // PNG's last checksum, a text's last line break, or a link to TIFF's next image.
        assert!(accepted <= 4, "{name} is accepted without its last {accepted} bytes");
        let [start, middle] = [0, bytes.len() / 2].map(|length| decoded(&bytes[..length]).unwrap_err());
        assert!(start.contains("empty"), "{start}");
        assert!(middle.contains("cut off or damaged"), "{name}: {middle}");
    }
}

#[test]
fn damage_of_any_byte_is_survived() {
    for (_, bytes) in seeds() {
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] = [0, 0x7f, 0xff, bytes[place] ^ 1][place % 4];
            let _ = (size(&damaged), decoded(&damaged));
        }
    }
}

#[test]
fn jpegs_that_end_early_are_refused_and_what_follows_the_end_does_not_matter() {
    let pixels: Vec<u8> = (0..64 * 64 * 3).map(|i: u32| (i * i / 7 % 256) as u8).collect();
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes).write_image(&pixels, 64, 64, Color::Rgb8).unwrap();
    let whole = decoded(&bytes).unwrap();
    assert_eq!(decoded(&[&bytes, &b"\0\0more"[..]].concat()).unwrap(), whole);
    // As some tools mend a cut file.
    let cut = [&bytes[..bytes.len() * 3 / 4], b"\xff\xd9"].concat();
    let error = decoded(&cut).unwrap_err();
    assert!(error.contains("JPEG") && error.contains("cut off or damaged"), "{error}");
    // As a download that was never finished leaves it.
    let mut unfilled = bytes.clone();
    let half = bytes.len() / 2;
    unfilled[half..].fill(0);
    assert!(decoded(&unfilled).unwrap_err().contains("end mark"));
}

#[test]
fn pixels_that_would_be_wrong_are_refused_with_the_way_out() {
    let grey = &rgb()[..WIDTH * HEIGHT];
    assert!(decoded(&tiff(&GREY_TIFF, grey)).is_ok());
    let with = |tag, value| {
        let mut tags: Vec<_> = GREY_TIFF.into_iter().filter(|(known, _)| *known != tag).collect();
        tags.push((tag, value));
        tiff(&tags, &[rgb(), rgb()].concat())
    };
    let mut packed = encoded(ImageFormat::Bmp, &rgb(), Color::Rgb8);
    packed[30] = 1;
    for (bytes, word) in [
        (with(258, 16), "more than 8 bits"),
        (with(262, 3), "TIFF"),
        (with(259, 7), "JPEG compression"),
        (with(266, 2), "reversed bits"),
        (with(338, 1), "premultiplied"),
        (packed, "run-length"),
        (b"\0\0\0\x20ftypavif\0\0\0\0".to_vec(), "AVIF"),
        (b"<svg xmlns".to_vec(), "SVG"),
    ] {
        let error = decoded(&bytes).unwrap_err();
        assert!(error.contains(word) && error.contains("convert the file to PNG"), "{error}");
        // Already when a set is opened.
        assert_eq!(size(&bytes), Err(error));
    }
}

#[test]
fn huge_claims_are_refused_from_the_header() {
    let side = 5000_u32;
    let mut png = encoded(ImageFormat::Png, &rgb(), Color::Rgb8);
    png[16..24].copy_from_slice(&[side.to_be_bytes(), side.to_be_bytes()].concat());
    let checksum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let mut bmp = encoded(ImageFormat::Bmp, &rgb(), Color::Rgb8);
    bmp[18..26].copy_from_slice(&[side.to_le_bytes(), side.to_le_bytes()].concat());
    let mut gif = gif(&[0; 6], None);
    gif[6..10].copy_from_slice(&[136, 19, 136, 19]);
    let mut jpeg = encoded(ImageFormat::Jpeg, &rgb(), Color::Rgb8);
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[19, 136, 19, 136]);
    let tiff = tiff(&GREY_TIFF.map(|(tag, value)| (tag, if tag < 258 { 5000 } else { value })), &[0; 35]);
    let pgm = b"P5 5000 5000 255\n".to_vec();
    // A lossless WebP image of 8192 x 8192.
    let webp = [
        b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f".to_vec(),
        0x07ff_dfff_u32.to_le_bytes().to_vec(),
        vec![0; 5],
    ]
    .concat();
    for (name, bytes) in [
        ("png", png),
        ("bmp", bmp),
        ("gif", gif),
        ("jpeg", jpeg),
        ("tiff", tiff),
        ("pgm", pgm),
        ("webp", webp),
    ] {
        for error in [size(&bytes).unwrap_err(), decoded(&bytes).unwrap_err()] {
            assert!(error.contains("at most 16777216"), "{name}: {error}");
        }
    }
}

#[test]
fn a_jpeg_header_may_be_longer_than_what_is_read_first() {
    let jpeg = encoded(ImageFormat::Jpeg, &rgb(), Color::Rgb8);
    let comment = [&b"\xff\xfe\xff\xff"[..], &[b'x'; 0xfffd]].concat();
    let long = [&jpeg[..2], &comment, &comment, &jpeg[2..]].concat();
    assert_eq!(size(&long), Ok([HEIGHT, WIDTH]));
    assert_eq!(decoded(&long), decoded(&jpeg));
}
