//! Every service is restarted, one after the other, while mail flows, accounts are hijacked and unlocked: no lock is lost
//! and none comes twice, nobody's mail is refused that must pass, and every message counts once. See
//! `tidegate_tests::trial`.
#![allow(clippy::unwrap_used, missing_docs)]

use tidegate_tests::random::Random;
use tidegate_tests::trial::{Setup, Trial};

#[test]
fn each_service_while_mail_flows() {
    let random = Random::from_environment("TIDEGATE_ROLLING_SEED");
    let mut trial = Trial::start(Setup::Replicated, false, random).unwrap();
    trial.restart_each().unwrap();
    trial.settle().unwrap();
}
