//! The graph of a checkpoint, as this compiler reads it, for comparison with an artifact.

use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_ir::{Interface, Module};
use s2dit_passes::emulate::Arithmetic;
use s2dit_passes::{PassPipeline, pipelines};
use s2dit_runtime::timesteps::Timesteps;
use s2dit_runtime::{Artifact, Engine, Port, RunOptions, run_function};

use super::claim::quantized;
use super::file;
use super::inputs::Tensors;
use crate::made_from::{self, Said, loras};
use s2dit_emit::plan::{How, Quantize, Sources, is_exact};
use s2dit_models::checkpoint::{Checkpoint, Origin};
use s2dit_models::size::{LatentSize, Size, StepSize};

/// A checkpoint that an artifact is compared with.
#[derive(Clone, Debug)]
pub struct Model {
    /// Where the checkpoint is, and how it is read.
    pub origin: Origin,
    /// How the artifact's weights are stored.
    pub quantize: Option<How>,
}

/// An open checkpoint that an artifact fits.
pub(crate) struct Graph {
    checkpoint: Checkpoint,
    size: Size,
    ports: Vec<Port>,
    listed: Option<Timesteps>,
}

impl Graph {
    /// Opens the checkpoint of an artifact at `path`.
    ///
    /// # Errors
    /// A checkpoint that cannot be opened or is another one than the artifact's; an artifact without the clip's inputs.
    pub fn open(artifact: &Artifact, path: &Path, origin: &Origin) -> Result<Graph> {
        let checkpoint = Checkpoint::open_from(origin)?;
        let metadata = artifact.metadata();
        let config = metadata.get("s2ditc.config").map(|text| serde_json::from_str(text)).transpose();
        let config = config.with_context(|| format!("`{}`: metadata `s2ditc.config`: not JSON", path.display()))?;
        let hash = metadata.get("s2ditc.checkpoint").map(String::as_str);
        made_from::check(path, Said { hash, config: config.as_ref(), loras: loras(&metadata) }, &checkpoint)?;
        let (ports, listed) = (artifact.inputs(), artifact.timesteps()?);
        let interface = artifact.interface().with_context(|| format!("`{}`", path.display()))?;
        let size = match checkpoint.model().graph() {
            Some(_) => Size::Only,
            None => size_of(&ports, &interface).with_context(|| format!("`{}`", path.display()))?,
        };
        let graph = Graph { checkpoint, size, ports, listed };
        graph.check_ports(path)?;
        Ok(graph)
    }

    /// Refuses an artifact whose inputs are not those of the checkpoint's graph.
    fn check_ports(&self, path: &Path) -> Result<()> {
        let module = self.checkpoint.model().build(&self.checkpoint, self.size)?;
        let step = &module.functions[0];
        for port in &self.ports {
            let wanted = step.by_name(&port.name).map(|v| step.shape(v).iter().map(|d| *d as i64).collect::<Vec<_>>());
            if wanted.as_ref() != Some(&port.shape) {
                let wanted = wanted.map_or("no such input".into(), |w| format!("{w:?}"));
                bail!(
                    "`{}`, input `{}`: found {:?}, the checkpoint has {wanted}",
                    path.display(),
                    port.name,
                    port.shape
                );
            }
        }
        Ok(())
    }

    /// How the weights of the artifact at `path` are stored, opened: `named` on the command line, or one scheme that the artifact
    /// says itself. `None` if they are not quantized, or if there is no exact reference.
    ///
    /// # Errors
    /// A storage that is not the artifact's; a plan that nobody named.
    pub fn storage(&self, artifact: &Artifact, path: &Path, named: Option<&How>) -> Result<Option<Quantize>> {
        let metadata = artifact.metadata();
        let said = quantized(&metadata);
        if let Some(named) = named {
            let opened = named.open(&self.checkpoint)?;
            let (made, given) = (said.unwrap_or("not quantized"), opened.as_ref().map(ToString::to_string));
            if given.as_deref() != said {
                let given = given.unwrap_or("fp16".into());
                bail!("`{}`: found {made}, expected {given}, as --quantize says", path.display());
            }
            return Ok(opened);
        }
        let uniform = said.filter(|_| is_exact(&metadata)).and_then(|said| said.parse::<How>().ok());
        match uniform {
            Some(how @ How::Every(_)) => Ok(how.open(&self.checkpoint)?),
            _ => Ok(None),
        }
    }

    /// What the plain fp32 graph, or the graph with weights that are stored as in the artifact, makes of inputs: its results and the
    /// probed blocks.
    ///
    /// # Errors
    /// A storage that does not fit; a failing engine.
    pub fn run(&self, storage: Option<&Quantize>, inputs: &Tensors, run: &RunOptions) -> Result<Tensors> {
        let module = self.module(storage)?;
        let mut results = run_function(
            &module.functions[0],
            &Sources::new(&self.checkpoint, storage),
            Arithmetic::AsTyped,
            inputs,
            &RunOptions { fp16: false, engine: Engine::Ort, ..run.clone() },
        )
        .context("cannot run the reference graph")?;
        if storage.is_none()
            && let Some(own) = file::run(&self.checkpoint, inputs, run)?
        {
            results.extend(own);
        }
        let is_output = |name: &str| module.interface.outputs.iter().any(|output| output.name == name);
        results.retain(|name, _| is_output(name) || run.probes.contains(name));
        Ok(results)
    }

    fn module(&self, storage: Option<&Quantize>) -> Result<Module> {
        let mut module = self.checkpoint.model().build(&self.checkpoint, self.size)?;
        match storage {
            // In fp32 the plain sinusoids would be the least exact part of the reference.
            None => {
                PassPipeline::new(&["phase"])?.run(&mut module, |_, _| {})?;
            }
            Some(quantize) => {
                // What the gate is folded into is compressed as it is then.
                let listed = self.listed.as_ref().map(Timesteps::list);
                pipelines::reference(listed)?.run(&mut module, |_, _| {})?;
                quantize.apply(&mut module, &self.checkpoint)?;
            }
        }
        Ok(module)
    }
}

/// The size that an artifact was made for, as the shapes of its inputs tell it.
fn size_of(ports: &[Port], interface: &Interface) -> Result<Size> {
    let port = |name: Option<&str>| ports.iter().find(|port| name == Some(port.name.as_str()));
    let side = |n: i64| usize::try_from(n).context("the input has no static shape");
    let latent = port(interface.latent()).map(|port| port.shape.as_slice());
    let tokens = port(interface.tokens()).map(|port| port.shape.as_slice());
    match (latent, tokens) {
        (Some([batch, _, frames, rows, cols]), _) => {
            let latent = LatentSize { frames: side(*frames)?, rows: side(*rows)?, cols: side(*cols)? };
            Ok(StepSize { latent, batch: side(*batch)? }.into())
        }
        (None, Some([_, tokens])) => Ok(Size::Tokens(side(*tokens)?)),
        _ => bail!("expected an input that is a latent, [B, C, F, H, W], or token ids, [1, L]"),
    }
}
