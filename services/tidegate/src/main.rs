//! The one server binary: `serve`, `stream`, `control`, `demo` and the administrator's commands.

// A command line program speaks on standard output.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod bench;
mod cli;
mod config;
mod demo;
mod history;
mod serve;
mod sql;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
