//! The kernels as PTX, one text per architecture level.
//!
//! The texts are the checked-in ones of `ptx/` when they were made from the present sources, else fresh
//! ones: see `build.rs`.

extern crate alloc;

use alloc::string::String;

/// The kernels compiled for one architecture. It runs on that architecture and on every later one.
#[derive(Clone, Copy, Debug)]
pub struct Ptx {
    /// The architecture: 90 for `sm_90`.
    pub architecture: u32,
    /// All kernels.
    pub text: &'static str,
}

/// Every level there is, lowest first. Megabytes: a `const` would lie in each crate that names it.
pub static LEVELS: &[Ptx] = &[
    Ptx { architecture: 75, text: include_str!(env!("KERNELS_PTX_SM_75")) },
    Ptx { architecture: 80, text: include_str!(env!("KERNELS_PTX_SM_80")) },
    Ptx { architecture: 90, text: include_str!(env!("KERNELS_PTX_SM_90")) },
];

/// How a kernel's text begins.
const ENTRY: &str = ".visible .entry ";

impl Ptx {
    /// The text with only one kernel in it, the one called `name`; with none if there is none of that name.
    ///
    /// A driver compiles what it loads, so a program loads the kernels it runs rather than all.
    ///
    /// ```
    /// for ptx in kernels_gpu::ptx::LEVELS {
    ///     let kernel = ptx.kernel("forward_wide_f32");
    ///     assert!(kernel.contains(".entry forward_wide_f32("));
    ///     assert!(kernel.len() < ptx.text.len() / 4);
    /// }
    /// ```
    #[must_use]
    pub fn kernel(&self, name: &str) -> String {
        let mut parts = self.text.split(ENTRY);
        // What stands before the first kernel is common to all.
        let mut text = String::from(parts.next().unwrap_or_default());
        for part in parts {
            if part.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')) {
                text.push_str(ENTRY);
                text.push_str(body(part));
            }
        }
        text
    }

    /// The lines that say what the text was made from, without their comment marks.
    pub fn header(&self) -> impl Iterator<Item = &'static str> {
        self.text
            .lines()
            .take_while(|line| line.starts_with("//"))
            .map(|line| line.trim_start_matches('/').trim())
            .filter(|line| !line.is_empty())
    }
}

/// A kernel without what follows its closing brace.
fn body(part: &str) -> &str {
    part.find("\n}").map_or(part, |end| &part[..end + 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> impl Iterator<Item = &'static str> {
        [crate::entry::NAMES, crate::block_entry::NAMES].into_iter().flatten().copied()
    }

    #[test]
    fn every_level_has_every_kernel_and_no_other() {
        for level in LEVELS {
            for name in names() {
                let count = level.kernel(name).matches(ENTRY).count();
                assert_eq!(count, 1, "{name} for sm_{}", level.architecture);
            }
            let count = level.text.matches(ENTRY).count();
            assert_eq!(count, names().count(), "sm_{}", level.architecture);
        }
    }

    #[test]
    fn a_kernel_that_does_not_exist_leaves_the_preamble() {
        assert!(!LEVELS[0].kernel("forward_wide").contains(ENTRY));
    }
}
