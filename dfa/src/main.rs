//! The `dfa` command.

use std::process::ExitCode;

use clap::Parser;
use dfa_cli::commands::Cli;
use dfa_cli::output::{BAD, styled};

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("{} {error:#}", styled(BAD, "error:"));
            ExitCode::from(2)
        }
    }
}
