//! A worker that is killed at any point and goes on from a checkpoint, or from the log, decides what one that lives on
//! decides, and has the same windows.

use crate::lab::{BEGIN_MS, RULES, event, record, rules, unlock};
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;
use tidegate_bus::{Record, Topic};
use tidegate_detect::{Engine, EngineLimits, Rules, Statistics, Taken};
use tidegate_domain::{Account, Change};
use tidegate_proto::state_to_proto;
use tidegate_stream::checkpoint::Covered;
use tidegate_stream::{Output, Partition};

const ACCOUNTS: u8 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// An account sends, so many milliseconds after the step before.
    Send {
        account: u8,
        after_ms: u16,
    },
    /// The last event comes once more.
    Repeat,
    Unlock(u8),
    Wait {
        after_ms: u16,
    },
    Checkpoint {
        everything: bool,
    },
    /// The worker is killed, perhaps right after it decided upon something and before that was durable.
    Kill {
        with_undecided: bool,
        from_log: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => (0..ACCOUNTS, 0_u16..300).prop_map(|(account, after_ms)| Step::Send { account, after_ms }),
        2 => Just(Step::Repeat),
        2 => (0..ACCOUNTS).prop_map(Step::Unlock),
        2 => (0_u16..4_000).prop_map(|after_ms| Step::Wait { after_ms }),
        4 => any::<bool>().prop_map(|everything| Step::Checkpoint { everything }),
        3 => any::<(bool, bool)>().prop_map(|(with_undecided, from_log)| Step::Kill { with_undecided, from_log }),
    ]
}

fn name(account: u8) -> String {
    format!("user{account}@example.org")
}

/// A worker, the log that it reads, and what it made durable.
struct World<'a> {
    rules: &'a (Statistics, Rules),
    partition: Partition,
    now_ms: i64,
    sequence: u64,
    events: Vec<Record>,
    commands: Vec<Record>,
    decided: u64,
    commanded: usize,
    published: BTreeMap<String, Vec<u8>>,
    changes: Vec<(String, Change)>,
    segments: Vec<Vec<u8>>,
    checkpoint: Option<(Covered, usize)>,
}

impl<'a> World<'a> {
    fn new(rules: &'a (Statistics, Rules)) -> Self {
        Self {
            rules,
            partition: Partition::new(0, engine(rules), 0),
            now_ms: BEGIN_MS,
            sequence: 0,
            events: Vec::new(),
            commands: Vec::new(),
            decided: 0,
            commanded: 0,
            published: BTreeMap::new(),
            changes: Vec::new(),
            segments: Vec::new(),
            checkpoint: None,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send { account, after_ms } => {
                self.pass(*after_ms);
                self.sequence += 1;
                let offset = self.events.len() as u64;
                self.events.push(event(offset, &name(*account), self.sequence, self.now_ms, self.now_ms));
                self.read_on();
            }
            Step::Repeat => {
                if let Some(last) = self.events.last().cloned() {
                    self.events.push(Record { offset: self.events.len() as u64, ..last });
                    self.read_on();
                }
            }
            Step::Unlock(account) => {
                let command = unlock(self.commands.len() as u64, &name(*account), self.now_ms);
                let output = self.partition.command(&command);
                self.commands.push(command);
                self.commanded = self.commands.len();
                self.publish(&output);
                // Not the same moment again: the clock of the log is finer than people.
                self.now_ms += 1;
            }
            Step::Wait { after_ms } => self.pass(*after_ms),
            Step::Checkpoint { everything } => self.write(*everything),
            Step::Kill { with_undecided, from_log } => self.live_again(*with_undecided, *from_log),
        }
    }

    fn pass(&mut self, after_ms: u16) {
        self.now_ms += i64::from(after_ms);
        let output = self.partition.tick(self.now_ms);
        self.publish(&output);
    }

    fn read_on(&mut self) {
        let from = self.events.len() - 1;
        let output = self.partition.events(&self.events[from..]).unwrap();
        self.decided = self.events.len() as u64;
        self.publish(&output);
    }

    fn publish(&mut self, output: &Output) {
        for (state, change) in output.states.iter().zip(&output.changes) {
            self.published.insert(state.account.to_string(), state_to_proto(state).encode_to_vec());
            self.changes.push((state.account.to_string(), *change));
        }
    }

    /// As a worker does, a few accounts at a time.
    fn write(&mut self, everything: bool) {
        self.pass(0);
        if self.partition.begin_changes(everything) {
            self.segments.clear();
        }
        loop {
            let mut octets = Vec::new();
            let taken = self.partition.take_changes(100, &mut octets);
            self.segments.push(octets);
            if taken == Taken::Last {
                break;
            }
        }
        self.checkpoint = Some((self.partition.covered(self.events.len() as u64), self.segments.len()));
    }

    fn live_again(&mut self, with_undecided: bool, from_log: bool) {
        if with_undecided {
            // It decides upon an event, and dies before anybody hears of it.
            self.sequence += 1;
            let offset = self.events.len() as u64;
            self.events.push(event(offset, &name(0), self.sequence, self.now_ms, self.now_ms));
            self.partition.events(&self.events[offset as usize..]).unwrap();
        }
        let mut engine = engine(self.rules);
        let checkpoint = self.checkpoint.clone().filter(|_| !from_log);
        if let Some((_, segments)) = &checkpoint {
            for octets in &self.segments[..*segments] {
                engine.load(&self.rules.0.layout(), octets).unwrap();
            }
        } else {
            self.checkpoint = None;
        }
        self.partition = Partition::new(0, engine, self.decided);
        for (account, state) in &self.published {
            self.partition.load_state(&record(Topic::Accounts, 0, account, state.clone(), BEGIN_MS)).unwrap();
        }
        let from = checkpoint.as_ref().map_or(0, |(covered, _)| covered.events_next);
        if let Some((covered, _)) = checkpoint {
            self.partition.resume(covered);
        }
        let output = self.partition.events(&self.events[from as usize..]).unwrap();
        self.decided = self.events.len() as u64;
        self.publish(&output);
        let mut after = Output::default();
        for command in &self.commands[self.commanded..] {
            after.add(self.partition.command(command));
        }
        self.publish(&after);
        self.commanded = self.commands.len();
    }
}

fn engine((statistics, rules): &(Statistics, Rules)) -> Engine {
    Engine::new(statistics.clone(), rules.clone(), EngineLimits::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_killed_worker_goes_on_as_if_nothing_had_happened(steps in proptest::collection::vec(step(), 1..120)) {
        let statistics = rules().0;
        let timed = RULES.replace("action = \"lock\"", "action = \"lock\"\nfor = \"5s\"");
        let rules = (statistics.clone(), Rules::parse("rules.toml", &timed, &statistics).unwrap());
        let (mut mortal, mut immortal) = (World::new(&rules), World::new(&rules));
        for step in &steps {
            mortal.step(step);
            match step {
                Step::Checkpoint { .. } => immortal.step(&Step::Wait { after_ms: 0 }),
                Step::Kill { with_undecided: false, .. } => {}
                Step::Kill { with_undecided: true, .. } => immortal.step(&Step::Send { account: 0, after_ms: 0 }),
                other => immortal.step(other),
            }
        }
        prop_assert_eq!(&mortal.changes, &immortal.changes);
        prop_assert_eq!(&mortal.published, &immortal.published);
        for account in 0..ACCOUNTS {
            let account = Account::parse(&name(account)).unwrap();
            let columns = |world: &World| world.partition.engine().columns(&account, world.now_ms).unwrap();
            prop_assert_eq!(columns(&mortal), columns(&immortal), "{}", account);
        }
    }
}
