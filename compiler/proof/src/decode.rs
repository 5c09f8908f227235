//! Videos of latents: what a decoder takes and gives, as files.

mod output;
mod verify;

use std::borrow::BorrowMut;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_files::SafetensorsFile;
use s2dit_files::writer::SafetensorsLayout;
use s2dit_ir::DType;
use s2dit_runtime::decode::contract::Contract;
use s2dit_runtime::{Artifact, DecodeSession, HostTensor, RunOptions, StreamOptions};

use crate::stream::{LATENTS, finite};
pub use output::VideoOutput;
pub use verify::verify;

/// The latent of a clip, `[1, C, F, H, W]`.
pub const LATENT: &str = "latent";
/// The video in a file, `[1, 3, T, H, W]` in −1 to 1.
pub const VIDEO: &str = "video";

/// The latents of a video, `[1, C, F, H, W]`, read from a file.
#[derive(Debug)]
pub struct Latents {
    shown: String,
    all: HostTensor,
}

impl Latents {
    /// Reads `latent [1, C, F, H, W]`, as a clip has it, or `stream.latents [chunks, 1, C, F, H, W]`, as a stream has it.
    ///
    /// # Errors
    /// Neither tensor; one of another rank; NaN or infinite elements.
    pub fn read(path: &Path) -> Result<Latents> {
        let file = SafetensorsFile::open(path)?;
        let shown = path.display().to_string();
        let found = [LATENT, LATENTS].into_iter().find_map(|name| Some((name, file.get(name)?.ty.shape.clone())));
        let Some((name, shape)) = found else {
            bail!("`{shown}`: no tensor `{LATENT}` [1, C, F, H, W], nor `{LATENTS}` [chunks, 1, C, F, H, W]");
        };
        let chunks = match (name, &shape[..]) {
            (LATENT, [1, ..]) if shape.len() == 5 => 1,
            (LATENTS, [chunks, 1, ..]) if shape.len() == 6 => *chunks,
            (LATENT, _) => bail!("`{shown}`, tensor `{name}`: found {shape:?}, expected [1, C, F, H, W]"),
            _ => bail!("`{shown}`, tensor `{name}`: found {shape:?}, expected [chunks, 1, C, F, H, W]"),
        };
        ensure!(!shape.contains(&0), "`{shown}`, tensor `{name}`: found {shape:?}, expected no zero");
        let data = finite(&file, name)?;
        let [channels, frames, rows, cols] = shape[shape.len() - 4..] else { bail!("latents of another rank") };
        // Frames of the chunks one behind the other.
        let plane = rows * cols;
        let mut joined = Vec::with_capacity(data.len());
        for channel in 0..channels {
            for chunk in 0..chunks {
                let at = (chunk * channels + channel) * frames * plane;
                joined.extend_from_slice(&data[at..at + frames * plane]);
            }
        }
        let all = HostTensor { shape: vec![1, channels, chunks * frames, rows, cols], data: joined };
        Ok(Latents { shown, all })
    }

    /// Latents `[1, C, F, H, W]` that were just made; `shown` names them in errors.
    #[must_use]
    pub fn of(all: HostTensor, shown: &str) -> Latents {
        Latents { shown: shown.into(), all }
    }

    /// Latent frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.all.shape[2]
    }

    /// Checks that a decoder takes these latents, whatever the number of their frames.
    ///
    /// # Errors
    /// Other channels, rows or columns than the decoder was compiled for.
    pub fn check(&self, decoder: [usize; 5]) -> Result<()> {
        let [_, channels, _, rows, cols] = decoder;
        let found = &self.all.shape;
        if [found[1], found[3], found[4]] != [channels, rows, cols] {
            bail!(
                "`{}`: found latents of {} channels, {}x{}, expected {channels} channels, {rows}x{cols}, what the decoder was compiled for",
                self.shown,
                found[1],
                found[3],
                found[4]
            );
        }
        Ok(())
    }
}

/// A decoder, opened: a whole clip, or chunk by chunk.
pub enum Decoder {
    /// A step that decodes a clip of so many latent frames, and the latent's shape.
    Clip(Box<Artifact>, [usize; 5], RunOptions),
    /// A folder that decodes chunk by chunk.
    Chunks(Box<DecodeSession>),
}

