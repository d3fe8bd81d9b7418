//! `dfa info`: what can compute here, and what is missing for the rest.

use anyhow::Result;
use deformable_aggregation::Backend;
use serde::Serialize;

use crate::gpu::{self, DeviceInfo, KernelInfo};
use crate::output;
use crate::system::System;

/// Arguments of `dfa info`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dfa info
  dfa info --json")]
pub struct Args {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    system: System,
    chosen: String,
    backends: Vec<Status>,
    devices: Vec<DeviceInfo>,
    kernels: Vec<KernelInfo>,
}

#[derive(Serialize)]
struct Status {
    name: &'static str,
    usable: bool,
    description: String,
}

/// Runs the subcommand.
///
/// # Errors
///
/// If stdout cannot be written.
pub fn run(args: &Args) -> Result<bool> {
    let backends = Backend::available().into_iter().map(|status| {
        let usable = status.usable.is_ok();
        let description = status.usable.unwrap_or_else(|reason| reason);
        Status { name: status.name, usable, description }
    });
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        system: System::new(),
        chosen: Backend::auto().to_string(),
        backends: backends.collect(),
        devices: gpu::devices(),
        kernels: gpu::kernels(),
    };
    if args.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(true)
}

fn print(report: &Report) -> Result<()> {
    let system = &report.system;
    let memory = system.memory.map_or("unknown".to_owned(), |bytes| output::bytes(bytes as f64));
    let rows = [
        ("version", report.version.to_owned()),
        ("platform", system.platform.clone()),
        ("processor", system.description()),
        ("memory", memory),
        ("chosen by default", report.chosen.clone()),
    ];
    for (name, value) in rows {
        output::line(&format!(
            "{} {value}",
            output::styled(output::HEADING, &format!("{name:<18}"))
        ))?;
    }
    output::line(&format!("\n{}", output::styled(output::HEADING, "Backends")))?;
    for status in &report.backends {
        let (style, word) =
            if status.usable { (output::GOOD, "usable    ") } else { (output::BAD, "not usable") };
        let word = output::styled(style, word);
        output::line(&format!("  {:<10} {word}  {}", status.name, status.description))?;
    }
    if !report.devices.is_empty() {
        output::line(&format!("\n{}", output::styled(output::HEADING, "GPUs")))?;
    }
    for device in &report.devices {
        output::line(&format!("  {}  {}", device.ordinal, device.line()))?;
        output::line(&format!("     {}", device.memory_line()))?;
    }
    if !report.kernels.is_empty() {
        output::line(&format!("\n{}", output::styled(output::HEADING, "GPU kernels")))?;
    }
    for kernels in &report.kernels {
        let compiler = kernels.made_from.iter().find(|line| line.starts_with("compiler"));
        let compiler = compiler.map_or("", String::as_str);
        output::line(&format!("  {}  {compiler}", kernels.architecture))?;
    }
    Ok(())
}
