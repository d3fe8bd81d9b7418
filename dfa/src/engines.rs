//! What can compute here: the library's backends, each with the algorithms it has.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use deformable_aggregation::{
    Algorithm, Backend, BackendStatus, BorderRule, DType, DeformableAggregation, Element,
};

use crate::data::{Data, Results};
use crate::gpu;
use crate::system::System;

/// A backend by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// Plain loops on one core.
    Reference,
    /// All cores of this machine.
    Cpu,
    /// The GPU kernels, run on the CPU with every access checked.
    Emulator,
    /// The first NVIDIA GPU.
    Cuda,
}

impl BackendName {
    const ALL: [Self; 4] = [Self::Reference, Self::Cpu, Self::Emulator, Self::Cuda];

    /// The name on the command line and in [`BackendStatus`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Cpu => "cpu",
            Self::Emulator => "emulator",
            Self::Cuda => "cuda",
        }
    }

    /// The backend of that name.
    ///
    /// # Errors
    ///
    /// If it cannot be used.
    pub fn open(self) -> Result<Backend> {
        match self {
            Self::Reference => Ok(Backend::Reference),
            Self::Cpu => Ok(Backend::Cpu),
            Self::Emulator => Ok(Backend::Emulator),
            Self::Cuda => Ok(Backend::cuda(0)?),
        }
    }

    /// The name of a backend.
    pub fn of(backend: &Backend) -> Self {
        let is_named = |name: &Self| name.name() == backend.name();
        Self::ALL.into_iter().find(is_named).unwrap_or(Self::Cuda)
    }

    /// Whether the backend runs the GPU kernels, which are several algorithms.
    pub fn has_kernels(self) -> bool {
        matches!(self, Self::Emulator | Self::Cuda)
    }
}

/// A usable backend with one of its algorithms.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Which backend.
    pub name: BackendName,
    /// The backend itself.
    pub backend: Backend,
    /// Which kernels it runs.
    pub algorithm: Algorithm,
}

impl Engine {
    /// Backend and, where there is a choice, algorithm.
    pub fn label(&self) -> String {
        if self.name.has_kernels() {
            format!("{} {}", self.name.name(), self.algorithm)
        } else {
            self.name.name().to_owned()
        }
    }

    /// What it runs on, for people.
    pub fn device(&self) -> String {
        device(&self.backend)
    }

    /// Whether the backend computes in that type.
    pub fn supports(&self, dtype: DType) -> bool {
        dtype != DType::F64 || !self.name.has_kernels()
    }

    /// Whether it computes gradients for these arrays: repeatable kernels need a layout that allows an order.
    pub fn takes<T: Element>(&self, data: &Data<T>) -> bool {
        self.supports(T::DTYPE)
            && (self.algorithm != Algorithm::Repeatable || !data.shape.layout().has_shared_rows())
    }

    /// The operator on this engine.
    pub fn operator<T: Element>(&self, data: &Data<T>, rule: BorderRule) -> DeformableAggregation {
        DeformableAggregation::new(data.shape.clone())
            .with_backend(self.backend.clone())
            .with_border_rule(rule)
            .with_algorithm(self.algorithm)
    }

    /// Bytes per second, read and written, of a copy in the memory of the device; `None` for backends in host memory.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    pub fn copy_bandwidth(&self) -> Result<Option<f64>> {
        gpu::copy_bandwidth(&self.backend)
    }

    /// Forward and backward.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    pub fn run<T: Element>(&self, data: &Data<T>, rule: BorderRule) -> Result<Results<T>> {
        let operator = self.operator(data, rule);
        let place = |direction: &str| format!("{direction} on {}", self.label());
        let output = operator.forward(data.inputs()).with_context(|| place("forward"))?;
        let gradients = operator
            .backward(data.inputs(), data.grad_output.view())
            .with_context(|| place("backward"))?;
        Ok(Results { output, gradients })
    }
}

/// What a backend runs on, for people.
pub fn device(backend: &Backend) -> String {
    gpu::description(backend).unwrap_or_else(|| System::new().description())
}

/// The engines to use and the backends that cannot be.
pub struct Selection {
    /// Usable backends with their algorithms.
    pub engines: Vec<Engine>,
    /// Backends that were not asked for by name and cannot be used, with the reason.
    pub missing: Vec<BackendStatus>,
}

impl Selection {
    /// The backends of these names, or all usable ones if the list is empty.
    ///
    /// # Errors
    ///
    /// If a backend asked for by name cannot be used.
    pub fn new(asked: &[BackendName]) -> Result<Self> {
        let names = if asked.is_empty() { &BackendName::ALL[..] } else { asked };
        let statuses = Backend::available();
        let mut selection = Self { engines: Vec::new(), missing: Vec::new() };
        for &name in names {
            let status = statuses.iter().find(|status| status.name == name.name());
            let status = status.with_context(|| format!("unknown backend {}", name.name()))?;
            if let Err(reason) = &status.usable {
                if asked.is_empty() {
                    selection.missing.push(status.clone());
                    continue;
                }
                bail!("backend {}: {reason}", name.name());
            }
            let backend = name.open()?;
            let algorithms: &[Algorithm] = if name.has_kernels() {
                &[Algorithm::Fast, Algorithm::Repeatable, Algorithm::Naive]
            } else {
                &[Algorithm::Fast]
            };
            for &algorithm in algorithms {
                selection.engines.push(Engine { name, backend: backend.clone(), algorithm });
            }
        }
        Ok(selection)
    }
}

/// Runs an expression with a type parameter bound to the type of a [`DType`].
#[macro_export]
macro_rules! with_dtype {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            deformable_aggregation::DType::F64 => {
                type $element = f64;
                $body
            }
            deformable_aggregation::DType::F32 => {
                type $element = f32;
                $body
            }
            deformable_aggregation::DType::F16 => {
                type $element = half::f16;
                $body
            }
            deformable_aggregation::DType::Bf16 => {
                type $element = half::bf16;
                $body
            }
        }
    };
}
