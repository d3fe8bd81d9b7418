//! Builds the tests of the copy and runs them up to the first that fails.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::workspace::{Copy, cargo};

/// The test programs that should notice, in the order in which they are built and asked, unless an error names another.
const PROGRAMS: [&str; 3] = ["backends", "golden", "properties"];

/// What the tests say about a state of the sources.
pub(crate) enum Verdict {
    /// The program and the first test that failed.
    Caught(String),
    /// All tests pass.
    Missed,
    /// What the compiler says.
    DoesNotCompile(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught(test) => f.write_str(test),
            Self::Missed => f.write_str("MISSED"),
            Self::DoesNotCompile(message) => write!(f, "DOES NOT COMPILE\n{message}"),
        }
    }
}

/// Builds and runs the tests, all or those of one program; each program may take as long as `limit`.
pub(crate) fn run(copy: &Copy, program: Option<&str>, limit: Duration) -> Result<Verdict> {
    let programs = program.map_or_else(|| PROGRAMS.to_vec(), |program| vec![program]);
    for program in programs {
        let executable = match build(copy, program)? {
            Ok(executable) => executable,
            Err(message) => return Ok(Verdict::DoesNotCompile(message)),
        };
        let mut command = Command::new(executable);
        // The same cases every time, and none left behind for the next error.
        command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        if let Some(test) = first_failure(command.current_dir(&copy.root), limit)? {
            return Ok(Verdict::Caught(format!("{program}: {test}")));
        }
    }
    Ok(Verdict::Missed)
}

/// A line of cargo's messages.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// The executable, or what the compiler says.
fn build(copy: &Copy, program: &str) -> Result<std::result::Result<PathBuf, String>> {
    let output = cargo()
        .args([
            "test",
            "--no-run",
            "--locked",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .args(["-p", "deformable-aggregation-tests", "--no-default-features", "--test", program])
        .current_dir(&copy.root)
        .env("CARGO_TARGET_DIR", &copy.target)
        .env("CARGO_INCREMENTAL", "1")
        .output()
        .context("cargo test")?;
    if !output.status.success() {
        return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let executable = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .find_map(|message| message.executable);
    executable.map(Ok).with_context(|| format!("cargo named no executable for the tests {program}"))
}

/// Runs a test program until a test fails, and returns its name.
fn first_failure(command: &mut Command, limit: Duration) -> Result<Option<String>> {
    let mut child =
        command.env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + limit;
    let failure = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let failed =
                    line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"));
                if let Some(name) = failed {
                    break Some(name.to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("no end within {} s", limit.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    if failure.is_some() {
        // The other tests are of no interest. An error here means that it has ended by itself.
        let _ = child.kill();
    }
    let status = child.wait()?;
    drop(lines);
    reader.join().ok().context("the thread that reads the tests' output")?;
    // A crash takes the names with it.
    Ok(failure.or_else(|| (!status.success()).then(|| status.to_string())))
}
