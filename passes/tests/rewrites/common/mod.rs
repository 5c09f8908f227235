//! What several tests share: how a case is written as text, seeded numbers, a stream of chunks, and how property tests draw.

pub mod case;
pub mod numbers;
#[path = "../../../../tests/common/property.rs"]
pub mod property;
pub mod stream;
