//! Finds a compiler that can build kernels: a rustc whose library source is there to build `core` from.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::CudaBuilderError;

/// The compiler version that kernels were last tested with.
pub(crate) const TESTED_VERSION: &str = "1.96.0";
/// The oldest version that has the language features kernels use.
const OLDEST: (u32, u32) = (1, 96);

/// The target that kernels are compiled for.
pub(crate) const TARGET: &str = "nvptx64-nvidia-cuda";

/// A compiler that can build kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The compiler itself.
    pub rustc: PathBuf,
    /// The cargo that belongs to it.
    pub cargo: PathBuf,
    /// What it calls itself, with its LLVM: two compilers of equal text make equal PTX.
    pub version: String,
}

/// A compiler that was looked at.
#[derive(Debug)]
pub struct Candidate {
    /// The compiler.
    pub rustc: PathBuf,
    /// Why it was looked at.
    pub origin: String,
    /// The compiler, if it serves; otherwise why not.
    pub result: Result<Compiler, String>,
}

impl Compiler {
    /// Finds the first compiler that serves.
    ///
    /// The one named in `CUDA_BUILDER_RUSTC` if that is set; otherwise the system's, then rustup's toolchains.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError::NoCompiler`], with each compiler that was looked at and what to install.
    pub fn find() -> Result<Self, CudaBuilderError> {
        let mut looked_at = Vec::new();
        for place in places() {
            let candidate = place.examine();
            match candidate.result {
                Ok(compiler) => return Ok(compiler),
                Err(reason) => looked_at.push(format!(
                    "  {} ({}): {reason}",
                    candidate.rustc.display(),
                    candidate.origin
                )),
            }
        }
        Err(CudaBuilderError::NoCompiler { looked_at: looked_at.join("\n") })
    }

    /// Looks at every compiler, also after one that serves.
    pub fn candidates() -> Vec<Candidate> {
        places().iter().map(Place::examine).collect()
    }
}

/// Where a compiler may be.
struct Place {
    rustc: PathBuf,
    cargo: PathBuf,
    origin: String,
}

fn places() -> Vec<Place> {
    if let Some(rustc) = env::var_os("CUDA_BUILDER_RUSTC").filter(|value| !value.is_empty()) {
        let rustc = PathBuf::from(rustc);
        let cargo = env::var_os("CUDA_BUILDER_CARGO").filter(|value| !value.is_empty());
        let cargo = cargo.map_or_else(|| rustc.with_file_name("cargo"), PathBuf::from);
        return vec![Place { rustc, cargo, origin: "CUDA_BUILDER_RUSTC".to_owned() }];
    }
    let mut places = vec![Place {
        rustc: "/usr/bin/rustc".into(),
        cargo: "/usr/bin/cargo".into(),
        origin: "the system's packages".to_owned(),
    }];
    places.extend(rustup_toolchains().into_iter().map(|folder| Place {
        rustc: folder.join("bin/rustc"),
        cargo: folder.join("bin/cargo"),
        origin: "rustup".to_owned(),
    }));
    places
}

/// The folders of rustup's toolchains; the tested version first, then by name.
fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let Some(entries) = home.and_then(|home| home.join("toolchains").read_dir().ok()) else {
        return Vec::new();
    };
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let tested = |folder: &PathBuf| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(TESTED_VERSION)
    };
    folders.sort_by_key(|folder| !tested(folder));
    folders
}

impl Place {
    fn examine(&self) -> Candidate {
        Candidate {
            rustc: self.rustc.clone(),
            origin: self.origin.clone(),
            result: self.try_compiler(),
        }
    }

