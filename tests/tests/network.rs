//! The network between the services fails: edges and control, and each of edge, control and stream worker from Kafka.
//! It is cut (connections stay open, nothing arrives), reset, refused and delayed, also in the middle of a message, at
//! random moments under load; the same oracle as for killed processes holds, see `tidegate_tests::trial`.
#![allow(clippy::unwrap_used, missing_docs)]

use tidegate_tests::faults::{Line, Trouble, Weather};
use tidegate_tests::random::{Random, number_of};
use tidegate_tests::trial::{Setup, Trial};

const SEED: &str = "TIDEGATE_NETWORK_SEED";

/// Each line has each of these at least once in so many rounds; `TIDEGATE_NETWORK_ROUNDS` are more.
fn run(setup: Setup, rounds: usize) {
    let mut trial = Trial::start(setup, true, Random::from_environment(SEED)).unwrap();
    let lines = trial.lines();
    for round in 0..number_of("TIDEGATE_NETWORK_ROUNDS").map_or(rounds, |rounds| rounds as usize) {
        // Two lines fail at a time, and all come in turn.
        let mut pair: Vec<Line> = (0..2).map(|number| lines[(2 * round + number) % lines.len()]).collect();
        pair.dedup();
        let troubles: Vec<Trouble> =
            pair.into_iter().map(|line| Trouble::Network(line, Weather::at_random(&mut trial.random))).collect();
        trial.round(&troubles).unwrap();
    }
    trial.settle().unwrap();
}

#[test]
fn between_services_and_kafka() {
    run(Setup::OnKafka, 6);
}

#[test]
fn between_edges_and_one_process() {
    run(Setup::AllInOne, 6);
}

#[test]
fn everything_is_cut_until_it_is_noticed() {
    let mut trial = Trial::start(Setup::OnKafka, true, Random::from_environment(SEED)).unwrap();
    let all: Vec<(Line, Weather)> = trial.lines().into_iter().map(|line| (line, Weather::Cut)).collect();
    trial.cut_off(&all).unwrap();
    trial.settle().unwrap();
}
