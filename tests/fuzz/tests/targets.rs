//! Every target with some thousand inputs of the small engine. `cargo xtask fuzz` gives them a million and more.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidegate_fuzz::{TARGETS, mutation, target};

/// Also the seed of one run is fixed, so that a failure is one for everybody.
const SEED: u64 = 20_261_125;

fn run(name: &str) {
    let target = target(name).unwrap();
    let last = RefCell::new(Vec::new());
    let run = || mutation::run(target, target.test_inputs, SEED, |input| input.clone_into(&mut last.borrow_mut()));
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(report) => {
            println!("{name}: {} inputs, {} outcomes, {:.1?}", report.inputs, report.outcomes, report.took);
            assert!(report.outcomes > 1, "every input leads to the same");
        }
        Err(panic) => {
            println!("{name}: the input was {:?}", last.borrow().escape_ascii().to_string());
            resume_unwind(panic);
        }
    }
}

macro_rules! tests {
    ($($test:ident: $name:literal,)*) => {
        const TESTED: &[&str] = &[$($name),*];
        $(#[test] fn $test() { run($name); })*
    };
}

tests! {
    milter_stream: "milter-stream",
    milter_packets: "milter-packets",
    policy: "policy",
    rspamd: "rspamd",
    message: "message",
    header: "header",
    account: "account",
    event: "event",
    command: "command",
    state: "state",
    setting: "setting",
    states_file: "states-file",
    manifest: "manifest",
    segment: "segment",
    windows: "windows",
    journal_file: "journal-file",
    statistics_text: "statistics-text",
    statistics: "statistics",
    rules_text: "rules-text",
    rules: "rules",
    edge_config: "edge-config",
    server_config: "server-config",
}

#[test]
fn every_target_is_tested() {
    assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), TESTED);
}

/// Reads the inputs in `TIDEGATE_FUZZ_FILES` (`TARGET=FILE ...`), which `cargo xtask fuzz` found.
#[test]
fn files_that_were_named() {
    for pair in std::env::var("TIDEGATE_FUZZ_FILES").unwrap_or_default().split_whitespace() {
        let (name, file) = pair.split_once('=').unwrap();
        (target(name).unwrap().run)(&std::fs::read(file).unwrap());
    }
}

#[test]
fn the_same_seed_gives_the_same_inputs() {
    let inputs = |seed| {
        let mut inputs = Vec::new();
        mutation::run(target("account").unwrap(), 300, seed, |input| inputs.push(input.to_vec()));
        inputs
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
}
