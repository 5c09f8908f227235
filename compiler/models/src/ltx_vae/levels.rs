//! The levels of a decoder of LTX-Video, the coarsest first.

use super::config::LtxVaeConfig;

/// A level of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Channels that a residual block before all else changes: from, to.
    pub changes: Option<[usize; 2]>,
    /// The doubling of frames, rows and columns.
    pub up: Option<Up>,
    /// Channels of its residual blocks.
    pub width: usize,
    /// Number of its residual blocks.
    pub blocks: usize,
}

/// A doubling of frames, rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Up {
    /// Channels before it.
    pub input: usize,
    /// What the channels are divided by.
    pub factor: usize,
    /// There is a shortcut around it.
    pub residual: bool,
}

/// Values that a value becomes where frames, rows and columns are doubled.
pub(super) const VALUES: usize = 8;

impl LtxVaeConfig {
    /// Channels of the middle block.
    pub(super) fn widest(&self) -> usize {
        self.decoder_block_out_channels.last().copied().unwrap_or_default()
    }

    /// The levels; or a field, what was found and what was expected.
    pub(super) fn levels(&self) -> Result<Vec<Level>, (&'static str, String, String)> {
        let mut have = self.widest();
        let mut output = have;
        let lists = self.decoder_block_out_channels.iter().zip(&self.decoder_spatio_temporal_scaling);
        let more = self.upsample_residual.iter().zip(&self.upsample_factor).zip(&self.decoder_layers_per_block);
        let mut levels = Vec::new();
        for ((&channels, &doubles), ((&residual, &factor), &blocks)) in lists.zip(more).rev() {
            let wrong = |found: usize, expected: usize| {
                let found = format!("{found} channels before level {} of the decoder", levels.len());
                ("upsample_factor", found, format!("{expected}, which decoder_block_out_channels and the factor make"))
            };
            let input = output / factor;
            output = channels / factor;
            let changes = (input != output).then_some([input, output]);
            if changes.is_some() {
                if have != input {
                    return Err(wrong(have, input));
                }
                have = output;
            }
            let up = doubles.then_some(Up { input: have, factor, residual });
            if doubles {
                if have != output * factor {
                    return Err(wrong(have, output * factor));
                }
                if residual && (!have.is_multiple_of(VALUES) || !VALUES.is_multiple_of(factor)) {
                    let found = format!("{have} channels and a factor of {factor} at level {}", levels.len());
                    let expected = "a multiple of 8 and a divisor of 8, where upsample_residual is true";
                    return Err(("decoder_block_out_channels", found, expected.into()));
                }
                have = output;
            }
            if have != output || output == 0 {
                return Err(wrong(have, output));
            }
            levels.push(Level { changes, up, width: output, blocks });
        }
        Ok(levels)
    }
}
