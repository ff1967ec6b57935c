//! Processes are killed at random moments under load, one or two in each round, and an oracle is asked after each: see
//! `tidegate_tests::trial`. A short run is part of the tests; `cargo xtask chaos` runs longer ones, on request with
//! faults of the network among the kills.
// A long run tells what it does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_tests::faults::{Trouble, Victim, Weather};
use tidegate_tests::random::{Random, number_of};
use tidegate_tests::trial::{Setup, Trial};

/// Each of `first` once; then, in a long run, at random until the time is over and each kind of process was killed
/// often enough.
fn run(setup: Setup, first: &[&[Victim]]) {
    let until = Instant::now() + Duration::from_mins(number_of("TIDEGATE_CHAOS_MINUTES").unwrap_or(0));
    let kills_of_each = number_of("TIDEGATE_CHAOS_KILLS").unwrap_or(0) as usize;
    let with_network = number_of("TIDEGATE_CHAOS_NETWORK").is_some();
    let mut trial = Trial::start(setup, with_network, Random::from_environment("TIDEGATE_CHAOS_SEED")).unwrap();
    for victims in first {
        trial.round(&victims.iter().copied().map(Trouble::Kill).collect::<Vec<_>>()).unwrap();
    }
    loop {
        let victims = trial.victims();
        let kills: BTreeMap<&str, usize> = victims
            .iter()
            .map(|victim| {
                let killed = trial.troubles.get(&Trouble::Kill(*victim).to_string());
                (victim.kind(), killed.copied().unwrap_or(0))
            })
            .collect();
        let fewest = kills.values().min().copied().unwrap_or(0);
        if fewest >= kills_of_each && Instant::now() >= until {
            break;
        }
        let rare: Vec<Victim> = victims.iter().copied().filter(|victim| kills[victim.kind()] == fewest).collect();
        let one = trial.random.of(&rare);
        let mut troubles = vec![Trouble::Kill(one)];
        let other = trial.random.of(&victims);
        if other != one {
            troubles.push(Trouble::Kill(other));
        }
        if with_network {
            let line = trial.random.of(&trial.lines());
            troubles.push(Trouble::Network(line, Weather::at_random(&mut trial.random)));
        }
        trial.round(&troubles).unwrap();
    }
    trial.settle().unwrap();
}

#[test]
fn in_one_process_on_the_embedded_log() {
    run(Setup::AllInOne, &[&[Victim::AllInOne], &[Victim::Edge(1)], &[Victim::AllInOne, Victim::Edge(0)]]);
}

#[test]
fn on_kafka() {
    let (control, stream) = (Victim::Control(0), Victim::Stream(0));
    run(Setup::OnKafka, &[&[control, stream], &[Victim::Kafka(0)], &[stream, Victim::Edge(0)]]);
}
