//! How work that takes minutes tells how far it is.

/// A callback about progress: the name of the task, the work done, the work in all.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);
