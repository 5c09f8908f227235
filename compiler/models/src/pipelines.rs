//! The pipelines that are compiled whole: what the code of each class does around its models, which no file of a pipeline folder says.

use s2dit_files::problems::{Problem, quoted};
use s2dit_runtime::pipeline::{Cleaning, EncoderMask, Levels, Scheduler, SchedulerKind};
use serde_json::{Map, Value};

use crate::checkpoint::{PIPELINE_FILE, PipelineFolder};
use crate::model::Model;

/// A class of pipelines.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The `_class_name` of its index.
    pub class: &'static str,
    /// What it does to a prompt.
    pub cleaning: Cleaning,
    /// The mask that it gives a text encoder which takes one.
    pub encoder_mask: EncoderMask,
    /// Whether it makes embeddings 0 where the text is padding.
    pub zero_padding: bool,
    /// The noise levels that it gives its scheduler.
    pub levels: Levels,
    /// Steps of a clip.
    pub steps: usize,
    /// Strength of guidance.
    pub guidance: f64,
    /// Frames of a clip.
    pub frames: usize,
    /// Frames in a second of video, where the transformer does not say.
    fps: f64,
    /// Why its text encoder is not compiled; `None` if it is.
    pub without_encoder: Option<&'static str>,
}

/// Every class.
pub const KINDS: &[Kind] = &[
    Kind {
        class: "WanPipeline",
        cleaning: Cleaning::Wan,
        encoder_mask: EncoderMask::Tokens,
        zero_padding: true,
        levels: Levels::Scheduler,
        steps: 50,
        guidance: 5.0,
        frames: 81,
        fps: 16.0,
        without_encoder: None,
    },
    Kind {
        class: "LTXPipeline",
        cleaning: Cleaning::None,
        encoder_mask: EncoderMask::Ones,
        zero_padding: false,
        levels: Levels::Linear,
        steps: 50,
        guidance: 3.0,
        frames: 161,
        fps: 25.0,
        without_encoder: None,
    },
    Kind {
        class: "SanaVideoPipeline",
        cleaning: Cleaning::None,
        encoder_mask: EncoderMask::Tokens,
        zero_padding: false,
        levels: Levels::Scheduler,
        steps: 50,
        guidance: 6.0,
        frames: 81,
        fps: 16.0,
        without_encoder: Some(
            "its text encoder is a Gemma 2, which is not compiled: compute embeddings elsewhere and give them to the transformer",
        ),
    },
    Kind {
        class: "S2DiTPipeline",
        cleaning: Cleaning::None,
        encoder_mask: EncoderMask::Tokens,
        zero_padding: false,
        levels: Levels::Scheduler,
        steps: 4,
        guidance: 1.0,
        frames: 81,
        fps: 16.0,
        without_encoder: None,
    },
];

impl Kind {
    /// The class of a pipeline folder.
    ///
    /// # Errors
    /// A class that is not compiled whole.
    pub fn of(folder: &PipelineFolder) -> Result<&'static Kind, Problem> {
        let class = folder.class();
        KINDS.iter().find(|kind| class == Some(kind.class)).ok_or_else(|| Problem {
            place: format!("{}: _class_name", folder.dir().join(PIPELINE_FILE).display()),
            found: class.map_or("no such field".into(), quoted),
            expected: format!(
                "{}; the models of another pipeline are compiled one by one, with --component",
                KINDS.iter().map(|kind| quoted(kind.class)).collect::<Vec<_>>().join(" or ")
            ),
        })
    }

    /// Frames in a second: as the transformer says it, or as the class's examples have it.
    #[must_use]
    pub fn fps(&self, transformer: &dyn Model) -> f64 {
        let config = transformer.config();
        // Wan 2.2 TI2V is the one that takes a timestep for each token.
        let usual = if config["expand_timesteps"] == true { 24.0 } else { self.fps };
        config["frame_rate"].as_f64().unwrap_or(usual)
    }
}

/// Whether a text encoder makes embeddings 0 where the text is padding.
#[must_use]
pub fn makes_padding_zero(encoder: &dyn Model) -> bool {
    encoder.config()["zero_padding"] == true
}

/// The scheduler of a pipeline folder, from the entries of its configuration.
///
/// # Errors
/// A class that is not sampled with here.
pub fn scheduler(entries: Vec<(String, Value)>, place: &str) -> Result<Scheduler, Problem> {
    const KINDS: [(&str, SchedulerKind); 3] = [
        ("UniPCMultistepScheduler", SchedulerKind::Unipc),
        ("FlowMatchEulerDiscreteScheduler", SchedulerKind::FlowMatchEuler),
        ("DPMSolverMultistepScheduler", SchedulerKind::DpmSolver),
    ];
    let class = entries.iter().find(|(name, _)| name == "_class_name").and_then(|(_, value)| value.as_str());
    let known = KINDS.iter().find(|(known, _)| class == Some(known));
    let Some((class, kind)) = known else {
        return Err(Problem {
            place: format!("{place}: _class_name"),
            found: class.map_or("no such field".into(), quoted),
            expected: KINDS.map(|(class, _)| quoted(class)).join(" or "),
        });
    };
    let config: Map<String, Value> = entries.into_iter().filter(|(name, _)| !name.starts_with('_')).collect();
    Ok(Scheduler { kind: *kind, class: (*class).to_owned(), config })
}
