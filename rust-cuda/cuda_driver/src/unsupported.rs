//! The platforms without a driver that we know how to load.

use crate::{Driver, LoadError};

/// What would keep a driver open.
pub(crate) type Library = std::convert::Infallible;

pub(crate) fn driver() -> &'static Result<Driver, LoadError> {
    &Err(LoadError::UnsupportedPlatform)
}

pub(crate) fn functions() -> impl Iterator<Item = &'static str> {
    std::iter::empty()
}
