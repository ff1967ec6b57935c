//! Kafka of three nodes with three replicas, of which two must have a record: each node is killed once under load, and
//! with it leaders of partitions, coordinators of groups and transactions, and the controller. Nothing that was
//! acknowledged is lost, nothing counts twice, who is hijacked meanwhile is locked, and no lock is lost.
#![allow(clippy::unwrap_used, missing_docs)]

use tidegate_tests::faults::{Trouble, Victim};
use tidegate_tests::random::Random;
use tidegate_tests::trial::{Setup, Trial};

#[test]
fn each_of_three_nodes_is_killed_and_nothing_is_lost() {
    let mut trial = Trial::start(Setup::OnThreeNodes, false, Random::from_environment("TIDEGATE_NODES_SEED")).unwrap();
    for node in 0..3 {
        trial.round(&[Trouble::Kill(Victim::Kafka(node))]).unwrap();
    }
    trial.settle().unwrap();
}
