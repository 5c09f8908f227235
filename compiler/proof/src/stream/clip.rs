//! A whole clip with a bidirectional model: Euler steps from noise, with classifier-free guidance, and what it is conditioned on beside
//! the text: the embeddings of an image, and channels or a frame that are given.

mod given;
mod network;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::output::Destination;
use s2dit_runtime::sampler::{self, Euler, NoiseLevels, Sampler, guided};
use s2dit_runtime::{HostTensor, RunOptions, text_mask};

use super::{LatentsFile, mask_of, pooled_of, prompt_of, seeded_noise, seeded_prompt, tensor_of};
use s2dit_files::SafetensorsFile;

use given::Condition;
pub use given::Given;
use network::Network;

/// The tensor that a clip is saved as, `[1, C, F, H, W]`.
pub const LATENT: &str = "latent";
/// The tensor with recorded noise, `[1, C, F, H, W]`.
pub const NOISE: &str = "noise";

/// A prompt of a clip.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Text embeddings `[1, L, text_dim]`.
    pub text: HostTensor,
    /// For a model that takes it: 1 where a token counts, 0 where it is padding, `[1, L]`.
    pub mask: Option<HostTensor>,
    /// For a model that takes it: one embedding of the whole text, `[1, width]`.
    pub pooled: Option<HostTensor>,
}

/// A compiled clip step, loaded: one artifact, or two experts that share the timesteps.
pub struct Clip {
    shown: PathBuf,
    network: Network,
    steps: usize,
    sampler: Box<dyn Sampler>,
    /// Prompts of a call: with 2 that of the clip and its negative.
    batch: usize,
    /// Channels, frames, rows and columns of what is made.
    latent: [usize; 4],
    text: [usize; 3],
    mask: Option<Vec<usize>>,
    pooled: Option<Vec<usize>>,
    /// Shape of the strength of guidance, of a network that takes it.
    guidance: Option<Vec<usize>>,
    image: Option<[usize; 3]>,
    /// Shape of the timestep.
    time: Vec<usize>,
    condition: Option<Condition>,
}

impl Clip {
    /// Loads an artifact that `s2ditc compile` made of a bidirectional checkpoint, or a folder of two experts.
    ///
    /// # Errors
    /// An artifact of another tool, or of an autoregressive checkpoint; experts that do not fit each other; a failing engine.
    pub fn open(path: &Path, run: &RunOptions) -> Result<Clip> {
        let shown = path.display();
        let network = Network::open(path, run)?;
        let (steps, flow_shift) = network.sampler()?;
        let interface = network.interface();
        let text = network.input("a text", interface.text())?;
        let mask = interface.text_mask().map(|name| network.input("a text mask", Some(name))).transpose()?;
        let pooled = interface.pooled().map(|name| network.input("a pooled text", Some(name))).transpose()?;
        let guidance = interface.guidance().map(|name| network.input("a guidance", Some(name))).transpose()?;
        let image = interface.image().map(|name| network.input("an image", Some(name))).transpose()?;
        let time = network.input("a time", interface.time())?;
        let latent = network.input("a latent", interface.latent())?;
        let [batch @ (1 | 2), channels, frames, rows, cols] = latent[..] else {
            bail!(
                "`{shown}`: the latent is {latent:?}, expected [1, C, F, H, W], or [2, C, F, H, W] for a prompt and its negative"
            );
        };
        // Of one clip of the batch.
        let own = |mut shape: Vec<usize>| {
            shape[0] = 1;
            shape
        };
        let three = |shape: Vec<usize>| <[usize; 3]>::try_from(own(shape)).ok();
        let made = network.velocity_channels()?;
        let condition = Condition::of(channels, made, [frames, rows, cols], &time)
            .with_context(|| format!("`{shown}`: {channels} channels of the latent, {made} of the velocity"))?;
        Ok(Clip {
            shown: path.into(),
            steps,
            sampler: Box::new(Euler::shifted(flow_shift)),
            batch,
            latent: [made, frames, rows, cols],
            text: three(text).with_context(|| format!("`{shown}`: the text is not [1, L, text_dim]"))?,
            mask: mask.map(own),
            pooled: pooled.map(own),
            guidance,
            image: match image {
                None => None,
                Some(shape) => {
                    Some(three(shape).with_context(|| format!("`{shown}`: the image is not [1, M, width]"))?)
                }
            },
            time,
            condition,
            network,
        })
    }

