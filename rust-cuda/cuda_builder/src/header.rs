//! The comment at the top of PTX that says what it was made from.

use crate::NvvmArch;

/// What a PTX file was made from and with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// SHA-256 of the kernel crate's sources.
    pub sources: String,
    /// SHA-256 of the sources of the libraries it names.
    pub libraries: String,
    /// The compiler, see [`Compiler::version`](crate::Compiler::version).
    pub compiler: String,
    /// The compiler's flags.
    pub flags: String,
    /// The largest block sizes, as `prefix=threads`.
    pub max_threads: String,
}

const TITLE: &str = "// PTX of Rust kernels, made by cuda-builder. Do not edit: change the Rust and build it again.";

impl Header {
    /// Puts the header in front of the text.
    pub(crate) fn prepend(&self, ptx: &str) -> String {
        let Self { sources, libraries, compiler, flags, max_threads } = self;
        format!(
            "{TITLE}\n// sources: {sources}\n// libraries: {libraries}\n// compiler: {compiler}\n\
             // flags: {flags}\n// max-threads: {max_threads}\n//\n{ptx}"
        )
    }

    /// Reads the header of a PTX file.
    pub fn read(ptx: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = ptx.lines().take_while(|line| line.starts_with("//"));
            let line = lines.find_map(|line| line.strip_prefix("// ")?.strip_prefix(name))?;
            Some(line.strip_prefix(':')?.trim().to_owned())
        };
        Some(Self {
            sources: field("sources")?,
            libraries: field("libraries")?,
            compiler: field("compiler")?,
            flags: field("flags")?,
            max_threads: field("max-threads")?,
        })
    }
}

/// How the header spells the largest block sizes.
pub(crate) fn spell_max_threads(max_threads: &[(String, u32)]) -> String {
    if max_threads.is_empty() {
        return "none".to_owned();
    }
    let items: Vec<_> =
        max_threads.iter().map(|(prefix, threads)| format!("{prefix}={threads}")).collect();
    items.join(" ")
}

/// The flags that decide what the compiler makes of kernels: from the architecture and PTX version, the same
/// for the kernels and every library below them, `core` included.
pub(crate) fn flags(arch: NvvmArch, ptx_version: u32, release: bool) -> Vec<String> {
    let mut flags = vec![
        format!("-Ctarget-cpu={arch}"),
        format!("-Ctarget-feature=+ptx{ptx_version}"),
        format!("-Copt-level={}", if release { 3 } else { 1 }),
        // It copies code into both ways of a branch, barriers and warp operations with it. Lanes that go different ways
        // then wait for each other in different places, for ever: rustc does not know that such code must stay one.
        "-Zmir-enable-passes=-JumpThreading".to_owned(),
    ];
    flags.extend(arch.cfgs().map(|cfg| format!("--cfg={cfg}")));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back() {
        let header = Header {
            sources: "ab".repeat(32),
            libraries: "cd".repeat(32),
            compiler: "rustc 1.96.0 (ac68faa20 2026-05-25), LLVM 22.1.8".to_owned(),
            flags: flags(NvvmArch::Compute80, 70, true).join(" "),
            max_threads: spell_max_threads(&[("forward".to_owned(), 256)]),
        };
        let text = header.prepend("// Generated\n.version 7.0\n// sources: other\n");
        assert_eq!(Header::read(&text), Some(header));
        assert_eq!(Header::read(".version 7.0\n"), None);
        assert_eq!(Header::read(&text.replace("// flags", "// flag")), None);
    }

    #[test]
    fn kernels_see_their_architecture() {
        let text = flags(NvvmArch::Compute80, 70, true).join(" ");
        assert!(text.contains("-Ctarget-cpu=sm_80 -Ctarget-feature=+ptx70"), "{text}");
        assert!(text.contains("--cfg=cuda_arch_ge_80") && !text.contains("ge_90"), "{text}");
    }
}
