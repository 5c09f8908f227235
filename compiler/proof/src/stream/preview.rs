//! Moving pictures of latents: as a decoder decodes them, or the three directions in which the first chunk varies most, as red, green and blue.

use anyhow::Result;
use s2dit_backends::output::Destination;
use s2dit_runtime::stream::contract::Chunk;
use s2dit_runtime::{DecodeSession, HostTensor};
use s2dit_video::{Rgb, Spec, VideoWriter};

use crate::decode::{Decoder, Feed, Latents};

/// Screen pixels of a latent pixel, on a side.
const SCALE: usize = 8;
/// Latent frames a second: of video there are four times as many.
const FPS: f64 = 4.0;
/// Levels of red, green and blue: 256 colours, which a GIF shows exactly.
const LEVELS: [usize; 3] = [8, 8, 4];
/// Standard deviations from black to mid-grey.
const SPREAD: f64 = 2.5;

/// A moving picture that is written chunk by chunk; it appears when it is whole.
pub enum Preview {
    /// Latents as colours.
    Latents(Colours),
    /// Frames that a decoder makes.
    Decoded(Decoded),
}

impl Preview {
    /// Begins a picture of latents as colours.
    ///
    /// # Errors
    /// A place that cannot be written; a latent larger than the format allows.
    pub fn create(to: Destination<'_>, chunk: Chunk) -> Result<Preview> {
        Ok(Preview::Latents(Colours::create(to, chunk)?))
    }

    /// Begins a picture of the frames that a decoder makes, with so many a second; `size` are their rows and columns.
    ///
    /// # Errors
    /// A place that cannot be written; a size that the format lacks.
    pub fn decoded(to: Destination<'_>, decoder: Decoder, size: [usize; 2], fps: f64) -> Result<Preview> {
        let [rows, cols] = size;
        let writer = VideoWriter::create(to, Spec { rows, cols, fps })?;
        let by = match decoder {
            Decoder::Chunks(session) => By::Chunks(Feed::new(session)),
            clip @ Decoder::Clip(..) => By::Clip(clip),
        };
        Ok(Preview::Decoded(Decoded { writer, by }))
    }

    /// Adds the frames of a chunk `[1, C, F, H, W]`.
    ///
    /// # Errors
    /// Latents that the decoder does not take; a failing engine; the disk is full.
    pub fn push(&mut self, latent: &HostTensor) -> Result<()> {
        match self {
            Preview::Latents(colours) => colours.push(latent),
            Preview::Decoded(Decoded { writer, by }) => {
                let mut push = |video: &HostTensor, _: usize| writer.push_video(video);
                match by {
                    By::Chunks(feed) => feed.take(latent, &mut push),
                    By::Clip(decoder) => decoder.decode(&Latents::of(latent.clone(), "the latents"), push),
                }
            }
        }
    }

    /// Puts the picture in its place.
    ///
    /// # Errors
    /// A failing engine; the disk is full.
    pub fn finish(self) -> Result<()> {
        match self {
            Preview::Latents(colours) => colours.writer.finish(),
            Preview::Decoded(Decoded { mut writer, by }) => {
                if let By::Chunks(feed) = by {
                    feed.finish(&mut |video: &HostTensor, _: usize| writer.push_video(video))?;
                }
                writer.finish()
            }
        }
    }
}

/// A moving picture of decoded frames.
pub struct Decoded {
    writer: VideoWriter,
    by: By,
}

/// What decodes.
enum By {
    /// A decoder that streams.
    Chunks(Feed<Box<DecodeSession>>),
    /// A decoder of whole clips.
    Clip(Decoder),
}

/// A moving picture of latents as colours.
pub struct Colours {
    writer: VideoWriter,
    chunk: Chunk,
    mix: Option<Mix>,
}

/// A linear map from latent channels to colours.
struct Mix {
    mean: Vec<f64>,
    /// For each colour the channels' weights, scaled so that black to white is 0 to 1 around 0.5.
    weights: [Vec<f64>; 3],
}

impl Colours {
    fn create(to: Destination<'_>, chunk: Chunk) -> Result<Colours> {
        let spec = Spec { rows: chunk.rows * SCALE, cols: chunk.cols * SCALE, fps: FPS };
        Ok(Colours { writer: VideoWriter::create(to, spec)?, chunk, mix: None })
    }

    fn push(&mut self, latent: &HostTensor) -> Result<()> {
        let Chunk { channels, frames, rows, cols } = self.chunk;
        let mix = self.mix.get_or_insert_with(|| Mix::of(&latent.data, channels));
        let plane = rows * cols;
        for f in 0..frames {
            let colour = |p: usize| {
                let at = |c: usize| f64::from(latent.data[(c * frames + f) * plane + p]);
                mix.colour(&(0..channels).map(at).collect::<Vec<_>>())
            };
            let small: Vec<[u8; 3]> = (0..plane).map(colour).collect();
            let mut pixels = Vec::with_capacity(plane * SCALE * SCALE * 3);
            for row in small.chunks_exact(cols) {
                let line: Vec<u8> = row.iter().flat_map(|colour| [*colour; SCALE]).flatten().collect();
                for _ in 0..SCALE {
                    pixels.extend_from_slice(&line);
                }
            }
            self.writer.push(&Rgb { rows: rows * SCALE, cols: cols * SCALE, pixels })?;
        }
        Ok(())
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

    /// The colour of a pixel: one of [`LEVELS`].
    fn colour(&self, pixel: &[f64]) -> [u8; 3] {
        [0, 1, 2].map(|i| {
            let weighed = pixel.iter().zip(&self.mean).zip(&self.weights[i]).map(|((x, m), w)| (x - m) * w);
            let steps = (LEVELS[i] - 1) as f64;
            // Not finite becomes 0, black.
            let level = ((0.5 + weighed.sum::<f64>()).clamp(0.0, 1.0) * steps).round() as usize;
            (level * 255 / (LEVELS[i] - 1)) as u8
        })
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use s2dit_backends::output::made;

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
