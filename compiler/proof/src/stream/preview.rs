//! Moving pictures of latents: the three directions in which the first chunk varies most, as red, green and blue.

use std::fs::File;
use std::io::BufWriter;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_runtime::HostTensor;
use s2dit_runtime::stream::contract::Chunk;

/// Screen pixels of a latent pixel, on a side.
const SCALE: usize = 8;
/// Hundredths of a second a latent frame: four frames of video at 16 a second.
const DELAY: u16 = 25;
/// Levels of red, green and blue: 256 colours.
const LEVELS: [usize; 3] = [8, 8, 4];
/// Standard deviations from black to mid-grey.
const SPREAD: f64 = 2.5;

/// A GIF that is written chunk by chunk; it appears when it is whole.
pub struct Preview {
    staged: Staged,
    encoder: gif::Encoder<BufWriter<File>>,
    chunk: Chunk,
    mix: Option<Mix>,
}

/// A linear map from latent channels to colours.
struct Mix {
    mean: Vec<f64>,
    /// For each colour the channels' weights, scaled so that black to white is 0 to 1 around 0.5.
    weights: [Vec<f64>; 3],
}

impl Preview {
    /// Begins a picture.
    ///
    /// # Errors
    /// A place that cannot be written; a latent larger than GIF allows.
    pub fn create(to: Destination<'_>, chunk: Chunk) -> Result<Preview> {
        let path = to.path;
        let side = |n: usize| u16::try_from(n * SCALE).ok();
        let (Some(width), Some(height)) = (side(chunk.cols), side(chunk.rows)) else {
            bail!("`{}`: a latent of {}x{} is too large for a GIF", path.display(), chunk.rows, chunk.cols);
        };
        let staged = Staged::file(to, &made::gif)?;
        let failed = || format!("cannot write `{}`", path.display());
        let file = File::create(staged.path()).with_context(failed)?;
        let mut encoder = gif::Encoder::new(BufWriter::new(file), width, height, &palette()).with_context(failed)?;
        encoder.set_repeat(gif::Repeat::Infinite).with_context(failed)?;
        let comment = gif::Extension::Comment.into();
        encoder.write_raw_extension(comment, &[made::NAME.as_bytes()]).with_context(failed)?;
        Ok(Preview { staged, encoder, chunk, mix: None })
    }

    /// Adds the frames of a chunk `[1, C, F, H, W]`.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, latent: &HostTensor) -> Result<()> {
        let Chunk { channels, frames, rows, cols } = self.chunk;
        let mix = self.mix.get_or_insert_with(|| Mix::of(&latent.data, channels));
        let plane = rows * cols;
        for f in 0..frames {
            let index = |p: usize| {
                let at = |c: usize| f64::from(latent.data[(c * frames + f) * plane + p]);
                mix.colour(&(0..channels).map(at).collect::<Vec<_>>())
            };
            let small: Vec<u8> = (0..plane).map(index).collect();
            let mut pixels = Vec::with_capacity(plane * SCALE * SCALE);
            for row in small.chunks_exact(cols) {
                let line: Vec<u8> = row.iter().flat_map(|p| [*p; SCALE]).collect();
                for _ in 0..SCALE {
                    pixels.extend_from_slice(&line);
                }
            }
            let frame = gif::Frame {
                width: (cols * SCALE) as u16,
                height: (rows * SCALE) as u16,
                delay: DELAY,
                buffer: pixels.into(),
                ..gif::Frame::default()
            };
            self.encoder
                .write_frame(&frame)
                .with_context(|| format!("cannot write `{}`", self.staged.place().display()))?;
        }
        Ok(())
    }

    /// Puts the picture in its place.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<()> {
        let Preview { staged, encoder, .. } = self;
        let failed = || format!("cannot write `{}`", staged.place().display());
        let out = encoder.into_inner().with_context(failed)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        Ok(staged.commit()?)
    }
}

