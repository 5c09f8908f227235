//! What each way to store one weight costs.

use super::search::Way;
use s2dit_emit::plan::Storage;

/// The ways to store a weight, with their sizes and errors.
pub(super) struct Curve {
    /// Ways to store the weight, with their sizes and errors.
    pub ways: Vec<(Storage, Way)>,
    /// ‖stored − weight‖ / ‖weight‖ of each way.
    pub relative: Vec<f64>,
    /// SNR in dB when only this weight is compressed.
    pub alone: Option<f64>,
    /// Why there is only one way.
    pub note: Option<String>,
}
