//! MP4 with H.264, which plays everywhere: in browsers, on phones and in QuickTime.
//!
//! OpenH264 (Cisco's, BSD licence) encodes; its C++ is built from its crate. Every picture has one quantiser, so that the quality does
//! not depend on the length, and one thread encodes, so that the same frames make the same bytes.

mod boxes;
mod yuv;

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};

use anyhow::{Context, Result, bail};
use openh264::encoder::{
    BitRate, Encoder, EncoderConfig, FrameRate, IntraFramePeriod, QpRange, RateControlMode, VuiConfig,
};
use openh264::formats::YUVSource;
use openh264::{OpenH264API, Timestamp};
use s2dit_backends::output::{Destination, Staged, made};

use super::{Format, Rgb, Spec, begins};
use boxes::Sample;

/// The quantiser: what is lost is then mostly that four pixels share a colour.
const QUANTISER: u8 = 16;
/// By how much the quantiser grows when the encoder has no room for a picture, as where every pixel differs from the next.
const COARSER: u8 = 6;
/// The coarsest quantiser of H.264.
const COARSEST: u8 = 51;
/// Bits a second that the encoder believes to have: more than the quantiser takes.
const BITS: u32 = 100_000_000;
/// The encoder's largest picture.
const LARGEST: [usize; 2] = [3840, 2160];
/// Seconds between pictures that need no other.
const SECONDS_BETWEEN_KEYS: f64 = 2.0;

pub(super) struct Mp4 {
    staged: Staged,
    out: BufWriter<File>,
    encoder: Encoder,
    quantiser: u8,
    spec: Spec,
    samples: Vec<Sample>,
    /// The parameter sets of the sequence and of pictures.
    sets: [Vec<u8>; 2],
    /// Bytes of pictures so far.
    bytes: u64,
    frames: usize,
}

impl Mp4 {
    pub(super) fn create(to: Destination<'_>, spec: Spec) -> Result<Mp4> {
        let path = to.path;
        let Spec { rows, cols, fps } = spec;
        if rows % 2 == 1 || cols % 2 == 1 || rows.min(cols) < 16 {
            bail!(
                "`{}`: found {cols}x{rows} pixels, expected even numbers of at least 16 for an .mp4: name a .webp, a .gif or a folder",
                path.display()
            );
        }
        let [longer, shorter] = LARGEST;
        if rows.max(cols) > longer || rows.min(cols) > shorter {
            bail!(
                "`{}`: found {cols}x{rows} pixels, expected at most {longer}x{shorter} for an .mp4: name a .webp or a folder",
                path.display()
            );
        }
        let encoder = encoder(fps, QUANTISER)?;
        let staged = Staged::file(to, &made::mp4)?;
        let file = File::create(staged.path()).with_context(|| format!("cannot write `{}`", path.display()))?;
        let mut mp4 = Mp4 {
            staged,
            out: BufWriter::new(file),
            encoder,
            quantiser: QUANTISER,
            spec,
            samples: Vec::new(),
            sets: [Vec::new(), Vec::new()],
            bytes: 0,
            frames: 0,
        };
        mp4.write(&boxes::head())?;
        Ok(mp4)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).with_context(|| format!("cannot write `{}`", self.staged.place().display()))
    }
}

/// An encoder of one quantiser.
fn encoder(fps: f64, quantiser: u8) -> Result<Encoder> {
    let config = EncoderConfig::new()
        .rate_control_mode(RateControlMode::Bufferbased)
        .qp(QpRange::new(quantiser, quantiser))
        .bitrate(BitRate::from_bps(BITS))
        .max_frame_rate(FrameRate::from_hz(fps as f32))
        .intra_frame_period(IntraFramePeriod::from_num_frames((fps * SECONDS_BETWEEN_KEYS).ceil() as u32))
        .skip_frames(false)
        .scene_change_detect(false)
        .adaptive_quantization(false)
        .background_detection(false)
        .num_threads(1)
        .vui(VuiConfig::bt709());
    Encoder::with_api_config(OpenH264API::from_source(), config).context("the encoder of H.264")
}

/// The units of a picture, each without the zeros and the one that it begins with.
fn units(encoder: &mut Encoder, picture: &impl YUVSource, at: Timestamp) -> Result<Vec<Vec<u8>>, openh264::Error> {
    let stream = encoder.encode_at(picture, at)?;
    let layers = (0..stream.num_layers()).filter_map(|i| stream.layer(i));
    let mut units = Vec::new();
    for layer in layers {
        for unit in (0..layer.nal_count()).filter_map(|i| layer.nal_unit(i)) {
            let start = unit.iter().position(|byte| *byte == 1).map_or(0, |at| at + 1);
            units.push(unit[start..].to_vec());
        }
    }
    Ok(units)
}

/// Types of the units of an H.264 stream.
const KEY_PICTURE: u8 = 5;
const SEQUENCE_SET: u8 = 7;
const PICTURE_SET: u8 = 8;

impl Format for Mp4 {
    fn push(&mut self, frame: &Rgb) -> Result<()> {
        let at = Timestamp::from_millis(begins(self.frames, self.spec.fps, 1000.0));
        let picture = yuv::of(frame);
        let units = loop {
            match units(&mut self.encoder, &picture, at) {
                Ok(units) => break units,
                // From here on, since the pictures that follow are of the same kind.
                Err(_) if self.quantiser + COARSER <= COARSEST => {
                    self.quantiser += COARSER;
                    self.encoder = encoder(self.spec.fps, self.quantiser)?;
                }
                Err(error) => {
                    let shown = self.staged.place().display();
                    bail!(
                        "`{shown}`: the encoder of H.264 failed at frame {}: {error}: name a .webp, a .gif or a folder",
                        self.frames
                    );
                }
            }
        };
        self.frames += 1;
        let (mut sample, mut is_key) = (Vec::new(), false);
        for unit in units {
            match unit.first().map(|byte| byte & 0x1f) {
                None => {}
                Some(SEQUENCE_SET) => self.sets[0] = unit,
                Some(PICTURE_SET) => self.sets[1] = unit,
                Some(kind) => {
                    is_key |= kind == KEY_PICTURE;
                    sample.extend((unit.len() as u32).to_be_bytes());
                    sample.extend_from_slice(&unit);
                }
            }
        }
        if sample.is_empty() {
            bail!("the encoder of H.264 left out a frame");
        }
        self.bytes += sample.len() as u64;
        self.samples.push(Sample { bytes: sample.len() as u32, is_key });
        self.write(&sample)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let tail = boxes::tail(self.spec, &self.samples, &self.sets)?;
        self.write(&tail)?;
        let Mp4 { staged, out, bytes, .. } = *self;
        let failed = || format!("cannot write `{}`", staged.place().display());
        let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        file.seek(SeekFrom::Start(boxes::size_at())).with_context(failed)?;
        file.write_all(&boxes::data_size(bytes)).with_context(failed)?;
        drop(file);
        Ok(staged.commit()?)
    }
}
