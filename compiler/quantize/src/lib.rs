//! Plans of how large weights are stored: measured sensitivities, calibration, error feedback, a search for a size or an
//! SNR. What a plan is and how it is applied is in [`s2dit_emit::plan`].

mod alone;
mod calibrated;
mod chain;
mod curve;
mod goal;
mod make;
mod maker;
mod measure;
mod progress;
mod report;
mod samples;
mod search;
mod sensitivity;
mod statistics;
mod survey;
mod uniform;

pub use calibrated::stats_file;
pub use make::{Goal, Request, make};
pub use maker::{Made, Point};
pub use report::html;
pub use samples::Samples;
pub use survey::Survey;
pub use uniform::{Stored, Uniform, stored};
