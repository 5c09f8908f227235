//! A whole clip with a bidirectional model: Euler steps from noise, with classifier-free guidance.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::Destination;
use s2dit_runtime::stream::sampler::{Guided, euler, euler_sigmas};
use s2dit_runtime::{Artifact, Chain, HostTensor, RunOptions, Timesteps, text_mask};

use super::{LatentsFile, mask_of, prompt_of, seeded_noise, seeded_prompt};
use s2dit_files::SafetensorsFile;
use s2dit_ir::Interface;
use s2dit_models::config;
use s2dit_models::model::Sampler;

/// The tensor that a clip is saved as, `[1, C, F, H, W]`.
pub const LATENT: &str = "latent";

/// A prompt of a clip.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Text embeddings `[1, L, text_dim]`.
    pub text: HostTensor,
    /// For a model that takes it: 1 where a token counts, 0 where it is padding, `[1, L]`.
    pub mask: Option<HostTensor>,
}

/// A compiled clip step, loaded.
pub struct Clip {
    session: Chain,
    interface: Interface,
    steps: usize,
    flow_shift: f64,
    timesteps: Option<Timesteps>,
    latent: Vec<usize>,
    text: [usize; 3],
    mask: Option<Vec<usize>>,
}

impl Clip {
    /// Loads an artifact that `s2ditc compile` made of a bidirectional checkpoint.
    ///
    /// # Errors
    /// An artifact of another tool, or of an autoregressive checkpoint; a failing engine.
    pub fn open(path: &Path, run: &RunOptions) -> Result<Clip> {
        let shown = path.display();
        let artifact = Artifact::open(path)?;
        let metadata = artifact.metadata();
        let Some(config) = metadata.get("s2ditc.config") else {
            bail!("`{shown}`: expected an artifact of s2ditc, found one without `s2ditc.config` in its metadata");
        };
        let model = config::parse(config, &format!("{shown}: metadata s2ditc.config"))?;
        let Sampler::Euler { steps, shift } = model.sampler()? else {
            if model.streaming().is_err() {
                bail!(
                    "`{shown}`: config.json ({}): found a list of noise levels, expected a number of Euler steps, which a \
                     bidirectional checkpoint has",
                    model.family().sampler_fields().join(", ")
                );
            }
            bail!(
                "`{shown}`: a whole clip of an autoregressive checkpoint, which makes video chunk by chunk: compile it with \
                 --mode stream"
            );
        };
        let interface = artifact.interface().with_context(|| format!("`{shown}`"))?;
        let port = |what: &str, name: Option<&str>| {
            let port = artifact.inputs().into_iter().find(|p| Some(p.name.as_str()) == name);
            let shape = port.and_then(|p| p.shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>());
            shape.with_context(|| format!("`{shown}`: no input that is {what}, of static shape"))
        };
        let (latent, text) = (port("a latent", interface.latent())?, port("a text", interface.text())?);
        let Ok(text) = <[usize; 3]>::try_from(text) else { bail!("`{shown}`: the text is not [1, L, text_dim]") };
        let mask = interface.text_mask().map(|name| port("a text mask", Some(name))).transpose()?;
        let session = artifact.session(run).with_context(|| format!("cannot load `{shown}`"))?;
        let timesteps = artifact.timesteps().with_context(|| format!("`{shown}`"))?;
        Ok(Clip { session, interface, steps, flow_shift: shift, timesteps, latent, text, mask })
    }

    /// Reads a prompt: the tensor `text` and, where the model takes a mask, `text_mask`.
    ///
    /// # Errors
    /// A tensor that is missing or that the model does not take.
    pub fn read_prompt(&self, path: &Path) -> Result<Prompt> {
        let file = SafetensorsFile::open(path)?;
        let text = prompt_of(&file, self.text)?;
        let mask = self.mask.as_ref().map(|shape| mask_of(&file, shape)).transpose()?;
        Ok(Prompt { text, mask })
    }

    /// A standard normal prompt, for trials without a text encoder. Where the model takes a mask, the last tokens do not count.
    #[must_use]
    pub fn seeded_prompt(&self, seed: u64) -> Prompt {
        let counting = text_mask::counting(self.text[1], seed);
        let mask = self.mask.as_ref().map(|shape| text_mask::of_first(shape, counting));
        Prompt { text: seeded_prompt(seed, self.text), mask }
    }

    /// Latent `[1, C, F, H, W]` of the clip.
    #[must_use]
    pub fn latent(&self) -> &[usize] {
        &self.latent
    }

    /// The checkpoint's number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Makes a clip. `negative` is the prompt to go away from and how far; `progress` gets steps done.
    ///
    /// # Errors
    /// Steps that the artifact was not compiled for; a failing engine; a result that is not finite.
    pub fn sample(
        &mut self,
        seed: u64,
        steps: usize,
        prompt: &Prompt,
        negative: Option<(&Prompt, f64)>,
        mut progress: impl FnMut(usize),
    ) -> Result<HostTensor> {
        let noise = seeded_noise(seed, 0, &self.latent);
        let sigmas = euler_sigmas(steps, self.flow_shift);
        if let Some(listed) = &self.timesteps {
            let mut asked = sigmas[..steps].iter().map(|s| 1000.0 * s);
            asked.try_for_each(|t| listed.check(t)).with_context(|| format!("{steps} steps"))?;
        }
        let guidance = negative.map_or(1.0, |(_, g)| g);
        let (session, interface) = (&mut self.session, &self.interface);
        let clip = euler(&noise, &sigmas, guidance, |x, t, step| {
            let timestep = HostTensor { shape: vec![1], data: vec![t as f32] };
            let mut call = |prompt: &Prompt| {
                let named = [
                    (interface.latent(), Some(x)),
                    (interface.time(), Some(&timestep)),
                    (interface.text(), Some(&prompt.text)),
                    (interface.text_mask(), prompt.mask.as_ref()),
                ];
                let inputs: BTreeMap<&str, &HostTensor> =
                    named.into_iter().filter_map(|(name, tensor)| Some((name?, tensor?))).collect();
                let mut out = session.run_with(|name| inputs.get(name).copied())?;
                interface.output().and_then(|name| out.remove(name)).context("the model returns no velocity")
            };
            let positive = call(prompt)?;
            let negative = negative.map(|(prompt, _)| call(prompt)).transpose()?;
            progress(step + 1);
            Ok::<_, anyhow::Error>(Guided { positive, negative })
        })?;
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
