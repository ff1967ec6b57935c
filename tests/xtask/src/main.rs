//! `cargo xtask`: installs what is missing, builds and runs. `cargo xtask help` lists the commands.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program speaks through them")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod developer;
mod fuzz;
mod pipeline;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use cli::Arguments;
use xtask::error::{Error, Result};
use xtask::progress::Progress;
use xtask::setup::{self, Purpose};

const HELP: &str = "\
Usage: cargo xtask COMMAND

  demo [ARGUMENT...]       the demonstration; arguments go to `tidegate demo` (--json, --stay, --help)
  test [ARGUMENT...]       format check, build and all tests; arguments go to `cargo test` (a name, -p CRATE)
  chaos [--minutes N] [--kills N] [--network] [--seed N]
                           kills processes at random moments, on each kind of log so long (1) and each kind of process
                           so often (20) at least, and asks an oracle; --network: with cuts, resets and delays, too
  upgrade --from REVISION  builds that revision, too, and rolls every service from it to this one and back under traffic
  outage [--seconds N]     stops Kafka and control for so long (75) under traffic, and compares what was counted
  spark                    Spark and DuckDB read the history's tables, also after compaction and an erasure (900 MB)
  fuzz [--inputs N] [--seed N] [TARGET...]
                           gives each target, or these, so many inputs (1000000), led by what code they reach
  bench [ARGUMENT...]      a release build, a Kafka, and `tidegate bench` on both kinds of log (--quick, --json, --help)
  kube                     the Helm chart on a real Kubernetes control plane: installed, upgraded, refused, rolled back
  mail-host                both Debian packages on a Debian that is booted with systemd and Postfix: crashes, a reboot (root)
  lint                     format check, clippy, dependencies (cargo-deny) and protocol files (buf)
  deb [--out DIR]          a release build, and Debian packages of both programs (in the target folder, or DIR)
  setup [--for PURPOSE]    installs what is missing for: demo, test (default), bench, kafka, postfix, lint, deb, kube,
                           mail-host

  kafka up [--port N]      an Apache Kafka on 127.0.0.1 (port 9092), its data in the target folder
  kafka down               stops it; its data stays
  kafka env                its address and class path, for `eval \"$(cargo xtask kafka env)\"`

  postfix up [OPTION...]   a private Postfix on 127.0.0.1, with logins, and a sink for its outgoing mail
      --milter ADDRESS         unix:/path or inet:127.0.0.1:PORT; may be repeated
      --policy STAGE=ADDRESS   the same, at the stage sender, recipient, data or end-of-data; may be repeated
      --user NAME:PASSWORD     an account that can log in (amy@example.test:secret); may be repeated
      --port N                 for submission (2587)
  postfix down             stops them

Each installs what it needs where it can: with apt, as root, on Debian.";

fn main() -> ExitCode {
    if let Some(code) = fuzz::compile_with_counters() {
        return code;
    }
    let mut arguments = Arguments::new(std::env::args().skip(1));
    let progress = Progress::new();
    let result = match arguments.word().as_deref() {
        Some("demo") => pipeline::demo(arguments.rest(), &progress),
        Some("test") => pipeline::test(arguments.rest(), &progress),
        Some("chaos") => chaos(arguments, &progress),
        Some("upgrade") => upgrade(arguments, &progress),
        Some("outage") => outage(arguments, &progress),
        Some("spark") => arguments.finish().and_then(|()| pipeline::spark(&progress)),
        Some("fuzz") => fuzz(arguments, &progress),
        Some("bench") => pipeline::bench(arguments.rest(), &progress),
        Some("lint") => arguments.finish().and_then(|()| pipeline::lint(&progress)),
        Some("deb") => deb(arguments, &progress),
        Some("setup") => set_up(arguments, &progress),
        Some("kube") => arguments.finish().and_then(|()| pipeline::kube(&progress)),
        Some("mail-host") => arguments.finish().and_then(|()| pipeline::mail_host(&progress)),
        Some("kafka") => developer::kafka(arguments, &progress),
        Some("postfix") => developer::postfix(arguments, &progress),
        Some("sink") => developer::sink(arguments),
        Some("help") => Ok(help()),
        None if arguments.rest().iter().all(|flag| flag == "--help" || flag == "-h") => Ok(help()),
        _ => Err(Error::new("no such command; `cargo xtask help` lists them")),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    println!("{HELP}");
    ExitCode::SUCCESS
}

fn chaos(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let chaos = pipeline::Chaos {
        minutes: arguments.number("--minutes")?.unwrap_or(1),
        kills: arguments.number("--kills")?.unwrap_or(20),
        network: arguments.flag("--network"),
        seed: arguments.number("--seed")?,
    };
    arguments.finish()?;
    pipeline::chaos(chaos, progress)
}

fn upgrade(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let from = arguments.value("--from")?;
    arguments.finish()?;
    let from = from.ok_or_else(|| Error::new("upgrade --from REVISION, e.g. the last release's tag"))?;
    upgrade::run(&from, progress)
}

fn outage(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let seconds = arguments.number("--seconds")?.unwrap_or(75);
    arguments.finish()?;
    pipeline::outage(seconds, progress)
}

fn fuzz(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let inputs = arguments.number("--inputs")?.unwrap_or(1_000_000);
    let seed = arguments.number("--seed")?.unwrap_or(1);
    let targets: Vec<String> = std::iter::from_fn(|| arguments.word()).collect();
    arguments.finish()?;
    fuzz::run(inputs, seed, &targets, progress)
}

fn deb(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let out = arguments.value("--out")?.map(PathBuf::from);
    arguments.finish()?;
    pipeline::deb(out, progress)
}

fn set_up(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let wanted = arguments.value("--for")?.unwrap_or_else(|| "test".into());
    arguments.finish()?;
    let Some((_, purpose)) = Purpose::NAMES.into_iter().find(|(name, _)| *name == wanted) else {
        let names = Purpose::NAMES.map(|(name, _)| name).join(", ");
        return Err(Error::new(format!("--for {wanted}: one of {names}")));
    };
    setup::install_missing(purpose, progress)?;
    setup::fetch_parts(purpose)?;
    progress.step(&format!("everything for `{wanted}` is here"));
    Ok(ExitCode::SUCCESS)
}
