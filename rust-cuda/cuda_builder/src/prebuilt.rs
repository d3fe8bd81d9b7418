//! PTX that is checked in beside the kernels it was made from.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::compiler::Compiler;
use crate::header::{self, Header};
use crate::settings::Settings;
use crate::{CudaBuilder, CudaBuilderError, NvvmArch, sources};

/// Set to 1, it makes build scripts rebuild the PTX even if the checked-in one is current.
const FORCE: &str = "CUDA_BUILDER_FORCE";

/// The PTX of a kernel crate, checked in as `ptx/<level>.ptx` below it.
///
/// Whoever depends on the crate does not need the kernel compiler, as long as the kernels are unchanged:
///
/// ```no_run
/// // build.rs of the kernel crate
/// use cuda_builder::PrebuiltPtx;
///
/// # fn main() -> Result<(), cuda_builder::CudaBuilderError> {
/// # if false {
/// // The build for the GPU runs this script as well; it has no PTX to include.
/// if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "nvptx64") {
///     return Ok(());
/// }
/// # }
/// for ptx in PrebuiltPtx::new(".")?.resolve()? {
///     let level = ptx.arch.to_string().to_uppercase();
///     println!("cargo::rustc-env=KERNELS_PTX_{level}={}", ptx.path.display());
/// }
/// # Ok(())
/// # }
/// ```
///
/// What belongs to the crate is said in its manifest:
///
/// ```toml
/// [package.metadata.cuda-builder]
/// levels = ["sm_75", "sm_80", "sm_90"]      # one checked-in PTX for each
/// libraries = ["../cuda_std"]               # crates whose sources the PTX depends on, too
/// host-only = ["src/tests.rs"]              # files and folders that do not reach the GPU
/// max-threads = { forward = 256 }           # largest block size, by beginning of the kernel's name
/// ```
///
/// Paths are relative to the crate. Without the table there are these three levels and nothing else.
#[derive(Debug)]
pub struct PrebuiltPtx {
    krate: PathBuf,
    settings: Settings,
}

/// The PTX to use for one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedPtx {
    /// The level: the oldest architecture the PTX runs on.
    pub arch: NvvmArch,
    /// The file.
    pub path: PathBuf,
    /// Whether it was built just now, because the checked-in one does not belong to the sources.
    pub rebuilt: bool,
}

/// Whether a checked-in PTX belongs to the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PtxState {
    /// It does.
    Current(Header),
    /// It does not, and why.
    Stale(String),
}

impl PrebuiltPtx {
    /// The PTX of the kernel crate in this folder.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError::Io`] or [`CudaBuilderError::Settings`] if its manifest cannot be read.
    pub fn new(krate: impl Into<PathBuf>) -> Result<Self, CudaBuilderError> {
        let krate = krate.into();
        let krate = fs::canonicalize(&krate).map_err(CudaBuilderError::io(&krate))?;
        let settings = Settings::read(&krate)?;
        Ok(Self { krate, settings })
    }

    /// The levels that have a PTX each.
    pub fn levels(&self) -> &[NvvmArch] {
        &self.settings.levels
    }

    /// The folder with the checked-in PTX.
    pub fn folder(&self) -> PathBuf {
        self.krate.join("ptx")
    }

    /// The checked-in file of a level.
    pub fn path(&self, level: NvvmArch) -> PathBuf {
        self.folder().join(format!("{level}.ptx"))
    }

    /// Compares the checked-in file of a level with the sources it says it was made from.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError::Io`] if sources cannot be read.
    pub fn state(&self, level: NvvmArch) -> Result<PtxState, CudaBuilderError> {
        let Ok(text) = fs::read_to_string(self.path(level)) else {
            return Ok(PtxState::Stale("there is no such file".to_owned()));
        };
        let Some(header) = Header::read(&text) else {
            return Ok(PtxState::Stale("it does not say what it was made from".to_owned()));
        };
        Ok(match self.difference(level, &header)? {
            Some(reason) => PtxState::Stale(reason.to_owned()),
            None => PtxState::Current(header),
        })
    }

