//! Animated GIF: 256 colours a frame, chosen for it, and times in hundredths of a second.

use std::fs::File;
use std::io::BufWriter;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::{Destination, Staged, made};

use super::{Format, Rgb, Spec, begins};

/// How coarsely colours are chosen, from 1, the slowest, to 30.
const SPEED: i32 = 10;

pub(super) struct Gif {
    staged: Staged,
    encoder: gif::Encoder<BufWriter<File>>,
    spec: Spec,
    frames: usize,
}

impl Gif {
    pub(super) fn create(to: Destination<'_>, spec: Spec) -> Result<Gif> {
        let path = to.path;
        let (Ok(cols), Ok(rows)) = (u16::try_from(spec.cols), u16::try_from(spec.rows)) else {
            bail!("`{}`: {}x{} pixels are too many for a GIF", path.display(), spec.cols, spec.rows);
        };
        let staged = Staged::file(to, &made::gif)?;
        let failed = || format!("cannot write `{}`", path.display());
        let file = File::create(staged.path()).with_context(failed)?;
        let mut encoder = gif::Encoder::new(BufWriter::new(file), cols, rows, &[]).with_context(failed)?;
        encoder.set_repeat(gif::Repeat::Infinite).with_context(failed)?;
        let comment = gif::Extension::Comment.into();
        encoder.write_raw_extension(comment, &[made::NAME.as_bytes()]).with_context(failed)?;
        Ok(Gif { staged, encoder, spec, frames: 0 })
    }
}

impl Format for Gif {
    fn push(&mut self, frame: &Rgb) -> Result<()> {
        let at = |index| begins(index, self.spec.fps, 100.0);
        let delay = at(self.frames + 1) - at(self.frames);
        let mut made = gif::Frame::from_rgb_speed(frame.cols as u16, frame.rows as u16, &frame.pixels, SPEED);
        made.delay = u16::try_from(delay).unwrap_or(u16::MAX);
        self.frames += 1;
        self.encoder.write_frame(&made).with_context(|| format!("cannot write `{}`", self.staged.place().display()))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Gif { staged, encoder, .. } = *self;
        let failed = || format!("cannot write `{}`", staged.place().display());
        let out = encoder.into_inner().with_context(failed)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        Ok(staged.commit()?)
    }
}
