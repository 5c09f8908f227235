//! Animated WebP: lossless frames (VP8L) in a container of chunks, as
//! [Google's specification](https://developers.google.com/speed/webp/docs/riff_container) lays them out.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};

use anyhow::{Context, Result, bail, ensure};
use image_webp::{ColorType, WebPEncoder};
use s2dit_backends::output::{Destination, Staged, made};

use super::{Format, Rgb, Spec, begins};

/// Pixels of a side, at most.
const LARGEST_SIDE: usize = 1 << 14;
/// Bytes before the first chunk of a file: `RIFF`, a size, `WEBP`.
const HEAD: usize = 12;
/// Flags of the first chunk: frames that follow each other, and metadata.
const ANIMATED: u8 = 0x02;
const METADATA: u8 = 0x04;
/// A frame takes the place of the one before: nothing shines through.
const OPAQUE: u8 = 0x02;

pub(super) struct Webp {
    staged: Staged,
    out: BufWriter<File>,
    spec: Spec,
    frames: usize,
    bytes: u64,
}

impl Webp {
    pub(super) fn create(to: Destination<'_>, spec: Spec) -> Result<Webp> {
        let path = to.path;
        if spec.rows.max(spec.cols) > LARGEST_SIDE {
            bail!("`{}`: {}x{} pixels are too many for WebP", path.display(), spec.cols, spec.rows);
        }
        let staged = Staged::file(to, &made::webp)?;
        let file = File::create(staged.path()).with_context(|| format!("cannot write `{}`", path.display()))?;
        let mut webp = Webp { staged, out: BufWriter::new(file), spec, frames: 0, bytes: 0 };
        // The size is filled in at the end.
        webp.write(b"RIFF\0\0\0\0WEBP")?;
        let mut canvas = vec![ANIMATED | METADATA, 0, 0, 0];
        canvas.extend(webp.size());
        webp.chunk(b"VP8X", &canvas)?;
        // A background of nothing, and no end.
        webp.chunk(b"ANIM", &[0; 6])?;
        Ok(webp)
    }

    /// Columns and rows less one, as 24 bits each.
    fn size(&self) -> impl Iterator<Item = u8> {
        [self.spec.cols, self.spec.rows].into_iter().flat_map(|side| bits24(side as u64 - 1))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).with_context(|| format!("cannot write `{}`", self.staged.place().display()))
    }

    fn chunk(&mut self, name: &[u8; 4], contents: &[u8]) -> Result<()> {
        let bytes = u32::try_from(contents.len()).context("a frame of more than 4 GB")?;
        self.write(name)?;
        self.write(&bytes.to_le_bytes())?;
        self.write(contents)?;
        // Chunks begin at even places.
        if bytes % 2 == 1 { self.write(&[0]) } else { Ok(()) }
    }
}

fn bits24(n: u64) -> [u8; 3] {
    [n as u8, (n >> 8) as u8, (n >> 16) as u8]
}

impl Format for Webp {
    fn push(&mut self, frame: &Rgb) -> Result<()> {
        let mut still = Vec::new();
        let encoder = WebPEncoder::new(&mut still);
        let place = || format!("cannot write `{}`", self.staged.place().display());
        encoder.encode(&frame.pixels, frame.cols as u32, frame.rows as u32, ColorType::Rgb8).with_context(place)?;
        let at = |index| begins(index, self.spec.fps, 1000.0);
        let duration = at(self.frames + 1) - at(self.frames);
        // At the upper left corner.
        let mut contents = vec![0; 6];
        contents.extend(self.size());
        contents.extend(bits24(duration));
        contents.push(OPAQUE);
        ensure!(still.len() > HEAD, "an empty picture");
        contents.extend_from_slice(&still[HEAD..]);
        self.frames += 1;
        self.chunk(b"ANMF", &contents)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.chunk(b"XMP ", made::XMP.as_bytes())?;
        let Webp { staged, out, bytes, .. } = *self;
        let failed = || format!("cannot write `{}`", staged.place().display());
        let Ok(size) = u32::try_from(bytes - 8) else {
            bail!("`{}`: more than 4 GB, which WebP does not hold: name an .mp4 or a folder", staged.place().display());
        };
        let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        file.seek(SeekFrom::Start(4)).with_context(failed)?;
        file.write_all(&size.to_le_bytes()).with_context(failed)?;
        drop(file);
        Ok(staged.commit()?)
    }
}
