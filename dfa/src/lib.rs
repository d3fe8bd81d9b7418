//! What the `dfa` command is made of.
//!
//! [`commands`] has the subcommands. The rest is what they share: the sizes that models use ([`workloads`]), camera rigs and
//! the inputs made from them ([`camera_rig`], [`scenario`]), random cases and files of vectors ([`cases`], [`vectors`]), the same for the
//! attention block ([`block`]), the backends ([`engines`]), and comparing their results ([`compare`]).

pub mod block;
pub mod cases;
pub mod chart;
pub mod commands;
pub mod compare;
pub mod data;
mod drawing;
pub mod engines;
pub mod gpu;
pub mod judge;
pub mod output;
pub mod picture;
pub mod scenario;
pub mod system;
pub mod timing;
pub mod vectors;
pub mod workloads;
