//! Systems on which the library has no GPU side.

use anyhow::Result;
use deformable_aggregation::{Algorithm, Backend, BorderRule, Element};

use super::{DeviceInfo, KernelInfo};
use crate::block::BlockData;
use crate::block::times::MeasuredBlock;
use crate::data::Data;
use crate::timing::{Limits, Runner};

/// There are none.
pub fn devices() -> Vec<DeviceInfo> {
    Vec::new()
}

/// There are none.
pub fn kernels() -> Vec<KernelInfo> {
    Vec::new()
}

/// No backend is a GPU.
pub fn description(_: &Backend) -> Option<String> {
    None
}

/// No backend is a GPU.
///
/// # Errors
///
/// None.
pub fn copy_bandwidth(_: &Backend) -> Result<Option<f64>> {
    Ok(None)
}

/// No backend is a GPU.
///
/// # Errors
///
/// None.
pub fn l2_read_bandwidth(_: &Backend) -> Result<Option<f64>> {
    Ok(None)
}

/// No backend is a GPU.
///
/// # Errors
///
/// None.
pub(super) fn runner<T: Element>(
    _: &Backend,
    _: Algorithm,
    _: &Data<T>,
    _: BorderRule,
) -> Result<Option<Box<dyn Runner<T>>>> {
    Ok(None)
}

/// No backend is a GPU.
///
/// # Errors
///
/// None.
pub(super) fn measured_block<T: Element>(
    _: &Backend,
    _: &BlockData<T>,
    _: bool,
    _: Limits,
) -> Result<Option<MeasuredBlock<T>>> {
    Ok(None)
}
