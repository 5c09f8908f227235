//! The Hugging Face hub: snapshots of repositories in its cache, found by name, and what a snapshot lacks, fetched.
//!
//! `CACHE/models--OWNER--NAME/refs/main` names a commit, `snapshots/COMMIT` holds its files, most of them links into `blobs` (see *Understand
//! caching* in the documentation of `huggingface_hub`). A file is downloaded into `CACHE/.s2ditc`, where a later run goes on with it, and
//! is moved into the snapshot when its size and its hash are those that the hub says.

mod checked;
mod fetch;
mod name;
mod settings;
mod snapshot;

pub use fetch::Fetching;
pub use name::RepositoryName;
pub use settings::Hub;
pub use snapshot::Snapshot;