    /// Reads a prompt: the tensor `text` and, where the model takes them, `text_mask` and `pooled`.
    ///
    /// # Errors
    /// A tensor that is missing or that the model does not take.
    pub fn read_prompt(&self, path: &Path) -> Result<Prompt> {
        let file = SafetensorsFile::open(path)?;
        let text = prompt_of(&file, self.text)?;
        let mask = self.mask.as_ref().map(|shape| mask_of(&file, shape)).transpose()?;
        let pooled = self.pooled.as_ref().map(|shape| pooled_of(&file, shape)).transpose()?;
        Ok(Prompt { text, mask, pooled })
    }

    /// A standard normal prompt, for trials without a text encoder. Where the model takes a mask, the last tokens do not count.
    #[must_use]
    pub fn seeded_prompt(&self, seed: u64) -> Prompt {
        let counting = text_mask::counting(self.text[1], seed);
        let mask = self.mask.as_ref().map(|shape| text_mask::of_first(shape, counting));
        // Of another stream than the text and any noise.
        let pooled = self.pooled.as_ref().map(|shape| seeded_noise(seed, u64::MAX - 1, shape));
        Prompt { text: seeded_prompt(seed, self.text), mask, pooled }
    }

    /// Takes another sampler than the checkpoint's, and its number of steps.
    pub fn set_sampler(&mut self, sampler: Box<dyn Sampler>, steps: usize) {
        (self.sampler, self.steps) = (sampler, steps);
    }

    /// Whether a call takes a prompt and its negative.
    #[must_use]
    pub fn takes_two(&self) -> bool {
        self.batch == 2
    }

    /// Whether the network takes a strength of guidance, which was distilled into it.
    #[must_use]
    pub fn takes_guidance(&self) -> bool {
        self.guidance.is_some()
    }

    /// Channels, frames, rows and columns of the clip.
    #[must_use]
    pub fn latent(&self) -> [usize; 4] {
        self.latent
    }

    /// The checkpoint's number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The noise `[1, C, F, H, W]` that a seed stands for.
    #[must_use]
    pub fn seeded_noise(&self, seed: u64) -> HostTensor {
        seeded_noise(seed, 0, &self.noise_shape())
    }

    /// Recorded noise: the tensor [`NOISE`].
    ///
    /// # Errors
    /// A file without it, or with one of another shape.
    pub fn read_noise(&self, path: &Path) -> Result<HostTensor> {
        tensor_of(&SafetensorsFile::open(path)?, NOISE, &self.noise_shape(), "")
    }

    fn noise_shape(&self) -> [usize; 5] {
        let [channels, frames, rows, cols] = self.latent;
        [1, channels, frames, rows, cols]
    }

    /// How many of the steps each of two transformers makes, by their names; `None` if there is one.
    #[must_use]
    pub fn shares(&self, steps: usize) -> Option<Vec<(String, usize)>> {
        let levels = self.levels(steps).ok()?;
        self.network.shares(levels.timesteps.into_iter())
    }

    /// Noise levels of a clip in so many steps.
    fn levels(&self, steps: usize) -> Result<NoiseLevels> {
        Ok(self.sampler.levels(steps, self.latent[1..].iter().product())?)
    }

