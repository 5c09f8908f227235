//! The boxes of an MP4 with one track of H.264 (ISO/IEC 14496-12, -14 and -15).

use anyhow::{Context, Result, ensure};
use s2dit_backends::output::made;

use crate::Spec;

/// A picture as it lies in the file.
pub(super) struct Sample {
    pub(super) bytes: u32,
    /// Whether it needs no other picture.
    pub(super) is_key: bool,
}

/// Units of time a frame, of which a second has fps times as many.
const FRAME: u32 = 1000;
/// Sixteen bits before the point and as many behind it.
const ONE: u32 = 1 << 16;
/// Bytes of a data box before its contents, with a size of 64 bits.
const DATA_HEAD: u64 = 16;

/// A box.
fn boxed(name: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut out = ((contents.len() + 8) as u32).to_be_bytes().to_vec();
    out.extend_from_slice(name);
    out.extend_from_slice(contents);
    out
}

/// A box with a version, 0, and flags.
fn full(name: &[u8; 4], flags: u32, contents: &[u8]) -> Vec<u8> {
    boxed(name, &[&flags.to_be_bytes(), contents].concat())
}

/// Numbers of 32 bits.
fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// What stands before the pictures: the brand, who made the file, and the head of the data box.
pub(super) fn head() -> Vec<u8> {
    let mut out = boxed(b"ftyp", b"isom\0\0\x02\0isomiso2avc1mp41");
    out.extend(boxed(b"free", made::by().as_bytes()));
    out.extend([0, 0, 0, 1]);
    out.extend(b"mdat");
    out.extend(data_size(0));
    out
}

/// Where the size of the data box stands.
pub(super) fn size_at() -> u64 {
    head().len() as u64 - 8
}

/// The size of a data box with so many bytes of pictures.
pub(super) fn data_size(bytes: u64) -> [u8; 8] {
    (DATA_HEAD + bytes).to_be_bytes()
}

/// What stands after the pictures: all that is to be known of them.
pub(super) fn tail(spec: Spec, samples: &[Sample], sets: &[Vec<u8>; 2]) -> Result<Vec<u8>> {
    let scale = (spec.fps * f64::from(FRAME)).round() as u32;
    let count = samples.len() as u32;
    let length = count.checked_mul(FRAME).context("an MP4 of more than four million frames")?;
    // No turning, no moving.
    let matrix = words(&[ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30]);
    let movie =
        [words(&[0, 0, scale, length, ONE]), [1, 0].to_vec(), vec![0; 10], matrix.clone(), vec![0; 24], words(&[2])];
    let sides = words(&[spec.cols as u32 * ONE, spec.rows as u32 * ONE]);
    let track = [words(&[0, 0, 1, 0, length]), vec![0; 16], matrix, sides];
    // The language is undetermined.
    let media = [words(&[0, 0, scale, length]), vec![0x55, 0xc4, 0, 0]].concat();
    let handler = [&words(&[0])[..], b"vide", &[0; 12], b"video\0"].concat();
    let here = full(b"url ", 1, &[]);
    let references = full(b"dref", 0, &[words(&[1]), here].concat());
    let table = boxed(
        b"stbl",
        &[
            full(b"stsd", 0, &[words(&[1]), description(spec, sets)?].concat()),
            full(b"stts", 0, &words(&[1, count, FRAME])),
            keys(samples),
            full(b"stsc", 0, &words(&[1, 1, count, 1])),
            full(
                b"stsz",
                0,
                &[words(&[0, count]), samples.iter().flat_map(|s| s.bytes.to_be_bytes()).collect()].concat(),
            ),
            full(b"stco", 0, &words(&[1, head().len() as u32])),
        ]
        .concat(),
    );
    let information = boxed(b"minf", &[full(b"vmhd", 1, &[0; 8]), boxed(b"dinf", &references), table].concat());
    let media = [full(b"mdhd", 0, &media), full(b"hdlr", 0, &handler), information].concat();
    let track = [full(b"tkhd", 3, &track.concat()), boxed(b"mdia", &media)].concat();
    Ok(boxed(b"moov", &[full(b"mvhd", 0, &movie.concat()), boxed(b"trak", &track)].concat()))
}

/// Pictures that need no other, counted from 1.
fn keys(samples: &[Sample]) -> Vec<u8> {
    let keys: Vec<u32> = (1..).zip(samples).filter(|(_, sample)| sample.is_key).map(|(n, _)| n).collect();
    full(b"stss", 0, &words(&[&[keys.len() as u32], &keys[..]].concat()))
}

/// What a decoder must know of the pictures.
fn description(spec: Spec, sets: &[Vec<u8>; 2]) -> Result<Vec<u8>> {
    let [sequence, picture] = sets;
    ensure!(sequence.len() >= 4 && !picture.is_empty(), "the encoder of H.264 gave no parameter sets");
    let length = |set: &[u8]| u16::try_from(set.len()).map(u16::to_be_bytes).context("a long parameter set");
    // The profile and level, units with four bytes of length, and one set of each kind.
    let mut config = vec![1, sequence[1], sequence[2], sequence[3], 0xff, 0xe1];
    config.extend(length(sequence)?);
    config.extend(sequence);
    config.push(1);
    config.extend(length(picture)?);
    config.extend(picture);
    // BT.709 in the narrow range, as the pictures say themselves.
    let colours = boxed(b"colr", b"nclx\0\x01\0\x01\0\x01\0");
    let mut entry = vec![0, 0, 0, 0, 0, 0, 0, 1];
    entry.extend([0; 16]);
    entry.extend((spec.cols as u16).to_be_bytes());
    entry.extend((spec.rows as u16).to_be_bytes());
    // 72 pixels an inch, one frame a sample, no name, 24 bits, no palette.
    entry.extend(words(&[72 * ONE, 72 * ONE, 0]));
    entry.extend([0, 1]);
    entry.extend([0; 32]);
    entry.extend([0, 24, 0xff, 0xff]);
    entry.extend(boxed(b"avcC", &config));
    entry.extend(colours);
    Ok(boxed(b"avc1", &entry))
}