    fn try_compiler(&self) -> Result<Compiler, String> {
        if !self.rustc.is_file() {
            return Err("there is no such file".to_owned());
        }
        let text = self.ask_rustc(&["-vV"])?;
        let version = version_line(&text).ok_or_else(|| format!("no version in `{text}`"))?;
        if release(&text).is_none_or(|release| release < OLDEST) {
            let (major, minor) = OLDEST;
            return Err(format!("{version} is too old: {major}.{minor} or later is needed"));
        }
        let sysroot = self.ask_rustc(&["--print", "sysroot"])?;
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        if !source.join("core/src/lib.rs").is_file() {
            return Err(format!(
                "{version} has no library source (no {}): install its rust-src",
                source.display()
            ));
        }
        let cpus = self.ask_rustc(&["--print", "target-cpus", "--target", TARGET])?;
        if !cpus.contains("sm_75") {
            return Err(format!("{version} was built without the {TARGET} target"));
        }
        output(&self.cargo, &["-V"])
            .map_err(|reason| format!("{version} has no cargo beside it: {reason}"))?;
        Ok(Compiler { rustc: self.rustc.clone(), cargo: self.cargo.clone(), version })
    }

    fn ask_rustc(&self, arguments: &[&str]) -> Result<String, String> {
        output(&self.rustc, arguments)
    }
}

fn output(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = command(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        let first = messages.lines().next().unwrap_or_default();
        return Err(format!("`{} {}` fails: {first}", program.display(), arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `rustc 1.96.0 (ac68faa20 2026-05-25), LLVM 22.1.8` from the output of `rustc -vV`.
///
/// The LLVM belongs to it: distributions build the same rustc with an LLVM of their own.
fn version_line(verbose: &str) -> Option<String> {
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?;
    let hash = field("commit-hash: ")?;
    let date = field("commit-date: ")?;
    let llvm = field("LLVM version: ")?;
    Some(format!("rustc {release} ({} {date}), LLVM {llvm}", hash.get(..9).unwrap_or(hash)))
}

fn release(verbose: &str) -> Option<(u32, u32)> {
    let release = verbose.lines().find_map(|line| line.strip_prefix("release: "))?;
    let mut parts = release.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A command that the cargo which runs us does not reach into.
///
/// Variables like `RUSTC`, `CARGO_TARGET_DIR`, `RUSTFLAGS` or `RUSTUP_TOOLCHAIN` are for the outer build; the
/// inner one has a compiler of its own. How to reach registries stays.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if is_of_outer_build(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_outer_build(name: &OsStr) -> bool {
    const KEPT: [&str; 5] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "RUSTUP_HOME"];
    const CLEARED: [&str; 7] =
        ["CARGO", "RUSTC", "RUSTUP", "RUSTFLAGS", "RUSTDOC", "CLIPPY", "DEP_"];
    let name = name.to_string_lossy();
    let begins = |prefix: &&str| name.starts_with(*prefix);
    CLEARED.iter().any(begins) && !KEPT.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
         binary: rustc\ncommit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96\n\
         commit-date: 2026-05-25\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\n\
         LLVM version: 22.1.8\n";

    #[test]
    fn the_version_names_release_and_llvm() {
        assert_eq!(
            version_line(VERBOSE).as_deref(),
            Some("rustc 1.96.0 (ac68faa20 2026-05-25), LLVM 22.1.8")
        );
        assert_eq!(release(VERBOSE), Some((1, 96)));
        assert_eq!(release("release: 1.97.0-nightly"), Some((1, 97)));
        assert_eq!(version_line("rustc 1.96.0"), None);
    }

    #[test]
    fn the_outer_build_does_not_reach_in() {
        for name in ["CARGO", "CARGO_TARGET_DIR", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"]
        {
            assert!(is_of_outer_build(name.as_ref()), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_REGISTRIES_X_INDEX", "PATH", "HOME"] {
            assert!(!is_of_outer_build(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_compiler_says_why() {
        let place = |rustc: &str| Place {
            rustc: rustc.into(),
            cargo: "cargo".into(),
            origin: "test".to_owned(),
        };
        let reason = |rustc| place(rustc).examine().result.expect_err("not a compiler");
        assert!(reason("/nonexistent/rustc").contains("no such file"));
        if Path::new("/bin/true").is_file() {
            assert!(reason("/bin/true").contains("no version"));
        }
    }
}
