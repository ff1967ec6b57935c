//! An upgrade under traffic, and the way back, with programs of two versions (`cargo xtask upgrade --from REVISION`): each
//! service becomes the newer one, whose messages have fields that the older ones do not know, and then the older one again.
//! See `tidegate_tests::trial` for what must hold meanwhile.
// A long run tells what it does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::PathBuf;
use tidegate_tests::collector::Collector;
use tidegate_tests::programs;
use tidegate_tests::random::Random;
use tidegate_tests::trial::{Rollout, Setup, Trial};

/// Folder with the programs of the newer version; those of the older one are the programs of the tests.
const NEWER: &str = "TIDEGATE_UPGRADE_TO";

#[test]
fn to_a_newer_version_and_back() {
    let newer = PathBuf::from(std::env::var_os(NEWER).expect("the folder of the newer programs"));
    let older = programs::tidegate().unwrap().parent().unwrap().to_owned();
    let collector = Collector::start().unwrap();
    let random = Random::from_environment("TIDEGATE_ROLLING_SEED");
    let mut trial = Trial::start(Setup::Replicated, false, random).unwrap();
    trial.roll_out(Rollout { programs: newer, traces: Some(collector.address().to_string()) });
    trial.restart_each().unwrap();
    // The newer one's events and states had more in them, on every way.
    let (submissions, applied) = (collector.named("submission").len(), collector.named("apply").len());
    println!("upgraded: {submissions} messages and {applied} states were traced");
    assert!(submissions > 100 && applied > 3, "{submissions} messages and {applied} states");
    trial.roll_out(Rollout { programs: older, traces: None });
    trial.restart_each().unwrap();
    trial.settle().unwrap();
}