impl Decoder {
    /// Opens the folder of a decoder that streams, or an ONNX file or package that decodes a whole clip.
    ///
    /// # Errors
    /// Nothing there, or something that is no decoder; a failing engine.
    pub fn open(path: &Path, options: &RunOptions) -> Result<Decoder> {
        if Contract::is_in(path) {
            let options = StreamOptions {
                fp16: options.fp16,
                threads: options.threads,
                quiet: options.quiet,
                ..StreamOptions::default()
            };
            return Ok(Decoder::Chunks(Box::new(DecodeSession::open(path, &options)?)));
        }
        let artifact = Artifact::open(path)?;
        let interface = artifact.interface()?;
        let inputs = artifact.inputs();
        let latent = interface.latent().and_then(|name| inputs.iter().find(|port| port.name == name));
        let shape = latent
            .and_then(|port| <[i64; 5]>::try_from(&port.shape[..]).ok())
            .map(|sides| sides.map(|side| side as usize));
        let takes_more = inputs.len() != 1;
        match shape {
            Some(shape) if !takes_more => Ok(Decoder::Clip(Box::new(artifact), shape, options.clone())),
            _ => bail!("`{}`: expected a decoder, which takes a latent [1,C,F,H,W] and nothing else", path.display()),
        }
    }

    /// The latent that a call takes.
    #[must_use]
    pub fn latent(&self) -> [usize; 5] {
        match self {
            Decoder::Clip(_, latent, _) => *latent,
            Decoder::Chunks(session) => session.contract().chunk.shape(),
        }
    }

    /// Frames of the video that it makes of latents; `None` for those of a clip, which its first call says.
    ///
    /// # Errors
    /// Another number than that of a clip.
    pub fn frames(&self, latents: &Latents) -> Result<Option<usize>> {
        let frames = latents.frames();
        match self {
            Decoder::Clip(_, latent, _) if latent[2] == frames => Ok(None),
            Decoder::Clip(_, latent, _) => bail!(
                "`{}`: found {frames} latent frame(s), expected {}, what the decoder was compiled for; one that was compiled with --mode \
                 stream takes any number",
                latents.shown,
                latent[2]
            ),
            Decoder::Chunks(session) => Ok(Some(frames_of_stream(session.contract(), frames))),
        }
    }

    /// Decodes latents; `push` gets the frames of each call, `[1, 3, T, H, W]`, and the latent frames done.
    ///
    /// # Errors
    /// Latents that do not fit; a failing engine; an error of `push`.
    pub fn decode(&mut self, latents: &Latents, mut push: impl FnMut(&HostTensor, usize) -> Result<()>) -> Result<()> {
        latents.check(self.latent())?;
        self.frames(latents)?;
        match self {
            Decoder::Clip(artifact, _, options) => {
                let interface = artifact.interface()?;
                let latent = interface.latent().context("a decoder without a latent")?;
                let output = interface.output().context("a decoder without a result")?;
                let mut made = artifact.run(&BTreeMap::from([(latent.to_owned(), latents.all.clone())]), options)?;
                let video = made.remove(output).with_context(|| format!("no result `{output}`"))?;
                push(&video, latents.frames())
            }
            Decoder::Chunks(session) => {
                let mut feed = Feed::new(&mut **session);
                feed.take(&latents.all, &mut push)?;
                feed.finish(&mut push)
            }
        }
    }
}

/// Frames that a decoder that streams makes of so many latent frames.
#[must_use]
pub fn frames_of_stream(contract: &Contract, latent_frames: usize) -> usize {
    let each = contract.video.next_frames / contract.chunk.frames;
    contract.video.first_frames + each * latent_frames - each * contract.chunk.frames
}

/// Latents on their way through a decoder that streams, however many of them come at a time. `S` is the session, borrowed or owned.
pub struct Feed<S> {
    session: S,
    /// Latent frames that are no chunk of the decoder yet.
    waiting: Option<HostTensor>,
    /// Latent frames decoded.
    done: usize,
}

impl<S: BorrowMut<DecodeSession>> Feed<S> {
    /// Begins a video.
    pub fn new(mut session: S) -> Feed<S> {
        session.borrow_mut().restart();
        Feed { session, waiting: None, done: 0 }
    }

    /// Takes the next latent frames `[1, C, F, H, W]`, and decodes as many as make whole chunks; see [`Decoder::decode`].
    ///
    /// # Errors
    /// Latents that do not fit; a failing engine; an error of `push`.
    pub fn take(
        &mut self,
        latents: &HostTensor,
        push: &mut impl FnMut(&HostTensor, usize) -> Result<()>,
    ) -> Result<()> {
        let all = match self.waiting.take() {
            None => latents.clone(),
            Some(waiting) => one_after_the_other(&waiting, latents),
        };
        let session = self.session.borrow_mut();
        let (count, total) = (session.contract().chunk.frames, all.shape[2]);
        let whole = total / count * count;
        for begin in (0..whole).step_by(count) {
            let video = session.decode(&frames_of(&all, begin, count))?;
            self.done += count;
            push(&video, self.done)?;
        }
        self.waiting = (whole < total).then(|| frames_of(&all, whole, total - whole));
        Ok(())
    }

