//! Builds a kernel crate to PTX.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::compiler::{self, Compiler, TARGET};
use crate::header::{self, Header};
use crate::settings::{Settings, kernels_since};
use crate::{CudaBuilderError, NvvmArch, ptx, sources};

/// Builds a kernel crate to PTX, with the names and meaning of the Rust CUDA project's `cuda_builder`.
///
/// ```no_run
/// use cuda_builder::{CudaBuilder, NvvmArch};
///
/// let ptx = CudaBuilder::new("kernels").arch(NvvmArch::Compute80).copy_to("kernels.ptx").build()?;
/// # Ok::<(), cuda_builder::CudaBuilderError>(())
/// ```
///
/// Kernel sources see `cfg(target_arch = "nvptx64")`, and `cfg(cuda_arch_ge_80)` when the PTX is for compute
/// capability 8.0 or later; likewise 75, 86, 89, 90, 100 and 120.
#[derive(Debug, Clone)]
pub struct CudaBuilder {
    krate: PathBuf,
    arch: NvvmArch,
    release: bool,
    ptx_version: Option<u32>,
    copy_to: Option<PathBuf>,
    target_dir: Option<PathBuf>,
    max_threads: Vec<(String, u32)>,
    allow_calls: bool,
}

impl CudaBuilder {
    /// A builder of the kernel crate in this folder, for compute capability 7.5, optimised.
    pub fn new(krate: impl Into<PathBuf>) -> Self {
        Self {
            krate: krate.into(),
            arch: NvvmArch::Compute75,
            release: true,
            ptx_version: None,
            copy_to: None,
            target_dir: None,
            max_threads: Vec::new(),
            allow_calls: false,
        }
    }

    /// The architecture to build for. The PTX runs on it and every later one.
    #[must_use]
    pub fn arch(mut self, arch: NvvmArch) -> Self {
        self.arch = arch;
        self
    }

    /// Whether to optimise fully (the default). Otherwise the optimisation is light and debug assertions are
    /// on; those panic, so combine it with [`allow_calls`](Self::allow_calls).
    #[must_use]
    pub fn release(mut self, release: bool) -> Self {
        self.release = release;
        self
    }

    /// The PTX version to write, as the compiler spells it (81 for 8.1). A later version has more instructions
    /// and needs a newer driver.
    #[must_use]
    pub fn ptx_version(mut self, version: u32) -> Self {
        self.ptx_version = Some(version);
        self
    }

