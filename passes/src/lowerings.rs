//! What the passes do for one device: lowerings that its limits and its speed ask for. Without a device there are none.

use crate::channels_first::Norms;
use crate::pass::Pass;
use crate::{pad_notch, slices_of_rows, split_hidden, tile_queries};

/// Lowerings for a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lowerings {
    /// The form of RMS norms.
    pub norms: Norms,
    /// Queries and keys go each by themselves where their steps together leave a working set of so many bytes.
    pub apart_beyond: Option<usize>,
    /// Attention whose scores leave the working set takes its queries in tiles.
    pub tiles: Option<tile_queries::Options>,
    /// Hidden layers that leave a working set of so many bytes are computed in parts.
    pub hidden: Option<usize>,
    /// Hidden layers of at most so many tokens get channels of zeros where their weights hit the notch of the DMA engine.
    pub notch: Option<usize>,
    /// No slice begins within the last axis.
    pub rows: bool,
}

impl Lowerings {
    /// The lowerings that there are, by the names of reports and metadata.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("norms-by-length", self.norms == Norms::Length),
            ("queries-and-keys-apart", self.apart_beyond.is_some()),
            ("tile-queries", self.tiles.is_some()),
            ("split-hidden", self.hidden.is_some()),
            ("pad-notch", self.notch.is_some()),
            ("slices-of-rows", self.rows),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    /// The passes on tensor ops, before anything is fp16. Weights that are compressed one by one stay what they are.
    pub(crate) fn passes(&self, compressed: bool) -> Vec<Pass> {
        let of_weights = |passes: Vec<Pass>| if compressed { Vec::new() } else { passes };
        let mut passes = of_weights(self.notch.map(pad_notch::pass).into_iter().collect());
        passes.extend(of_weights(self.hidden.map(split_hidden::pass).into_iter().collect()));
        passes.extend(self.tiles.map(tile_queries::pass));
        if self.rows {
            passes.push(Pass::from(&slices_of_rows::PASS));
        }
        passes
    }
}