    /// Decodes what is left; see [`Decoder::decode`].
    ///
    /// # Errors
    /// A failing engine; an error of `push`.
    pub fn finish(self, push: &mut impl FnMut(&HostTensor, usize) -> Result<()>) -> Result<()> {
        let Feed { mut session, waiting: Some(waiting), done } = self else { return Ok(()) };
        let session = session.borrow_mut();
        let (before, all) = (done, done + waiting.shape[2]);
        let frames = |latent_frames| frames_of_stream(session.contract(), latent_frames);
        let keep = if before == 0 { frames(all) } else { frames(all) - frames(before) };
        let video = session.decode(&frames_of(&waiting, 0, session.contract().chunk.frames))?;
        push(&first_frames(video, keep), all)
    }
}

/// Latent frames, and others behind them.
fn one_after_the_other(first: &HostTensor, second: &HostTensor) -> HostTensor {
    let [batch, channels, frames, rows, cols] = first.shape[..] else { return second.clone() };
    let sizes = [first, second].map(|x| x.data.len() / channels.max(1));
    let pairs = first.data.chunks(sizes[0]).zip(second.data.chunks(sizes[1]));
    let data = pairs.flat_map(|(first, second)| first.iter().chain(second)).copied().collect();
    HostTensor { shape: vec![batch, channels, frames + second.shape[2], rows, cols], data }
}

/// Some frames of `[1, C, F, h, w]`; beyond the end there are copies of the last one, which no frame before them sees.
fn frames_of(x: &HostTensor, begin: usize, count: usize) -> HostTensor {
    let [batch, channels, frames, rows, cols] = x.shape[..] else { return x.clone() };
    let plane = rows * cols;
    let at = |channel: usize, frame: usize| (channel * frames + frame.min(frames - 1)) * plane;
    let pairs = (0..channels).flat_map(|channel| (begin..begin + count).map(move |frame| (channel, frame)));
    let data = pairs.flat_map(|(channel, frame)| &x.data[at(channel, frame)..][..plane]).copied().collect();
    HostTensor { shape: vec![batch, channels, count, rows, cols], data }
}

/// The first frames of a video `[1, 3, T, H, W]`.
fn first_frames(video: HostTensor, count: usize) -> HostTensor {
    let [batch, colours, frames, rows, cols] = video.shape[..] else { return video };
    if count == frames {
        return video;
    }
    let plane = rows * cols;
    let data = video.data.chunks(frames * plane).flat_map(|colour| &colour[..count * plane]).copied().collect();
    HostTensor { shape: vec![batch, colours, count, rows, cols], data }
}

/// A safetensors file with a [`VIDEO`] that is written as frames are made; it appears when it is whole.
pub struct VideoFile {
    staged: Staged,
    out: File,
    begin: u64,
    shape: [usize; 5],
    written: usize,
}

impl VideoFile {
    /// Begins the file of a video of this shape.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn create(to: Destination<'_>, shape: [usize; 5]) -> Result<VideoFile> {
        let (path, staged) = (to.path, Staged::file(to, &made::safetensors)?);
        let begin = || -> Result<(File, u64)> {
            let metadata = BTreeMap::from([(made::MADE_BY.to_string(), made::by())]);
            let extents = shape.iter().map(|extent| *extent as u64).collect();
            let layout = SafetensorsLayout::new([(VIDEO, DType::F32, extents)], &metadata)?;
            let mut out = File::create(staged.path())?;
            out.write_all(layout.header())?;
            out.set_len(layout.file_bytes())?;
            Ok((out, layout.begins()[0]))
        };
        let (out, begin) = begin().with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(VideoFile { staged, out, begin, shape, written: 0 })
    }

    /// Adds frames `[1, 3, T, H, W]`.
    ///
    /// # Errors
    /// Frames of another size, or too many; the disk is full.
    pub fn push(&mut self, frames: &HostTensor) -> Result<()> {
        let [_, colours, all, rows, cols] = self.shape;
        let [1, found, count, height, width] = frames.shape[..] else { bail!("frames of another rank than 5") };
        ensure!(
            [found, height, width] == [colours, rows, cols] && self.written + count <= all,
            "frames {:?} behind {} of a video {:?}",
            frames.shape,
            self.written,
            self.shape
        );
        let plane = rows * cols;
        let failed = || format!("cannot write `{}`", self.staged.place().display());
        for (colour, values) in frames.data.chunks(count * plane).enumerate() {
            let at = (colour * all + self.written) * plane * size_of::<f32>();
            self.out.seek(SeekFrom::Start(self.begin + at as u64)).with_context(failed)?;
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            self.out.write_all(&bytes).with_context(failed)?;
        }
        self.written += count;
        Ok(())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Frames that are missing; the disk is full.
    pub fn finish(self) -> Result<()> {
        ensure!(self.written == self.shape[2], "a video of {} frames, expected {}", self.written, self.shape[2]);
        self.out.sync_data().with_context(|| format!("cannot write `{}`", self.staged.place().display()))?;
        Ok(self.staged.commit()?)
    }
}