    /// Makes a clip from noise `[1, C, F, H, W]`; `progress` gets steps done.
    ///
    /// # Errors
    /// Steps that the artifact was not compiled for; a failing engine; a result that is not finite.
    pub fn sample(
        &mut self,
        noise: &HostTensor,
        steps: usize,
        given: &Given,
        mut progress: impl FnMut(usize),
    ) -> Result<HostTensor> {
        let frames = self.latent[1];
        let levels = self.levels(steps)?;
        for timestep in &levels.timesteps {
            self.network.check(*timestep).with_context(|| format!("{steps} steps"))?;
        }
        if self.batch == 2 && given.negative.is_none() {
            bail!(
                "`{}` was compiled with --batch 2: each call takes a prompt and its negative: name one with --negative FILE and --guidance G, or compile it \
                 with --batch 1",
                self.shown.display()
            );
        }
        let condition = self.condition.as_ref().and_then(|how| Some((how, given.condition.as_ref()?)));
        let strength = self.guidance.as_ref().zip(given.guidance);
        let strength =
            strength.map(|(shape, strength)| HostTensor { shape: shape.clone(), data: vec![strength as f32] });
        let interface = self.network.interface().clone();
        let (network, time, batch) = (&mut self.network, &self.time, self.batch);
        let mut clip = sampler::clip(&*self.sampler, &levels, noise, |x, t, step| {
            let latent = condition.map(|(how, tensor)| how.joined(x, tensor));
            let mut timestep = HostTensor { shape: time.clone(), data: vec![t as f32; time.iter().product()] };
            if let Some((how, _)) = condition {
                how.timed(&mut timestep, frames);
            }
            let mut call = |prompts: &[&Prompt]| {
                let of_each = |tensor: fn(&Prompt) -> Option<&HostTensor>| {
                    let tensors: Option<Vec<&HostTensor>> = prompts.iter().map(|prompt| tensor(prompt)).collect();
                    tensors.map(|tensors| joined(&tensors))
                };
                let of_all = |tensor: &'_ HostTensor| joined(&vec![tensor; prompts.len()]).into_owned();
                let named = [
                    (interface.latent(), Some(Cow::Owned(of_all(latent.as_ref().unwrap_or(x))))),
                    (interface.time(), Some(Cow::Borrowed(&timestep))),
                    (interface.text(), of_each(|prompt| Some(&prompt.text))),
                    (interface.text_mask(), of_each(|prompt| prompt.mask.as_ref())),
                    (interface.pooled(), of_each(|prompt| prompt.pooled.as_ref())),
                    (interface.guidance(), strength.as_ref().map(Cow::Borrowed)),
                    (interface.image(), given.image.as_ref().map(|image| Cow::Owned(of_all(image)))),
                ];
                let inputs: BTreeMap<&str, &HostTensor> =
                    named.iter().filter_map(|(name, tensor)| Some(((*name)?, tensor.as_deref()?))).collect();
                let mut out = network.run(t, &inputs)?;
                let made =
                    interface.output().and_then(|name| out.remove(name)).context("the model returns no velocity")?;
                Ok::<_, anyhow::Error>(apart(&made))
            };
            let negative = given.negative.as_ref().map(|(prompt, _)| prompt);
            let (positive, negative) = match negative {
                Some(negative) if batch == 2 => {
                    let [positive, negative] = <[HostTensor; 2]>::try_from(call(&[&given.prompt, negative])?)
                        .map_err(|made| anyhow::anyhow!("{} velocities of two prompts", made.len()))?;
                    (positive, Some(negative))
                }
                _ => {
                    let mut one = |prompt| call(&[prompt])?.pop().context("the model returns an empty velocity");
                    (one(&given.prompt)?, negative.map(one).transpose()?)
                }
            };
            progress(step + 1);
            // Each of two transformers has a guidance of its own.
            let guidance = given.negative.as_ref().map_or(1.0, |(_, g)| g[network.at(t)]);
            if negative.as_ref().is_some_and(|negative| negative.shape != positive.shape) {
                bail!("the model returns two velocities of different shapes");
            }
            Ok::<_, anyhow::Error>(guided(&positive, negative.as_ref(), guidance))
        })?;
        if let Some((how, tensor)) = condition {
            how.finish(&mut clip, tensor);
        }
        if clip.data.iter().any(|x| !x.is_finite()) {
            bail!("the clip has NaN or infinite elements");
        }
        Ok(clip)
    }

    /// Writes a clip as the tensor [`LATENT`].
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn save(to: Destination<'_>, clip: &HostTensor) -> Result<()> {
        let shape: Vec<u64> = clip.shape.iter().map(|d| *d as u64).collect();
        let mut file = LatentsFile::with_tensor(to, LATENT, &shape)?;
        file.push(clip)?;
        file.finish()
    }
}

/// Tensors `[1, …]` of one shape as one, `[N, …]`.
fn joined<'a>(tensors: &[&'a HostTensor]) -> Cow<'a, HostTensor> {
    match *tensors {
        [one] => Cow::Borrowed(one),
        _ => {
            let mut shape = tensors.first().map_or_else(Vec::new, |tensor| tensor.shape.clone());
            if let Some(first) = shape.first_mut() {
                *first = tensors.len();
            }
            Cow::Owned(HostTensor { shape, data: tensors.iter().flat_map(|tensor| &tensor.data).copied().collect() })
        }
    }
}

/// The tensors `[1, …]` of `[N, …]`.
fn apart(tensor: &HostTensor) -> Vec<HostTensor> {
    let mut shape = tensor.shape.clone();
    let Some(count) = shape.first_mut().map(|first| std::mem::replace(first, 1)) else { return Vec::new() };
    let size = (tensor.data.len() / count.max(1)).max(1);
    tensor.data.chunks_exact(size).map(|data| HostTensor { shape: shape.clone(), data: data.to_vec() }).collect()
}
