//! Plants known errors in a copy of the sources, one at a time, and sees whether the tests notice.

mod errors;
mod trial;
mod workspace;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use errors::{Planted, all};
use trial::Verdict;
use workspace::{Copy, Workspace};

/// Plants known errors in a copy of the sources, one at a time, and sees whether the tests notice.
///
/// The list is tests/planted/errors.toml, the copy lies below the target folder. No GPU and no kernel compiler are needed:
/// the kernels run in the emulator. Exit status: 0 when every error is caught, 1 when one is missed or does not compile, 2
/// when nothing can be said, as when a text of the list is not in the sources any more.
#[derive(Parser)]
#[command(
    bin_name = "cargo planted",
    after_help = "Examples:\n  \
        cargo planted                              every error, some minutes\n  \
        cargo planted --quick                      a few, in different kernels\n  \
        cargo planted --only visible-rank          this one\n  \
        cargo planted --only forward --only round  all whose names contain one of these\n  \
        cargo planted --list                       what there is; plants nothing"
)]
struct Cli {
    /// Only errors whose name contains this; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only the errors marked `quick` in the list.
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Does not run the tests without an error first: they are known to pass.
    #[arg(long)]
    known_good: bool,
    /// Lists the errors, checks that they apply to the sources, and ends.
    #[arg(long)]
    list: bool,
    /// Seconds after which tests that have not ended count as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    limit: u64,
}

impl Cli {
    fn chooses(&self, error: &Planted) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|part| error.name.contains(part));
        named && (error.quick || !self.quick)
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every chosen error is caught.
fn run(cli: &Cli) -> Result<bool> {
    let workspace = Workspace::find()?;
    let errors = all()?;
    // Also those that are not chosen: the list must not rot.
    let faults: Vec<_> =
        errors.iter().filter_map(|error| error.apply(workspace.root()).err()).collect();
    ensure!(
        faults.is_empty(),
        "{}",
        faults.iter().map(|fault| format!("{fault:#}")).collect::<Vec<_>>().join("\n")
    );
    let chosen: Vec<_> = errors.iter().filter(|error| cli.chooses(error)).collect();
    if chosen.is_empty() {
        bail!("no error has such a name; --list shows all");
    }
    let width = chosen.iter().map(|error| error.name.len()).max().unwrap_or(0);
    if cli.list {
        for error in &chosen {
            println!("{:width$}  {}: {}", error.name, error.file, error.wrong);
        }
        return Ok(true);
    }

    let started = Instant::now();
    let copy = workspace.copy()?;
    let limit = Duration::from_secs(cli.limit);
    let bar = progress(chosen.len());
    if !cli.known_good {
        bar.set_message("the tests without an error");
        expect_no_failure(&copy, &chosen, limit)?;
    }
    println!("{:width$}  caught by", "error");
    let mut caught = 0;
    for error in &chosen {
        bar.set_message(error.name.clone());
        let planted = copy.plant(&error.file, &error.apply(workspace.root())?)?;
        let verdict = trial::run(&copy, error.program.as_deref(), limit)?;
        planted.take_out()?;
        bar.suspend(|| println!("{:width$}  {verdict}", error.name));
        caught += usize::from(matches!(verdict, Verdict::Caught(_)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (all, seconds) = (chosen.len(), started.elapsed().as_secs());
    println!("{caught} of {all} errors caught, in {seconds} s");
    Ok(caught == all)
}

/// An error unless the tests that the errors are planted for pass without any.
fn expect_no_failure(copy: &Copy, errors: &[&Planted], limit: Duration) -> Result<()> {
    let programs: BTreeSet<_> = errors.iter().map(|error| error.program.as_deref()).collect();
    for program in programs {
        match trial::run(copy, program, limit)? {
            Verdict::Missed => {}
            Verdict::Caught(test) => bail!("without any planted error, {test} fails"),
            Verdict::DoesNotCompile(message) => bail!("without any planted error:\n{message}"),
        }
    }
    Ok(())
}

/// A progress bar on stderr; hidden when that is not a terminal.
fn progress(errors: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}")
        .expect("a valid template");
    let bar = ProgressBar::new(errors as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
