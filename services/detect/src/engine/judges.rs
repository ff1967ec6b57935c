//! By which variant of the rules each account of a batch is judged. Most installations have one variant only.

use super::store::{Entry, Id, Store};
use crate::event::EventBatch;
use crate::rules::{Gates, Variant, Variants};
use tidegate_domain::Account;

/// What an account has whose variant changes within a batch: no variant's room.
pub(super) const NO_VARIANT: Variant = Variant::MAX;

/// The variants of a batch's accounts.
pub(super) struct Judges<'a> {
    variants: &'a Variants,
    /// For each account of the batch; empty when all are judged alike.
    of: Vec<Judge>,
}

#[derive(Debug, Clone, Copy)]
struct Judge {
    usual: Variant,
    on_probation: Variant,
    /// Before this time it is on probation.
    until_ms: i64,
    /// Its first event of the batch.
    first_ms: i64,
}

impl<'a> Judges<'a> {
    /// Those of a batch, whose accounts are on probation until the given times.
    pub fn new(
        variants: &'a Variants,
        batch: &EventBatch,
        probation_until_ms: impl Fn(&Account) -> Option<i64>,
    ) -> Self {
        if variants.is_one() {
            return Self { variants, of: Vec::new() };
        }
        let judge = |account: &Account| Judge {
            usual: variants.of(account, false),
            on_probation: variants.of(account, true),
            until_ms: Some(account)
                .filter(|_| variants.has_probation())
                .and_then(&probation_until_ms)
                .unwrap_or(i64::MIN),
            first_ms: i64::MAX,
        };
        let mut of: Vec<Judge> = batch.accounts.iter().map(judge).collect();
        for (account, at_ms) in batch.account_of.iter().zip(&batch.times_ms) {
            let judge = &mut of[*account as usize];
            judge.first_ms = judge.first_ms.min(*at_ms);
        }
        Self { variants, of }
    }

    /// The variant that judges an account of the batch as of a time.
    pub fn at(&self, account: u32, at_ms: i64) -> Variant {
        match self.of.get(account as usize) {
            Some(judge) if at_ms < judge.until_ms => judge.on_probation,
            Some(judge) => judge.usual,
            None => 0,
        }
    }

    /// The one variant that judges all of an account's events of the batch, also as of its newest time. None when
    /// probation ends between them.
    fn throughout(&self, account: usize, newest_ms: i64) -> Option<Variant> {
        let Some(judge) = self.of.get(account) else { return Some(0) };
        if newest_ms < judge.until_ms || judge.usual == judge.on_probation {
            Some(judge.on_probation)
        } else {
            (judge.first_ms >= judge.until_ms).then_some(judge.usual)
        }
    }

    /// Makes sure that the room of an account is that of its variant, which is given.
    pub fn prepare(&self, store: &mut Store, account: usize, id: Id) -> Variant {
        let entry = store.entry_mut(id);
        let variant = self.throughout(account, entry.newest_ms).unwrap_or(NO_VARIANT);
        if entry.room_of != variant {
            (entry.room, entry.room_of) = (Box::default(), variant);
        }
        variant
    }

    /// Whether a rule may hold for an account, as far as its room tells.
    pub fn is_due(&self, entry: &Entry) -> bool {
        entry.room_of == NO_VARIANT || self.gates(entry.room_of).is_due(&entry.room)
    }

    /// A variant's gates.
    pub fn gates(&self, variant: Variant) -> &'a Gates {
        &self.variants.plan(if variant == NO_VARIANT { 0 } else { variant }).gates
    }
}
