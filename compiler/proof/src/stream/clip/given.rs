//! What a clip is made from: a prompt, the embeddings of an image, and parts of the latent that are given.

use std::path::Path;

use anyhow::{Result, bail};
use s2dit_runtime::HostTensor;

use super::{Clip, Prompt};
use crate::stream::{seeded_noise, tensor_of};
use s2dit_files::SafetensorsFile;

/// The tensor with an image's embeddings, `[1, M, width]`.
pub const IMAGE: &str = "image";
/// The tensor with what is given of the latent, `[1, C, F, H, W]`.
pub const CONDITION: &str = "condition";

/// What a clip is made from.
pub struct Given {
    /// The prompt.
    pub prompt: Prompt,
    /// The prompt to go away from, and how far: of two transformers, each.
    pub negative: Option<(Prompt, [f64; 2])>,
    /// The strength of guidance, for a network that takes it.
    pub guidance: Option<f64>,
    /// The embeddings of an image.
    pub image: Option<HostTensor>,
    /// What is given of the latent.
    pub condition: Option<HostTensor>,
}

/// What a network takes of a latent that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Channels after those of the noise, such as a mask and the latent of a picture.
    Channels([usize; 4]),
    /// The first frame: a network that takes a timestep for each token takes it at time 0.
    FirstFrame([usize; 4]),
}

impl Condition {
    /// What a network takes whose latent has `channels` channels, whose velocity has `made`, and whose timestep has the shape `time`.
    ///
    /// # Errors
    /// A velocity of more channels than the latent.
    pub(super) fn of(
        channels: usize,
        made: usize,
        [frames, rows, cols]: [usize; 3],
        time: &[usize],
    ) -> Result<Option<Self>> {
        if made > channels {
            bail!("a velocity of more channels than the latent cannot be followed");
        }
        let tokens: usize = time.iter().product();
        Ok(match channels - made {
            0 if tokens > 1 && tokens.is_multiple_of(frames) => Some(Condition::FirstFrame([made, 1, rows, cols])),
            0 => None,
            rest => Some(Condition::Channels([rest, frames, rows, cols])),
        })
    }

    fn shape(&self) -> [usize; 4] {
        match self {
            Condition::Channels(shape) | Condition::FirstFrame(shape) => *shape,
        }
    }

    /// The latent that the network takes: `x [1, C, F, H, W]` with what is given.
    pub(super) fn joined(&self, x: &HostTensor, given: &HostTensor) -> HostTensor {
        let mut joined = x.clone();
        match self {
            Condition::Channels([channels, ..]) => {
                joined.shape[1] += channels;
                joined.data.extend(&given.data);
            }
            Condition::FirstFrame(_) => self.finish(&mut joined, given),
        }
        joined
    }

    /// Sets the timesteps of tokens that are given to 0. Tokens are in the order of the frames.
    pub(super) fn timed(&self, timestep: &mut HostTensor, frames: usize) {
        if let Condition::FirstFrame(_) = self {
            let of_frame = timestep.data.len() / frames;
            timestep.data[..of_frame].fill(0.0);
        }
    }

    /// Puts the frame that is given into a latent `[1, C, F, H, W]`.
    pub(super) fn finish(&self, x: &mut HostTensor, given: &HostTensor) {
        if let Condition::FirstFrame([channels, _, rows, cols]) = *self {
            let (plane, all) = (rows * cols, x.data.len() / channels.max(1));
            for (to, from) in x.data.chunks_exact_mut(all).zip(given.data.chunks_exact(plane)) {
                to[..plane].copy_from_slice(from);
            }
        }
    }
}

