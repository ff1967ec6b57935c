//! Fuzz targets: everything in Tidegate that reads what others wrote, each as a function over octets.
//!
//! A [`Target`] does more than not to panic: it checks what its parser promises for every input (bounds, fixed points,
//! the same result wherever the octets are cut), and fails by panicking. Add one to [`TARGETS`] and everything that
//! runs them knows it.
//!
//! Two engines run them. The tests give each some thousand inputs from [`mutation`], which needs nothing but this
//! crate. `cargo xtask fuzz` builds our crates with coverage counters and lets libFuzzer find its way, for a million
//! inputs and more.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a target fails by panicking, as a test does")]

mod checkpoint;
mod config;
mod content;
mod domain;
mod input;
mod journal;
mod milter;
pub mod mutation;
mod policy;
mod rspamd;
mod rules;
mod setting;
mod states_file;
mod wire;

/// What an input led to, as a number: mutation keeps inputs that lead to something new.
pub type Outcome = u64;

/// One parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Reads an input. Panics when a promise is broken.
    pub run: fn(&[u8]) -> Outcome,
    /// Inputs to begin with: captures of real servers, and what our own encoders write.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces of text that inputs of this kind are made of.
    pub words: &'static [&'static str],
    /// Longest input, in octets.
    pub max_octets: usize,
    /// How many inputs the tests give it; fewer where one takes long.
    pub test_inputs: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    milter::STREAM,
    milter::PACKETS,
    policy::POLICY,
    rspamd::VERDICT,
    content::MESSAGE,
    content::HEADER,
    domain::ACCOUNT,
    wire::EVENT,
    wire::COMMAND,
    wire::STATE,
    setting::SETTING,
    states_file::STATES_FILE,
    checkpoint::MANIFEST,
    checkpoint::SEGMENT,
    checkpoint::WINDOWS,
    journal::JOURNAL_FILE,
    rules::STATISTICS_TEXT,
    rules::STATISTICS,
    rules::RULES_TEXT,
    rules::RULES,
    config::EDGE,
    config::SERVER,
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
