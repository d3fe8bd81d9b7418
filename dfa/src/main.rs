//! The `dfa` command.

fn main() {}
