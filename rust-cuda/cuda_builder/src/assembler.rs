//! Runs NVIDIA's assembler `ptxas` over PTX: does every GPU accept it, and what do its kernels need?
//!
//! No GPU is needed, and nothing of the result is kept but the figures.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{CudaBuilderError, NvvmArch};

/// What one kernel needs on one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// The kernel.
    pub entry: String,
    /// Registers of each thread.
    pub registers: u64,
    /// Shared memory of a block, in bytes, without what the launch adds.
    pub shared_bytes: u64,
    /// Stack of each thread, in bytes.
    pub stack_bytes: u64,
    /// Bytes that each thread stores and loads because its registers do not suffice.
    pub spill_bytes: u64,
}

/// The assembler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembler {
    path: PathBuf,
}

impl Assembler {
    /// Finds `ptxas`: the given one, or `$PTXAS`, or on the `PATH`, or where the CUDA toolkit and the Python
    /// package `nvidia-cuda-nvcc` put it.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError::Assembler`] if there is none, with how to install it.
    pub fn find(given: Option<&Path>) -> Result<Self, CudaBuilderError> {
        let named = given.map(Path::to_owned).or_else(|| env::var_os("PTXAS").map(PathBuf::from));
        if let Some(path) = named {
            return if path.is_file() {
                Ok(Self { path })
            } else {
                let reason = format!("there is no file {}", path.display());
                Err(CudaBuilderError::Assembler { reason })
            };
        }
        let folders = env::var_os("PATH").unwrap_or_default();
        let mut files = env::split_paths(&folders).map(|folder| folder.join("ptxas"));
        let found = files.find(|file| file.is_file()).or_else(|| {
            let toolkit = PathBuf::from("/usr/local/cuda/bin/ptxas");
            toolkit.is_file().then_some(toolkit).or_else(in_python_packages)
        });
        found.map(|path| Self { path }).ok_or_else(|| CudaBuilderError::Assembler {
            reason: "not found. It comes with the CUDA toolkit and, alone, with a Python package: \
                     `pip install nvidia-cuda-nvcc`. Name it with --ptxas or PTXAS if it is elsewhere"
                .to_owned(),
        })
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version it reports.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError::Assembler`] if it cannot be run.
    pub fn version(&self) -> Result<String, CudaBuilderError> {
        let (_, output) = self.run(["--version".as_ref()])?;
        let release = output.lines().find(|line| line.contains("release"));
        Ok(release.unwrap_or_else(|| output.trim()).to_owned())
    }

    /// Assembles a PTX file for a GPU.
    ///
    /// # Errors
    ///
    /// [`CudaBuilderError::Assembler`] with the assembler's messages if it does not accept the file.
    pub fn assemble(&self, ptx: &Path, arch: NvvmArch) -> Result<Vec<Usage>, CudaBuilderError> {
        let null = if cfg!(windows) { "NUL" } else { "/dev/null" };
        let target = format!("-arch={arch}");
        let arguments = ["-v", &target, "-o", null].map(OsStr::new);
        let (accepted, output) = self.run(arguments.into_iter().chain([ptx.as_os_str()]))?;
        if accepted {
            return Ok(usages(&output));
        }
        let path = ptx.display();
        let reason = format!("{path} is not accepted for {arch}:\n{}", output.trim_end());
        Err(CudaBuilderError::Assembler { reason })
    }

    fn run<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a OsStr>,
    ) -> Result<(bool, String), CudaBuilderError> {
        let output = Command::new(&self.path).args(arguments).output();
        let output = output.map_err(|error| CudaBuilderError::Assembler {
            reason: format!("{} cannot be run: {error}", self.path.display()),
        })?;
        // Figures and messages go to either stream, depending on the version.
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }
}

/// Of `archs`, the GPUs that run PTX made for `level`: those whose drivers do not choose higher PTX among `others`, and the newest one,
/// which stands for all whose drivers may know no higher one.
///
/// ```
/// use cuda_builder::NvvmArch::{self, Compute75, Compute80, Compute86, Compute89, Compute90, Compute120};
/// use cuda_builder::assembler::gpus;
///
/// let others = [Compute75, Compute90];
/// let expected = [Compute80, Compute86, Compute89, Compute120];
/// assert_eq!(gpus(Compute80, &others, &NvvmArch::ALL), expected);
/// ```
pub fn gpus(level: NvvmArch, others: &[NvvmArch], archs: &[NvvmArch]) -> Vec<NvvmArch> {
    let is_outdone = |arch| others.iter().any(|&other| level < other && other <= arch);
    let newest = archs.iter().copied().max();
    let runs = |arch| arch >= level && (!is_outdone(arch) || Some(arch) == newest);
    archs.iter().copied().filter(|&arch| runs(arch)).collect()
}

/// `<site-packages>/nvidia/<cu13 or cuda_nvcc>/bin/ptxas`, for the `python3` on the `PATH`.
fn in_python_packages() -> Option<PathBuf> {
    let script = "import site, sysconfig; \
                  print('\\n'.join([sysconfig.get_paths()['purelib'], site.getusersitepackages()]))";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|folder| {
        let packages = Path::new(folder).join("nvidia").read_dir().ok()?;
        let mut files = packages.flatten().map(|package| package.path().join("bin/ptxas"));
        files.find(|file| file.is_file())
    })
}

/// Reads what `ptxas -v` prints: for each kernel a line with its name, then one with stack and spills, then one
/// with registers and shared memory. Functions that are not kernels have lines, too.
fn usages(output: &str) -> Vec<Usage> {
    let mut usages: Vec<Usage> = Vec::new();
    let mut index = HashMap::new();
    let mut current = None;
    for line in output.lines() {
        if let Some(name) = between(line, "Compiling entry function '", "'") {
            index.insert(name.to_owned(), usages.len());
            current = Some(usages.len());
            usages.push(Usage { entry: name.to_owned(), ..Usage::default() });
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            current = index.get(name.trim()).copied();
        } else if let Some(usage) = current.and_then(|current| usages.get_mut(current)) {
            if line.contains("bytes stack frame") {
                usage.stack_bytes = number_before(line, " bytes stack frame");
                usage.spill_bytes = number_before(line, " bytes spill stores")
                    + number_before(line, " bytes spill loads");
            } else if line.contains(" registers") {
                usage.registers = number_before(line, " registers");
                usage.shared_bytes = number_before(line, " bytes smem");
            }
        }
    }
    usages.sort_by(|one, other| one.entry.cmp(&other.entry));
    usages
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// The number that stands before `unit`; 0 if the line does not mention it.
fn number_before(line: &str, unit: &str) -> u64 {
    let before = line.split_once(unit).map_or("", |(before, _)| before);
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'forward' for 'sm_80'\n\
        ptxas info    : Function properties for forward\n\
        \x20   48 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n\
        ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem, 364 bytes cmem[0]\n\
        ptxas info    : Compile time = 3.371 ms\n\
        ptxas info    : Function properties for panic_fmt\n\
        \x20   8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads\n\
        ptxas info    : Compiling entry function 'backward' for 'sm_80'\n\
        ptxas info    : Function properties for backward\n\
        \x20   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 8 registers, used 0 barriers, 364 bytes cmem[0]\n";

    #[test]
    fn the_figures_of_each_kernel_are_read() {
        let expected = [
            Usage { entry: "backward".to_owned(), registers: 8, ..Usage::default() },
            Usage {
                entry: "forward".to_owned(),
                registers: 40,
                shared_bytes: 4096,
                stack_bytes: 48,
                spill_bytes: 40,
            },
        ];
        assert_eq!(usages(OUTPUT), expected);
        assert!(usages("").is_empty());
    }

    #[test]
    fn an_assembler_that_is_not_there_is_an_error() {
        let error = Assembler::find(Some(Path::new("/nonexistent/ptxas"))).expect_err("no file");
        assert!(error.to_string().contains("/nonexistent/ptxas"));
    }

    #[test]
    fn ptx_goes_to_the_gpus_that_choose_it_and_to_the_newest() {
        use NvvmArch::{
            Compute75, Compute80, Compute86, Compute89, Compute90, Compute100, Compute120,
        };
        let levels = [Compute75, Compute80, Compute90];
        let of = |level, others: &[_]| gpus(level, others, &NvvmArch::ALL);
        assert_eq!(of(Compute75, &levels), [Compute75, Compute120]);
        assert_eq!(of(Compute80, &levels), [Compute80, Compute86, Compute89, Compute120]);
        assert_eq!(of(Compute90, &levels), [Compute90, Compute100, Compute120]);
        assert_eq!(of(Compute75, &[]), NvvmArch::ALL, "without a choice every GPU");
        assert_eq!(gpus(Compute90, &levels, &[Compute80]), [], "none that it runs on");
    }
}