impl Clip {
    /// Reads what the network takes beside a prompt, `image` with the embeddings of an image and `condition` with what is given of the latent. What it needs and
    /// nobody named is drawn from a standard normal distribution by `seed`, for trials.
    ///
    /// # Errors
    /// A file that the network needs and nobody named, or one that it does not take; a tensor of another shape, or with elements that
    /// are not finite.
    pub fn read(
        &self,
        image: Option<&Path>,
        condition: Option<&Path>,
        seed: Option<u64>,
    ) -> Result<[Option<HostTensor>; 2]> {
        // Of other streams than a prompt and any noise.
        let drawn = |stream: u64, shape: &[usize]| seed.map(|seed| seeded_noise(seed, u64::MAX - stream, shape));
        let shown = self.shown.display();
        let image = match (self.image, image) {
            (Some(shape), Some(path)) => Some(tensor_of(&SafetensorsFile::open(path)?, IMAGE, &shape, "")?),
            (Some(shape), None) if seed.is_some() => drawn(2, &shape),
            (Some(shape), None) => bail!(
                "`{shown}` takes an image: name its embeddings with --image FILE, a safetensors file with the tensor `{IMAGE}` {shape:?}"
            ),
            (None, Some(path)) => bail!("--image `{}`: `{shown}` takes no image", path.display()),
            (None, None) => None,
        };
        let shape = self.condition.as_ref().map(|how| {
            let [channels, frames, rows, cols] = how.shape();
            [1, channels, frames, rows, cols]
        });
        let condition = match (shape, condition) {
            (Some(shape), Some(path)) => Some(tensor_of(&SafetensorsFile::open(path)?, CONDITION, &shape, "")?),
            (Some(shape), None) if seed.is_some() && matches!(self.condition, Some(Condition::Channels(_))) => {
                drawn(3, &shape)
            }
            (Some(shape), None) if matches!(self.condition, Some(Condition::Channels(_))) => bail!(
                "`{shown}` takes channels beside the noise: name them with --condition FILE, a safetensors file with the tensor \
                 `{CONDITION}` {shape:?}"
            ),
            (None, Some(path)) => bail!(
                "--condition `{}`: `{shown}` takes none: its latent has the channels of its velocity, and one timestep for all tokens",
                path.display()
            ),
            _ => None,
        };
        Ok([image, condition])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_appended() {
        let how = Condition::of(3, 2, [2, 1, 2], &[1]).unwrap().unwrap();
        assert_eq!(how, Condition::Channels([1, 2, 1, 2]));
        let x = HostTensor::new([1, 2, 2, 1, 2], (0..8u8).map(f32::from).collect()).unwrap();
        let given = HostTensor::new([1, 1, 2, 1, 2], vec![10.0, 11.0, 12.0, 13.0]).unwrap();
        let joined = how.joined(&x, &given);
        assert_eq!(joined.shape, [1, 3, 2, 1, 2]);
        assert_eq!(joined.data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 10.0, 11.0, 12.0, 13.0]);
        let mut time = HostTensor::new([1], vec![7.0]).unwrap();
        how.timed(&mut time, 2);
        assert_eq!(time.data, [7.0]);
    }

    #[test]
    fn a_given_frame_takes_the_place_of_the_first() {
        let how = Condition::of(2, 2, [2, 1, 2], &[1, 4]).unwrap().unwrap();
        assert_eq!(how, Condition::FirstFrame([2, 1, 1, 2]));
        let x = HostTensor::new([1, 2, 2, 1, 2], (0..8u8).map(f32::from).collect()).unwrap();
        let given = HostTensor::new([1, 2, 1, 1, 2], vec![10.0, 11.0, 12.0, 13.0]).unwrap();
        let joined = how.joined(&x, &given);
        assert_eq!(joined.data, [10.0, 11.0, 2.0, 3.0, 12.0, 13.0, 6.0, 7.0]);
        let mut time = HostTensor::new([1, 4], vec![7.0; 4]).unwrap();
        how.timed(&mut time, 2);
        assert_eq!(time.data, [0.0, 0.0, 7.0, 7.0]);
        assert!(Condition::of(2, 2, [2, 1, 2], &[1]).unwrap().is_none());
        assert!(Condition::of(2, 3, [2, 1, 2], &[1]).is_err());
    }
}
