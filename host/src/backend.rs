//! What computes.

use std::fmt;

use crate::error::Result;

/// What computes an aggregation.
///
/// | backend | elements | for |
/// |---|---|---|
/// | [`Reference`](Self::Reference) | all | plain loops to compare others against |
/// | [`Cpu`](Self::Cpu) | all | all cores of this machine |
/// | `Emulator` (feature `emulator`) | `f32`, `f16`, `bf16` | the GPU kernels, run on the CPU with every access checked, and races found |
/// | `Cuda` (feature `cuda`) | `f32`, `f16`, `bf16` | an NVIDIA GPU |
///
/// ```
/// use deformable_aggregation::Backend;
///
/// // A GPU if there is one, else the CPU.
/// println!("computing on {}", Backend::auto());
/// for status in Backend::available() {
///     match status.usable {
///         Ok(description) => println!("{}: {description}", status.name),
///         Err(why_not) => println!("{}: not usable: {why_not}", status.name),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Backend {
    /// Plain loops on one core: slow, short, easy to check against the formulas.
    Reference,
    /// Fast code on all cores of this machine.
    Cpu,
    /// The GPU kernels in the emulator.
    #[cfg(feature = "emulator")]
    Emulator,
    /// The GPU kernels on this device.
    #[cfg(cuda_backend)]
    Cuda(crate::cuda::Device),
}

/// Whether a backend can be used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStatus {
    /// `reference`, `cpu`, `emulator` or `cuda`.
    pub name: &'static str,
    /// What it is, or why it cannot be used and what to do about that.
    pub usable: std::result::Result<String, String>,
}

impl Backend {
    /// The fastest backend that works here: a CUDA GPU, else the CPU. Never fails.
    #[must_use]
    pub fn auto() -> Self {
        Self::cuda(0).unwrap_or(Self::Cpu)
    }

    /// The CUDA GPU of this number (0 for the first).
    ///
    /// # Errors
    ///
    /// [`Error::BackendUnavailable`](crate::Error::BackendUnavailable) if the `cuda` feature is off, or there is no driver or no such device.
    pub fn cuda(ordinal: u32) -> Result<Self> {
        #[cfg(cuda_backend)]
        return crate::cuda::Device::new(ordinal).map(Self::Cuda);
        #[cfg(not(cuda_backend))]
        return Err(no_cuda(ordinal));
    }

    /// All four backends, in the order reference, CPU, emulator, CUDA, each with what it is or why it
    /// cannot be used.
    ///
    /// ```
    /// use deformable_aggregation::Backend;
    ///
    /// let names: Vec<_> = Backend::available().iter().map(|status| status.name).collect();
    /// assert_eq!(names, ["reference", "cpu", "emulator", "cuda"]);
    /// ```
    #[must_use]
    pub fn available() -> Vec<BackendStatus> {
        let threads = rayon::current_num_threads();
        vec![
            BackendStatus { name: "reference", usable: Ok("plain loops on one core".to_owned()) },
            BackendStatus { name: "cpu", usable: Ok(format!("{threads} threads")) },
            emulator_status(),
            BackendStatus { name: "cuda", usable: cuda_status() },
        ]
    }

    /// `reference`, `cpu`, `emulator` or `cuda`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Cpu => "cpu",
            #[cfg(feature = "emulator")]
            Self::Emulator => "emulator",
            #[cfg(cuda_backend)]
            Self::Cuda(_) => "cuda",
        }
    }
}

#[cfg(cuda_backend)]
fn cuda_status() -> std::result::Result<String, String> {
    let device = crate::cuda::Device::new(0).map_err(|error| error.to_string())?;
    let (major, minor) = device.compute_capability();
    Ok(format!("{}, compute capability {major}.{minor}, kernels {}", device.name(), device.level()))
}

#[cfg(not(cuda_backend))]
fn cuda_status() -> std::result::Result<String, String> {
    Err(no_cuda(0).to_string())
}

/// Why a build without the CUDA backend has no device of this number.
#[cfg(not(cuda_backend))]
fn no_cuda(ordinal: u32) -> crate::error::Error {
    let (reason, remedy) = if cfg!(feature = "cuda") {
        ("runs on Linux on x86-64 and aarch64 only", "use Backend::Cpu")
    } else {
        ("is switched off in this build", "build deformable-aggregation with the feature `cuda`")
    };
    crate::error::Error::BackendUnavailable {
        backend: "cuda",
        reason: format!("the GPU side, asked for device {ordinal}, {reason}"),
        remedy: remedy.to_owned(),
    }
}

fn emulator_status() -> BackendStatus {
    let usable = if cfg!(feature = "emulator") {
        Ok("the GPU kernels on the CPU, every access checked".to_owned())
    } else {
        Err("it is switched off in this build; \
             build deformable-aggregation with the feature `emulator`"
            .to_owned())
    };
    BackendStatus { name: "emulator", usable }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
