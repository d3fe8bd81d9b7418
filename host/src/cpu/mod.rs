//! Fast code on all cores.
pub(crate) use crate::reference::{backward, forward};