    fn difference(
        &self,
        level: NvvmArch,
        header: &Header,
    ) -> Result<Option<&'static str>, CudaBuilderError> {
        if header.sources != sources::kernel_hash(&self.krate, &self.settings)? {
            return Ok(Some("the kernels have changed since it was made"));
        }
        let libraries = sources::library_hash(&self.krate, &self.settings)?;
        if libraries.is_some_and(|hash| hash != header.libraries) {
            return Ok(Some("a library of the kernels has changed since it was made"));
        }
        let flags = header::flags(level, level.default_ptx_version(), true).join(" ");
        if header.flags != flags {
            return Ok(Some("it was made with other compiler flags"));
        }
        if header.max_threads != header::spell_max_threads(&self.settings.max_threads) {
            return Ok(Some("it was made with other block sizes (max-threads)"));
        }
        Ok(None)
    }

    /// For build scripts: the PTX to use for each level. Prints what cargo needs to know: when to run the
    /// script again, and the `cfg` names that kernels may ask for.
    ///
    /// A checked-in file is used if it belongs to the sources. Otherwise it is built, into `OUT_DIR`. The variable
    /// `CUDA_BUILDER_FORCE=1` builds all.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError::StalePtx`] if a file must be built and no compiler is there; otherwise as
    /// [`CudaBuilder::build`].
    pub fn resolve(&self) -> Result<Vec<ResolvedPtx>, CudaBuilderError> {
        self.print_directives();
        let forced = env::var_os(FORCE).is_some_and(|value| !value.is_empty() && value != "0");
        let out = env::var_os("OUT_DIR").map_or_else(env::temp_dir, PathBuf::from);
        self.resolve_in(&out, forced, Compiler::find)
    }

    fn resolve_in(
        &self,
        out: &Path,
        forced: bool,
        find: impl Fn() -> Result<Compiler, CudaBuilderError>,
    ) -> Result<Vec<ResolvedPtx>, CudaBuilderError> {
        self.levels().iter().map(|&level| self.resolve_level(level, forced, out, &find)).collect()
    }

    fn resolve_level(
        &self,
        level: NvvmArch,
        forced: bool,
        out: &Path,
        find: impl Fn() -> Result<Compiler, CudaBuilderError>,
    ) -> Result<ResolvedPtx, CudaBuilderError> {
        let path = self.path(level);
        let reason = match self.state(level)? {
            PtxState::Current(_) if forced => format!("{FORCE} is set"),
            PtxState::Current(_) => return Ok(ResolvedPtx { arch: level, path, rebuilt: false }),
            PtxState::Stale(reason) => reason,
        };
        let compiler = find().map_err(|error| CudaBuilderError::StalePtx {
            path: path.clone(),
            reason,
            krate: self.krate.clone(),
            compiler: Box::new(error),
        })?;
        let path = CudaBuilder::new(&self.krate)
            .arch(level)
            .target_dir(out.join("nvptx"))
            .copy_to(out.join("ptx").join(format!("{level}.ptx")))
            .build_with(&compiler)?;
        Ok(ResolvedPtx { arch: level, path, rebuilt: true })
    }

    fn print_directives(&self) {
        let mut watched = sources::folders(&self.krate, &self.settings);
        watched.push(self.krate.join("Cargo.toml"));
        watched.push(self.krate.join("build.rs"));
        watched.push(self.folder());
        for path in watched.iter().filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        for name in [FORCE, "CUDA_BUILDER_RUSTC", "CUDA_BUILDER_CARGO"] {
            println!("cargo::rerun-if-env-changed={name}");
        }
        let names = NvvmArch::ALL.map(NvvmArch::cfg).join(", ");
        println!("cargo::rustc-check-cfg=cfg({names})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"kernels\"\n\n[package.metadata.cuda-builder]\n\
        levels = [\"sm_80\"]\nlibraries = [\"../std\"]\nhost-only = [\"src/host.rs\"]\n\
        max-threads = { forward = 256 }\n";
    const LEVEL: NvvmArch = NvvmArch::Compute80;

    /// A kernel crate and its library, with checked-in PTX that belongs to them.
    struct Checkout(tempfile::TempDir);

    impl Checkout {
        fn new() -> Self {
            let checkout = Self(tempfile::tempdir().expect("a temporary folder"));
            checkout.write("k/Cargo.toml", MANIFEST);
            checkout.write("k/src/lib.rs", "kernels");
            checkout.write("k/src/host.rs", "host");
            checkout.write("std/src/lib.rs", "library");
            let prebuilt = checkout.prebuilt();
            let (krate, settings) = (&prebuilt.krate, &prebuilt.settings);
            let header = Header {
                sources: sources::kernel_hash(krate, settings).expect("a hash"),
                libraries: sources::library_hash(krate, settings).expect("a hash").expect("there"),
                compiler: "rustc of the test".to_owned(),
                flags: header::flags(LEVEL, LEVEL.default_ptx_version(), true).join(" "),
                max_threads: header::spell_max_threads(&settings.max_threads),
            };
            checkout.write("k/ptx/sm_80.ptx", &header.prepend(".version 7.0\n.target sm_80\n"));
            checkout
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }

        fn replace(&self, name: &str, old: &str, new: &str) {
            let text = fs::read_to_string(self.0.path().join(name)).expect("a file");
            assert!(text.contains(old), "{name} has no {old}");
            self.write(name, &text.replace(old, new));
        }

        fn prebuilt(&self) -> PrebuiltPtx {
            PrebuiltPtx::new(self.0.path().join("k")).expect("a crate")
        }

        /// Why the PTX is stale; `None` if it is current.
        fn stale(&self) -> Option<String> {
            match self.prebuilt().state(LEVEL).expect("readable") {
                PtxState::Current(_) => None,
                PtxState::Stale(reason) => Some(reason),
            }
        }

        fn resolve_without_compiler(
            &self,
            forced: bool,
        ) -> Result<Vec<ResolvedPtx>, CudaBuilderError> {
            self.prebuilt().resolve_in(self.0.path(), forced, || {
                Err(CudaBuilderError::NoCompiler { looked_at: "none, in this test".to_owned() })
            })
        }
    }

    #[test]
    fn ptx_of_these_sources_needs_no_compiler() {
        let checkout = Checkout::new();
        let resolved = checkout.resolve_without_compiler(false).expect("the checked-in PTX");
        let path = checkout.prebuilt().path(LEVEL);
        assert!(path.ends_with("k/ptx/sm_80.ptx"));
        assert_eq!(resolved, [ResolvedPtx { arch: LEVEL, path, rebuilt: false }]);
        // Neither does a change that does not reach the GPU.
        checkout.write("k/src/host.rs", "other");
        assert_eq!(checkout.stale(), None);
    }

    #[test]
    fn every_change_that_reaches_the_gpu_makes_it_stale() {
        let changed = |name: &str, old: &str, new: &str| {
            let checkout = Checkout::new();
            checkout.replace(name, old, new);
            checkout.stale().unwrap_or_else(|| panic!("{name}: {old} -> {new} went unnoticed"))
        };
        assert!(changed("k/src/lib.rs", "kernels", "Kernels").contains("kernels have changed"));
        assert!(changed("std/src/lib.rs", "library", "Library").contains("a library"));
        assert!(changed("k/Cargo.toml", "256", "128").contains("block sizes"));
        assert!(changed("k/ptx/sm_80.ptx", "+ptx70", "+ptx71").contains("flags"));
        assert!(changed("k/ptx/sm_80.ptx", "// sources:", "//").contains("does not say"));

        let checkout = Checkout::new();
        checkout.write("k/src/new.rs", "");
        assert!(checkout.stale().is_some_and(|reason| reason.contains("kernels have changed")));
        let checkout = Checkout::new();
        fs::remove_file(checkout.prebuilt().path(LEVEL)).expect("removable");
        assert!(checkout.stale().is_some_and(|reason| reason.contains("no such file")));
    }

    #[test]
    fn a_published_crate_has_no_libraries_beside_it() {
        let checkout = Checkout::new();
        fs::remove_dir_all(checkout.0.path().join("std")).expect("removable");
        assert_eq!(checkout.stale(), None);
        checkout.write("k/src/lib.rs", "changed");
        assert!(checkout.stale().is_some());
    }

    #[test]
    fn stale_ptx_without_a_compiler_is_an_error_that_helps() {
        let checkout = Checkout::new();
        checkout.write("k/src/lib.rs", "changed");
        let error = checkout.resolve_without_compiler(false).expect_err("stale").to_string();
        for part in [
            "kernels have changed",
            "none, in this test",
            "apt-get install rustc-web",
            "rustup toolchain install",
            "-- build",
        ] {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
    }

    #[test]
    fn forced_it_is_rebuilt_although_current() {
        let error = Checkout::new().resolve_without_compiler(true).expect_err("no compiler");
        assert!(error.to_string().contains("CUDA_BUILDER_FORCE is set"), "{error}");
    }
}
