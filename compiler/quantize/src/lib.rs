//! Plans of how large weights are stored: measured sensitivities, calibration, error feedback, a search for a size or an
//! SNR. What a plan is and how it is applied is in [`s2dit_emit::plan`].

mod alone;
mod calibrated;
mod chain;
mod goal;
mod make;
mod measure;
mod report;
mod samples;
mod search;
mod sensitivity;
mod statistics;
mod survey;
mod uniform;

pub use calibrated::stats_file;
pub use make::{Goal, Made, Point, Request, make};
pub use report::html;
pub use samples::Samples;
pub use survey::Survey;
pub use uniform::Uniform;
