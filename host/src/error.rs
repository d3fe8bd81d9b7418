//! The one error type of the crate.

use crate::element::DType;

/// What can go wrong, and with which argument.
///
/// Every variant names the argument (or the backend), what was expected and what was found. Nothing in
/// the safe public API panics on bad input: it returns one of these.
///
/// ```
/// use deformable_aggregation::{AggregationShape, Error, FeatureLayout, LevelShape};
///
/// let layout = FeatureLayout::uniform(1, &[LevelShape { height: 4, width: 4 }])?;
/// let error = AggregationShape::new(layout, 1, 1, 1, 30, 8).unwrap_err();
/// assert_eq!(error, Error::Groups { embed_dims: 30, groups: 8 });
/// assert_eq!(
///     error.to_string(),
///     "groups: expected a number that divides embed_dims = 30, got 8"
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array does not have the dimensions that the other arguments call for.
    #[error("{argument}: expected dimensions {axes} = {expected:?}, got {actual:?}")]
    Dimensions {
        /// The array.
        argument: &'static str,
        /// Its axes by name, outermost first.
        axes: &'static str,
        /// The dimensions it should have.
        expected: Vec<usize>,
        /// The dimensions it has.
        actual: Vec<usize>,
    },
    /// A size that must be at least one is zero.
    #[error("{argument}: expected at least 1, got 0")]
    Zero {
        /// The size.
        argument: &'static str,
    },
    /// The groups do not divide the channels evenly.
    #[error("groups: expected a number that divides embed_dims = {embed_dims}, got {groups}")]
    Groups {
        /// Channels of a feature map.
        embed_dims: usize,
        /// Weight groups.
        groups: usize,
    },
    /// A feature map has no pixels, or a negative size.
    #[error(
        "{argument}[{camera}, {level}]: expected height and width of at least 1, got ({height}, {width})"
    )]
    LevelSize {
        /// The argument that holds the size.
        argument: &'static str,
        /// Index of the camera (of the camera group in `feature_maps_format`).
        camera: usize,
        /// Index of the level.
        level: usize,
        /// Height in pixels.
        height: i64,
        /// Width in pixels.
        width: i64,
    },
    /// A feature map does not lie inside the packed feature axis.
    #[error(
        "scale_start_index[{camera}, {level}]: expected the {pixels} pixels of this map to lie in \
         0..{num_feat} (the feature axis), got start {start}"
    )]
    Start {
        /// Index of the camera.
        camera: usize,
        /// Index of the level.
        level: usize,
        /// First pixel of the map.
        start: i64,
        /// Pixels of the map, height times width.
        pixels: usize,
        /// Length of the feature axis.
        num_feat: usize,
    },
    /// Cameras (or camera groups) differ in something that has to be common to all.
    #[error(
        "{argument}[{index}]: expected {expected} {quantity} as in {argument}[0], got {actual}"
    )]
    Uneven {
        /// The list.
        argument: &'static str,
        /// The entry that differs from the first.
        index: usize,
        /// What differs.
        quantity: &'static str,
        /// The value of the first entry.
        expected: usize,
        /// The value of this entry.
        actual: usize,
    },
    /// A list that must have an entry has none.
    #[error("{argument}: expected {expected}, got an empty list")]
    Empty {
        /// The list.
        argument: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A product of sizes does not fit the address space.
    #[error(
        "{argument}: expected a size of at most {limit} bytes, got dimensions {dimensions:?} of \
         {element_bytes} bytes each",
        limit = isize::MAX
    )]
    TooLarge {
        /// The array.
        argument: &'static str,
        /// Its dimensions.
        dimensions: Vec<usize>,
        /// Bytes of one element.
        element_bytes: usize,
    },
    /// A size is beyond what the GPU kernels count in 32 bits.
    #[error(
        "{argument}: expected at most {limit} on a GPU backend, got {actual}; \
         split the call or use Backend::Cpu"
    )]
    KernelLimit {
        /// The size.
        argument: &'static str,
        /// The largest value the kernels take.
        limit: usize,
        /// The value given.
        actual: usize,
    },
    /// Gradients cannot be computed in a fixed order.
    #[error(
        "algorithm: expected feature maps that do not share rows, and at most 2^29 samples of a batch item, for \
         repeatable gradients on a GPU backend; use Algorithm::Fast or Backend::Cpu"
    )]
    NotRepeatable,
    /// A device address cannot be that of the array it stands for.
    #[error("{argument}: expected a device address aligned to {alignment} bytes, got {address:#x}")]
    Pointer {
        /// The array.
        argument: &'static str,
        /// Bytes its address is a multiple of.
        alignment: usize,
        /// The address given.
        address: u64,
    },
    /// Memory for a result or a workspace could not be had.
    #[error(
        "{purpose}: expected {bytes} bytes of {place} memory, got an allocation failure; \
         use a smaller batch or free memory"
    )]
    OutOfMemory {
        /// What the memory is for.
        purpose: &'static str,
        /// Where it was asked for: `host` or `device`.
        place: &'static str,
        /// How many bytes.
        bytes: usize,
    },
    /// A backend cannot be used here.
    #[error("backend {backend}: expected it to be usable, but {reason}; {remedy}")]
    BackendUnavailable {
        /// Name of the backend.
        backend: &'static str,
        /// Why it cannot be used.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A backend does not compute in this element type.
    #[error("backend {backend}: expected elements of type {supported}, got {actual}; {remedy}")]
    UnsupportedDType {
        /// Name of the backend.
        backend: &'static str,
        /// The types it supports.
        supported: &'static str,
        /// The type asked for.
        actual: DType,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A backend failed while it worked: a driver call, or a fault that the emulator found.
    #[error("backend {backend}: expected {operation} to succeed, got: {message}")]
    BackendFailed {
        /// Name of the backend.
        backend: &'static str,
        /// What it was doing.
        operation: String,
        /// What it reported.
        message: String,
    },
    /// A name that is none of the known ones.
    #[error("{argument}: expected one of {expected}, got \"{actual}\"")]
    UnknownName {
        /// What was to be named.
        argument: &'static str,
        /// The known names.
        expected: &'static str,
        /// The text given.
        actual: String,
    },
    /// A number outside the range of its setting.
    #[error("{argument}: expected {expected}, got {actual}")]
    OutOfRange {
        /// The setting.
        argument: &'static str,
        /// What it should be.
        expected: &'static str,
        /// The number given.
        actual: String,
    },
    /// Parameters that a block has are not there.
    #[error("parameters: expected the tensors {}, got none of these names", names.join(", "))]
    MissingTensors {
        /// Their names.
        names: Vec<String>,
    },
    /// There are parameters that a block of this configuration does not have.
    #[error(
        "parameters: expected the tensors of the configuration only, got {} as well",
        names.join(", ")
    )]
    UnexpectedTensors {
        /// Their names.
        names: Vec<String>,
    },
    /// A parameter does not have the dimensions that the configuration calls for.
    #[error("{name}: expected dimensions {expected:?}, got {actual:?}")]
    TensorDimensions {
        /// Its name.
        name: String,
        /// The dimensions it should have.
        expected: Vec<usize>,
        /// The dimensions it has.
        actual: Vec<usize>,
    },
    /// A parameter of a checkpoint is not made of floating-point numbers of 16 to 64 bits.
    #[error("{name}: expected elements of type F64, F32, F16 or BF16, got {actual}")]
    TensorType {
        /// Its name.
        name: String,
        /// Its type, as `safetensors` calls it.
        actual: String,
    },
    /// A checkpoint cannot be read or written.
    #[error("checkpoint: expected to {operation}, got: {message}")]
    Checkpoint {
        /// What was to be done.
        operation: String,
        /// Why it failed.
        message: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
