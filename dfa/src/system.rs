//! What this machine is: processor, memory, copy bandwidth.

use std::fs;
use std::thread;
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

/// Processor and memory.
#[derive(Clone, Debug, Serialize)]
pub struct System {
    /// Model of the processor, if the operating system tells.
    pub processor: Option<String>,
    /// Threads that can run at the same time.
    pub threads: usize,
    /// Bytes of memory, if the operating system tells.
    pub memory: Option<u64>,
    /// Operating system and architecture.
    pub platform: String,
}

impl System {
    /// Looks at this machine.
    pub fn new() -> Self {
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            threads: thread::available_parallelism().map_or(1, usize::from),
            memory: kilobytes("MemTotal"),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }

    /// One line about the processor.
    pub fn description(&self) -> String {
        let processor = self.processor.as_deref().unwrap_or("unknown processor");
        format!("{processor}, {} threads", self.threads)
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

/// Where figures come from.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    /// Of this program.
    version: &'static str,
    /// The program and its arguments.
    command: Vec<String>,
    /// This machine.
    system: System,
}

impl Origin {
    /// This program, as it was called, on this machine.
    #[must_use]
    pub fn here() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            system: System::new(),
        }
    }
}

/// Bytes of memory that a program can have now, if the operating system tells.
pub fn available_memory() -> Option<u64> {
    kilobytes("MemAvailable")
}

/// The value of the first line `name : value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kilobytes(name: &str) -> Option<u64> {
    let value = field("/proc/meminfo", name)?;
    let number: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

/// Bytes per second, read and written, that all cores together copy between two arrays far larger than the caches;
/// the best of several runs.
pub fn copy_bandwidth() -> f64 {
    const WORDS: usize = 32 << 20;
    const RUNS: usize = 5;
    let source = vec![1_u64; WORDS];
    let mut target = vec![0_u64; WORDS];
    let part = WORDS.div_ceil(rayon::current_num_threads());
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        target
            .par_chunks_mut(part)
            .zip(source.par_chunks(part))
            .for_each(|(target, source)| target.copy_from_slice(source));
        best = best.min(start.elapsed().as_secs_f64());
        std::hint::black_box(&target);
    }
    2.0 * (WORDS * size_of::<u64>()) as f64 / best
}