impl Mix {
    /// The principal directions of a chunk whose channels lie one after the other.
    fn of(data: &[f32], channels: usize) -> Mix {
        let pixels = data.len() / channels.max(1);
        let channel = |c: usize| data[c * pixels..(c + 1) * pixels].iter().map(|x| f64::from(*x));
        let mean: Vec<f64> = (0..channels).map(|c| channel(c).sum::<f64>() / pixels as f64).collect();
        let mut covariance = vec![vec![0.0; channels]; channels];
        for a in 0..channels {
            for b in 0..=a {
                let products = channel(a).zip(channel(b)).map(|(x, y)| (x - mean[a]) * (y - mean[b]));
                covariance[a][b] = products.sum::<f64>() / pixels as f64;
                covariance[b][a] = covariance[a][b];
            }
        }
        let weights = [0, 1, 2].map(|_| {
            let (direction, variance) = principal(&covariance);
            for (a, row) in covariance.iter_mut().enumerate() {
                for (b, x) in row.iter_mut().enumerate() {
                    *x -= variance * direction[a] * direction[b];
                }
            }
            let scale = if variance > 1e-12 { 0.5 / (SPREAD * variance.sqrt()) } else { 0.0 };
            direction.iter().map(|d| d * scale).collect()
        });
        Mix { mean, weights }
    }

    /// The palette's index for a pixel.
    fn colour(&self, pixel: &[f64]) -> u8 {
        let mut index = 0;
        for (weights, levels) in self.weights.iter().zip(LEVELS) {
            let value = 0.5 + pixel.iter().zip(&self.mean).zip(weights).map(|((x, m), w)| (x - m) * w).sum::<f64>();
            // Not finite becomes 0, black.
            index = index * levels + (value.clamp(0.0, 1.0) * (levels - 1) as f64).round() as usize;
        }
        index as u8
    }
}

/// The direction of largest variance and that variance, by power iteration.
fn principal(covariance: &[Vec<f64>]) -> (Vec<f64>, f64) {
    const ROUNDS: usize = 200;
    // Not orthogonal to anything in particular, and the same every time.
    let mut direction: Vec<f64> = (0..covariance.len()).map(|i| 1.0 + 0.37 * (i as f64 * 1.3).sin()).collect();
    let mut variance = 0.0;
    for _ in 0..ROUNDS {
        let next: Vec<f64> =
            covariance.iter().map(|row| row.iter().zip(&direction).map(|(c, d)| c * d).sum()).collect();
        let norm = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm.is_nan() || norm < 1e-12 {
            return (vec![0.0; covariance.len()], 0.0);
        }
        variance = norm / direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        direction = next.iter().map(|x| x / norm).collect();
    }
    (direction, variance)
}

fn palette() -> Vec<u8> {
    let level = |i: usize, levels: usize| (i * 255 / (levels - 1)) as u8;
    let [reds, greens, blues] = LEVELS;
    let colour =
        |i: usize| [level(i / (greens * blues), reds), level(i / blues % greens, greens), level(i % blues, blues)];
    (0..reds * greens * blues).flat_map(colour).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_every_frame_and_shows_the_difference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gif");
        let chunk = Chunk { channels: 4, frames: 2, rows: 2, cols: 3 };
        let mut preview = Preview::create(Destination::new(&path), chunk).unwrap();
        for n in 0..3 {
            let data = (0..48).map(|i| ((i * i + n * 7) as f32 * 0.9).sin()).collect();
            preview.push(&HostTensor { shape: chunk.shape().to_vec(), data }).unwrap();
        }
        assert!(!path.exists());
        preview.finish().unwrap();
        assert!(made::gif(&path));
        let mut decoder = gif::DecodeOptions::new().read_info(File::open(&path).unwrap()).unwrap();
        assert_eq!((decoder.width(), decoder.height()), (24, 16));
        let mut frames = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            frames.push(frame.buffer.to_vec());
        }
        assert_eq!(frames.len(), 6);
        assert!(frames.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(frames[0][..8].iter().all(|p| *p == frames[0][0]));
    }

    #[test]
    fn the_first_direction_is_the_widest() {
        let (direction, variance) = principal(&[vec![1.0, 0.0], vec![0.0, 9.0]]);
        assert!((variance - 9.0).abs() < 1e-9 && direction[1].abs() > 0.999_999);
        let flat = Mix::of(&[0.0; 8], 2);
        assert_eq!(flat.colour(&[0.0, 0.0]), flat.colour(&[5.0, 1.0]));
    }
}
