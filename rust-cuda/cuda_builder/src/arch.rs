//! The GPU architectures that kernels are compiled for.

use std::fmt;
use std::str::FromStr;

use crate::CudaBuilderError;

/// A virtual GPU architecture: PTX made for one runs on every GPU of that compute capability or a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NvvmArch {
    /// Turing: compute capability 7.5.
    Compute75,
    /// Ampere, data centre: compute capability 8.0.
    Compute80,
    /// Ampere: compute capability 8.6.
    Compute86,
    /// Ada: compute capability 8.9.
    Compute89,
    /// Hopper: compute capability 9.0.
    Compute90,
    /// Blackwell, data centre: compute capability 10.0.
    Compute100,
    /// Blackwell: compute capability 12.0.
    Compute120,
}

impl NvvmArch {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::Compute75,
        Self::Compute80,
        Self::Compute86,
        Self::Compute89,
        Self::Compute90,
        Self::Compute100,
        Self::Compute120,
    ];

    /// The compute capability as one number: 75 for 7.5.
    pub const fn number(self) -> u32 {
        match self {
            Self::Compute75 => 75,
            Self::Compute80 => 80,
            Self::Compute86 => 86,
            Self::Compute89 => 89,
            Self::Compute90 => 90,
            Self::Compute100 => 100,
            Self::Compute120 => 120,
        }
    }

    /// The PTX version that kernels for this architecture are written in, as the compiler spells it: 70
    /// for 7.0.
    ///
    /// An older version loads on older drivers, so it is the lowest that knows the architecture and what
    /// kernels want from it: `red.global.add.v4.f32` on Hopper came with 8.1.
    pub const fn default_ptx_version(self) -> u32 {
        match self {
            Self::Compute75 | Self::Compute80 => 70,
            Self::Compute86 => 71,
            Self::Compute89 => 78,
            Self::Compute90 => 81,
            Self::Compute100 => 86,
            Self::Compute120 => 87,
        }
    }

    /// The `cfg` names that kernel sources see as set: `cuda_arch_ge_80` for 8.0 and later.
    pub(crate) fn cfgs(self) -> impl Iterator<Item = String> {
        Self::ALL.into_iter().filter(move |&arch| arch <= self).map(Self::cfg)
    }

    /// The `cfg` name of "this architecture or a later one".
    pub(crate) fn cfg(self) -> String {
        format!("cuda_arch_ge_{}", self.number())
    }
}

impl fmt::Display for NvvmArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("sm_{}", self.number()))
    }
}

impl FromStr for NvvmArch {
    type Err = CudaBuilderError;

    /// Reads `sm_80`, `compute_80` or `80`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("sm_").or_else(|| text.strip_prefix("compute_"));
        let number = number.unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|arch| arch.number().to_string() == number)
            .ok_or_else(|| CudaBuilderError::UnknownArch { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for arch in NvvmArch::ALL {
            assert_eq!(arch.to_string().parse::<NvvmArch>().ok(), Some(arch));
            assert_eq!(format!("compute_{}", arch.number()).parse::<NvvmArch>().ok(), Some(arch));
        }
        assert!("sm_77".parse::<NvvmArch>().is_err());
        assert!("".parse::<NvvmArch>().is_err());
    }

    #[test]
    fn an_architecture_has_its_own_cfg_and_the_older_ones() {
        let cfgs: Vec<_> = NvvmArch::Compute86.cfgs().collect();
        assert_eq!(cfgs, ["cuda_arch_ge_75", "cuda_arch_ge_80", "cuda_arch_ge_86"]);
    }
}