    /// Copies the PTX to this path as well.
    #[must_use]
    pub fn copy_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.copy_to = Some(path.into());
        self
    }

    /// The folder for the compiler's intermediate files. Without it, `nvptx` below `OUT_DIR` in a build script
    /// and below the target folder elsewhere: never the outer cargo's own, which is locked while it builds.
    #[must_use]
    pub fn target_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.target_dir = Some(folder.into());
        self
    }

    /// Declares the largest block size of the kernels whose name begins with `prefix`, in addition to what the
    /// crate's settings say. A launch with more threads then fails. `forward@sm_90` means those that begin with `forward`
    /// where they are built for this architecture or a later one.
    #[must_use]
    pub fn max_threads(mut self, prefix: impl Into<String>, threads: u32) -> Self {
        self.max_threads.push((prefix.into(), threads));
        self
    }

    /// Accepts PTX with calls and traps, which are an error otherwise: in kernels they come from panics.
    #[must_use]
    pub fn allow_calls(mut self, allow: bool) -> Self {
        self.allow_calls = allow;
        self
    }

    /// Builds the PTX and returns its path.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError`]: no compiler, the compiler's messages, panics left in kernels, or files that cannot
    /// be used.
    pub fn build(self) -> Result<PathBuf, CudaBuilderError> {
        let compiler = Compiler::find()?;
        self.build_with(&compiler)
    }

    /// Builds the PTX with a compiler that was found before.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with(mut self, compiler: &Compiler) -> Result<PathBuf, CudaBuilderError> {
        let krate = fs::canonicalize(&self.krate).map_err(CudaBuilderError::io(&self.krate))?;
        let settings = Settings::read(&krate)?;
        let mut max_threads = settings.max_threads.clone();
        max_threads.append(&mut self.max_threads);

        let workspace = workspace_of(compiler, &krate);
        let target_dir = match self.target_dir.take() {
            Some(folder) => std::path::absolute(&folder).map_err(CudaBuilderError::io(&folder))?,
            None => default_target_dir(&workspace),
        };
        // Every architecture has its own copy of `core`.
        let target_dir = target_dir.join(self.arch.to_string());
        fs::create_dir_all(&target_dir).map_err(CudaBuilderError::io(&target_dir))?;
        let name = format!("kernels-{}", self.key(&krate));
        let assembly = target_dir.join(format!("{name}.s"));
        self.compile(compiler, &krate, &workspace, &target_dir, &assembly)?;

        let text = fs::read_to_string(&assembly).map_err(CudaBuilderError::io(&assembly))?;
        let text = self.finish(&text, &assembly, &max_threads)?;
        let header = Header {
            sources: sources::kernel_hash(&krate, &settings)?,
            libraries: sources::library_hash(&krate, &settings)?
                .unwrap_or_else(|| "none".to_owned()),
            compiler: compiler.version.clone(),
            flags: self.flags().join(" "),
            max_threads: header::spell_max_threads(&max_threads),
        };
        let text = header.prepend(&text);

        let path = target_dir.join(format!("{name}.ptx"));
        fs::write(&path, &text).map_err(CudaBuilderError::io(&path))?;
        let Some(copy) = self.copy_to else { return Ok(path) };
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder).map_err(CudaBuilderError::io(folder))?;
        }
        fs::write(&copy, &text).map_err(CudaBuilderError::io(&copy))?;
        Ok(copy)
    }

    fn flags(&self) -> Vec<String> {
        let version = self.ptx_version.unwrap_or_else(|| self.arch.default_ptx_version());
        header::flags(self.arch, version, self.release)
    }

    /// Tells builds apart that share a folder. Cargo does not write the assembly again when it has done the same
    /// build before, so no other build may write to the same file.
    fn key(&self, krate: &Path) -> String {
        let profile = self.profile().join(" ");
        sources::short_hash(&[&krate.to_string_lossy(), &self.flags().join(" "), &profile])
    }

    /// Runs cargo; the compiler writes `assembly`.
    fn compile(
        &self,
        compiler: &Compiler,
        krate: &Path,
        workspace: &Path,
        target_dir: &Path,
        assembly: &Path,
    ) -> Result<(), CudaBuilderError> {
        let mut command = compiler::command(&compiler.cargo);
        command
            .current_dir(krate)
            .env("RUSTC", &compiler.rustc)
            // Wrappers that the user configured belong to the other compiler.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            // The target and `-Zbuild-std` are not stable; kernels' language features are not either.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags().join("\x1f"))
            .args(["rustc", "--quiet", "--release", "--lib", "--crate-type", "cdylib"])
            .args(["--target", TARGET, "-Zbuild-std=core", "--color", "never"])
            .arg("--target-dir")
            .arg(target_dir)
            .stdin(Stdio::null());
        if workspace.join("Cargo.lock").is_file() {
            command.arg("--locked");
        }
        for setting in self.profile() {
            command.arg("--config").arg(format!("profile.release.{setting}"));
        }
        // The assembly is the PTX; there is nothing to link.
        command.args(["--", "-Clinker=true"]);
        command.arg(format!("--emit=asm={}", assembly.display()));

        let cargo = &compiler.cargo;
        let output = command.output().map_err(CudaBuilderError::io(cargo))?;
        if output.status.success() {
            return Ok(());
        }
        Err(CudaBuilderError::BuildFailed {
            krate: krate.to_owned(),
            arch: self.arch,
            status: output.status.to_string(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The flags of every crate of the build, `core` included: what the header records, and what makes no
    /// difference to the PTX. Nothing here may depend on the kernel crate, or `core` is compiled anew for each.
    fn rustflags(&self) -> Vec<String> {
        let mut flags = self.flags();
        let names = NvvmArch::ALL.map(NvvmArch::cfg).join(",");
        flags.push(format!("--check-cfg=cfg({names})"));
        flags
    }

    fn profile(&self) -> [&'static str; 7] {
        [
            "lto=\"fat\"",
            "panic=\"abort\"",
            "codegen-units=1",
            "debug=false",
            "overflow-checks=false",
            if self.release { "opt-level=3" } else { "opt-level=1" },
            if self.release { "debug-assertions=false" } else { "debug-assertions=true" },
        ]
    }

    /// From the compiler's text to the PTX we hand out.
    fn finish(
        &self,
        text: &str,
        assembly: &Path,
        max_threads: &[(String, u32)],
    ) -> Result<String, CudaBuilderError> {
        let mut text = ptx::tidy(text);
        if ptx::entries(&text).is_empty() {
            return Err(CudaBuilderError::NoKernel { path: assembly.to_owned() });
        }
        let found = ptx::calls_and_traps(&text);
        if !found.is_empty() && !self.allow_calls {
            return Err(CudaBuilderError::PanicCode { arch: self.arch, found });
        }
        for (kernels, threads) in max_threads {
            let (prefix, since) = kernels_since(kernels)?;
            if since.is_none_or(|since| self.arch >= since) {
                text = ptx::declare_max_threads(&text, prefix, *threads)?;
            }
        }
        Ok(text)
    }
}

/// The folder of the workspace that a crate belongs to; the crate's own if cargo cannot say.
fn workspace_of(compiler: &Compiler, krate: &Path) -> PathBuf {
    let output = compiler::command(&compiler.cargo)
        .current_dir(krate)
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output();
    let manifest = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let folder = manifest.as_deref().and_then(|manifest| Path::new(manifest.trim()).parent());
    folder.filter(|folder| folder.is_dir()).unwrap_or(krate).to_owned()
}

fn default_target_dir(workspace: &Path) -> PathBuf {
    let folder = match (env::var_os("OUT_DIR"), env::var_os("CARGO_TARGET_DIR")) {
        (Some(folder), _) | (None, Some(folder)) => PathBuf::from(folder),
        (None, None) => workspace.join("target"),
    };
    folder.join("nvptx")
}
