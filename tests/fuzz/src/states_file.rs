//! An edge's file of account states after anything was done to it.

use std::sync::LazyLock;

use prost::Message as _;
use tidegate_domain::AccountState;
use tidegate_edge::{EdgeError, states_file};
use tidegate_journal::JournalError;
use tidegate_proto::state_to_proto;

use crate::input::{Input, outcome};
use crate::journal::{Files, directory};
use crate::{Outcome, Target, wire};

const NAME: &str = "states.db";
const LOG_ID: &str = "a-log";
const ACCOUNTS: u64 = 100;

/// A sound file, and what is written over it.
pub const STATES_FILE: Target = Target {
    name: "states-file",
    run,
    seeds,
    words: &["SQLite format 3\0", "states", "\0positions", "@example.org", "a-log", "\0\0\0\0"],
    max_octets: 512,
    test_inputs: 500,
};

/// The state that was written of each account: a state of another account, or of another time, is none.
fn written(number: u64) -> AccountState {
    let states = wire::states();
    let account = tidegate_domain::Account::parse(&format!("user{number}@example.org")).unwrap();
    AccountState { account, ..states[number as usize % states.len()].clone() }
}

fn encoded(state: &AccountState) -> Vec<u8> {
    state_to_proto(state).encode_to_vec()
}

static STATES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| (0..ACCOUNTS).map(|number| encoded(&written(number))).collect());

fn sound() -> &'static Files {
    static SOUND: LazyLock<Files> = LazyLock::new(|| {
        let directory = directory();
        states_file::write(directory.path(), LOG_ID, (0..ACCOUNTS).map(written).collect()).unwrap();
        Files::read(directory.path(), NAME)
    });
    &SOUND
}

fn run(octets: &[u8]) -> Outcome {
    let directory = directory();
    sound().damaged(&mut Input::new(octets), directory.path(), NAME);
    let read = match states_file::read(directory.path()) {
        Ok(read) => read,
        Err(EdgeError::Journal { source, .. }) => {
            let foreign = matches!(*source, JournalError::NotAJournal { .. } | JournalError::NewerFormat { .. });
            assert!(foreign, "{source:?}");
            return 1;
        }
        Err(error) => panic!("{error}"),
    };
    for state in &read.states {
        assert!(STATES.contains(&encoded(state)), "a state of {} that was never written", state.account);
    }
    let whole = read.states.len() as u64 == ACCOUNTS;
    // What is missing is asked for: either damage was noticed, or the positions are gone too.
    assert!(whole || read.damaged || read.log_id.is_empty(), "{} states, and all is well", read.states.len());
    assert!(!read.damaged || read.log_id.is_empty(), "a damaged file is resumed from");
    let again = states_file::read(directory.path()).unwrap();
    // The first time can have passed over what the second time, when damage was found as a whole, was salvaged.
    assert!(again.states.len() >= read.states.len(), "{} states, and then {}", read.states.len(), again.states.len());
    assert_eq!(again.log_id, read.log_id, "another result the second time");
    outcome((read.states.len() / 10, read.damaged, read.log_id.is_empty()))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![0], vec![0, b'?', b'?'], vec![1, 100], vec![1, 254]];
    seeds.push(include_bytes!("../findings/states-file-read-twice").to_vec());
    for page in 0..12 {
        seeds.push(vec![9, 8 << 2, page, 0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
        seeds.push(vec![9, 4 << 2 | 2, page, 8, 77, 1, 2, 3, 4]);
    }
    seeds
}
