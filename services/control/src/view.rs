//! What this replica knows: all account states, the rules in force, and who is to be told of a change.

use crate::accounts::{Accounts, Among, Changed, Cursor, Order};
use crate::pushes::Decisions;
use crate::waiters::Waiters;
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_domain::{Account, AccountState, Position};
use tidegate_proto::v1;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Most accounts looked at under one lock.
pub(crate) const SCAN_CHUNK: usize = 4_096;

/// What this replica knows. The feed writes it, everybody else reads.
pub(crate) struct View {
    /// Identity of the log that positions belong to.
    pub log_id: String,
    /// How many partitions each topic has.
    pub partitions: u32,
    /// The states. Locked for short times only.
    pub accounts: RwLock<Accounts>,
    /// Which of them come from traced decisions.
    pub decisions: Decisions,
    /// Actions that wait for an outcome.
    pub waiters: Arc<Waiters<Arc<AccountState>>>,
    /// By the record's key.
    rule_sets: RwLock<BTreeMap<Bytes, v1::RuleSet>>,
    /// By their keys.
    settings: RwLock<BTreeMap<String, v1::Setting>>,
    /// Rises with each change of rule sets or settings.
    rules_version: watch::Sender<u64>,
    /// Rises with each change of the states; edges wait for it.
    version: watch::Sender<u64>,
    changes: broadcast::Sender<Changed>,
    /// Cancelled when the replica is whole.
    ready: CancellationToken,
}

/// One record of the topic `accounts`, decoded.
pub(crate) struct AccountRecord {
    /// Where it stands.
    pub position: Position,
    /// The account.
    pub account: Account,
    /// Its state; none: it was deleted.
    pub state: Option<AccountState>,
}

impl View {
    /// Knows nothing yet; a watch may fall `watch_buffer` changes behind.
    pub fn new(log_id: String, partitions: u32, watch_buffer: usize) -> Self {
        Self {
            log_id,
            partitions,
            accounts: RwLock::default(),
            decisions: Decisions::default(),
            waiters: Arc::default(),
            rule_sets: RwLock::default(),
            settings: RwLock::default(),
            rules_version: watch::Sender::new(0),
            version: watch::Sender::new(0),
            changes: broadcast::Sender::new(watch_buffer),
            ready: CancellationToken::new(),
        }
    }

    /// Applies records, notes what was read up to, and tells everybody who waits.
    pub fn apply(&self, records: Vec<AccountRecord>, read_to: &[(u32, u64)]) {
        let mut changes = Vec::with_capacity(records.len());
        {
            let mut accounts = self.accounts.write();
            for record in records {
                changes.extend(accounts.apply(record.position, &record.account, record.state));
            }
            for (partition, next_offset) in read_to {
                accounts.advance(*partition, *next_offset);
            }
        }
        if changes.is_empty() {
            return;
        }
        for change in changes {
            if let Some(outcome) = &change.after.last_command {
                self.waiters.tell(&outcome.id, || Arc::clone(&change.after));
            }
            if self.changes.receiver_count() > 0 {
                // Nobody may listen any more by now.
                let _ = self.changes.send(change);
            }
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// The rule set under `key`; none: its partition is gone.
    pub fn apply_rules(&self, key: Bytes, rule_set: Option<v1::RuleSet>) {
        let mut rule_sets = self.rule_sets.write();
        match rule_set {
            Some(rule_set) => rule_sets.insert(key, rule_set),
            None => rule_sets.remove(&key),
        };
        drop(rule_sets);
        self.rules_version.send_modify(|version| *version += 1);
    }

    /// The setting under `key`; none: it was taken back.
    pub fn apply_setting(&self, key: String, setting: Option<v1::Setting>) {
        let mut settings = self.settings.write();
        match setting {
            Some(setting) => settings.insert(key, setting),
            None => settings.remove(&key),
        };
        drop(settings);
        self.rules_version.send_modify(|version| *version += 1);
    }

    /// The settings that administrators made, by key.
    pub fn settings(&self) -> Vec<v1::Setting> {
        self.settings.read().values().cloned().collect()
    }

    /// How many settings there are.
    pub fn settings_count(&self) -> usize {
        self.settings.read().len()
    }

    /// Wakes with each change of the rule sets and the settings.
    pub fn rules_versions(&self) -> watch::Receiver<u64> {
        self.rules_version.subscribe()
    }

    /// The rule sets in force, by partition.
    pub fn rule_sets(&self) -> Vec<v1::RuleSet> {
        let mut rule_sets: Vec<_> = self.rule_sets.read().values().cloned().collect();
        rule_sets.sort_by_key(|rule_set| rule_set.partition);
        rule_sets
    }

    /// The account's state; of version 0 when nothing was ever decided about it.
    pub fn state_of(&self, account: &Account) -> Arc<AccountState> {
        let known = self.accounts.read().get(account).cloned();
        known.unwrap_or_else(|| Arc::new(AccountState::new(account.clone())))
    }

    /// Shows `visit` all accounts after `after`, until it answers `false`: a chunk at a time, so that the feed can write
    /// in between.
    pub async fn visit(
        &self,
        among: Among<'_>,
        order: Order,
        after: Option<Cursor>,
        mut visit: impl FnMut(&Account, &Arc<AccountState>) -> bool,
    ) {
        let (mut cursor, mut goes_on) = (after, true);
        loop {
            cursor = self.accounts.read().scan(among, order, cursor.as_ref(), SCAN_CHUNK, |account, state| {
                goes_on = visit(account, state);
                goes_on
            });
            if cursor.is_none() || !goes_on {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Wakes with each change of the states.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Every change from now on; who falls too far behind is told how many were missed.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// All that the topics held at the start has been read.
    pub fn set_ready(&self) {
        self.ready.cancel();
    }

    /// Ends when the replica is whole.
    pub async fn whole(&self) {
        self.ready.cancelled().await;
    }

    /// Whether the replica is whole. What was read in part must not be shown: an edge would take it for everything
    /// and forget its locks.
    ///
    /// # Errors
    /// `UNAVAILABLE` while it is not.
    pub fn ensure_ready(&self) -> Result<(), Status> {
        if self.ready.is_cancelled() {
            return Ok(());
        }
        Err(Status::unavailable("control is still reading the account states; try again in a moment"))
    }
}
