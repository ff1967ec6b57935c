//! All accounts' panes, in memory: found by account, and in the order of their last use.

use super::bands::Bands;
use super::changes::Changes;
use crate::rules::{Room, Variant};
use crate::window::{PaneKey, Window, is_too_old, slot_of};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use tidegate_domain::Account;

/// The end of the list of accounts by last use.
const NONE: u32 = u32::MAX;
/// An account's panes are first rolled up when it has this many.
pub(crate) const ROLL_UP_AT: usize = 32;
/// What a pane takes besides its row: its place in the list and the allocator's share.
const PANE_OVERHEAD: usize = size_of::<Pane>() + 16;
/// What an account takes besides its panes: the entry, its name, and its place in the index.
const ACCOUNT_OVERHEAD: usize = size_of::<Entry>() + 64;

/// Number of an account in the store, valid until the account is removed.
pub(crate) type Id = u32;

/// The state of one pane of one account, as a compact row (see `crate::row`).
#[derive(Debug)]
pub(crate) struct Pane {
    pub key: PaneKey,
    pub row: Box<[u8]>,
}

/// One account.
#[derive(Debug)]
pub(crate) struct Entry {
    /// None: the place is free.
    account: Option<Account>,
    /// Time of its newest event.
    pub newest_ms: i64,
    /// Slot of the last event that came late; 0 for none.
    pub late_slot: u32,
    /// What may be added before a rule can hold; empty: not known.
    pub room: Room,
    /// The variant of the rules that it is the room of.
    pub room_of: Variant,
    /// The newest slot as of which some of it was measured.
    pub room_slot: u32,
    /// Its panes are rolled up when there are this many.
    pub roll_up_at: usize,
    /// Whether [`Changes`] has it.
    is_changed: bool,
    /// What older panes add up to, of a busy account.
    bands: Option<Box<Bands>>,
    /// Sorted by key.
    panes: Vec<Pane>,
    newer: Id,
    older: Id,
}

impl Entry {
    /// Its panes, by key.
    pub fn panes(&self) -> &[Pane] {
        &self.panes
    }
}

/// All accounts. Every change of panes goes through it, so that it knows their number and size.
#[derive(Debug)]
pub(crate) struct Store {
    entries: Vec<Entry>,
    free: Vec<Id>,
    index: HashTable<Id>,
    hasher: DefaultHashBuilder,
    newest: Id,
    oldest: Id,
    panes: usize,
    row_octets: usize,
    /// Where the next sweep begins.
    sweep_from: usize,
    /// The room of an account without any event.
    empty_room: Room,
    changes: Changes,
}

impl Store {
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            newest: NONE,
            oldest: NONE,
            panes: 0,
            row_octets: 0,
            sweep_from: 0,
            empty_room: Room::default(),
            changes: Changes::default(),
        }
    }

    /// Has the room of all accounts measured anew; that of an account without any event is given.
    pub fn reset_rooms(&mut self, empty_room: Room) {
        self.empty_room = empty_room;
        for entry in &mut self.entries {
            (entry.room, entry.room_of) = (Room::default(), 0);
        }
    }

    /// How many accounts it holds.
    pub fn accounts(&self) -> usize {
        self.index.len()
    }

    /// How many panes.
    pub fn panes(&self) -> usize {
        self.panes
    }

    /// About how many octets of memory it takes.
    pub fn octets(&self) -> usize {
        let account = ACCOUNT_OVERHEAD + size_of_val::<[f32]>(&self.empty_room);
        self.row_octets + self.panes * PANE_OVERHEAD + self.index.len() * account
    }

    /// The account's number, if it has any panes.
    pub fn find(&self, account: &Account) -> Option<Id> {
        let hash = self.hasher.hash_one(account);
        self.index.find(hash, |id| self.entries[*id as usize].account.as_ref() == Some(account)).copied()
    }

    /// The account's number; it is added if it is new, and is the most recently used one now.
    pub fn touch(&mut self, account: &Account) -> Id {
        let id = match self.find(account) {
            Some(id) => {
                self.unlink(id);
                id
            }
            None => self.insert(account),
        };
        self.link(id);
        id
    }

    pub fn entry(&self, id: Id) -> &Entry {
        &self.entries[id as usize]
    }

    pub fn entry_mut(&mut self, id: Id) -> &mut Entry {
        &mut self.entries[id as usize]
    }

    /// The slot of its last late event, as long as events from there on would still count.
    pub fn late_slot_of(&self, id: Id) -> Option<u32> {
        let Entry { late_slot, newest_ms, .. } = self.entries[id as usize];
        Some(late_slot).filter(|late| *late != 0 && !is_too_old(*late, slot_of(newest_ms)))
    }

    /// The account's panes, by key.
    pub fn panes_of(&self, id: Id) -> &[Pane] {
        &self.entries[id as usize].panes
    }

    /// The state of one pane, if it has any.
    pub fn row(&self, id: Id, key: PaneKey) -> Option<&[u8]> {
        let panes = self.panes_of(id);
        panes.binary_search_by_key(&key, |pane| pane.key).ok().map(|index| &*panes[index].row)
    }

    /// Stores the state of one pane.
    pub fn put(&mut self, id: Id, key: PaneKey, row: Box<[u8]>) {
        self.note_changed(id);
        if self.bands_of(id).is_some_and(|bands| bands.concern(key)) {
            drop(self.take_bands(id));
        }
        let panes = &mut self.entries[id as usize].panes;
        self.row_octets += row.len();
        match panes.binary_search_by_key(&key, |pane| pane.key) {
            Ok(index) => {
                self.row_octets -= panes[index].row.len();
                panes[index].row = row;
            }
            Err(index) => {
                panes.insert(index, Pane { key, row });
                self.panes += 1;
            }
        }
    }

    /// What older panes of an account add up to, if that is kept.
    pub fn bands_of(&self, id: Id) -> Option<&Bands> {
        self.entries[id as usize].bands.as_deref()
    }

    /// Takes the same, to change it.
    pub fn take_bands(&mut self, id: Id) -> Option<Box<Bands>> {
        let bands = self.entries[id as usize].bands.take();
        self.row_octets -= bands.as_ref().map_or(0, |bands| bands.octets());
        bands
    }

    /// Keeps what older panes of an account add up to.
    pub fn set_bands(&mut self, id: Id, bands: Box<Bands>) {
        drop(self.take_bands(id));
        self.row_octets += bands.octets();
        self.entries[id as usize].bands = Some(bands);
    }

    /// Takes all panes of an account, to put others in their place.
    pub fn take_panes(&mut self, id: Id) -> Vec<Pane> {
        let panes = std::mem::take(&mut self.entries[id as usize].panes);
        self.forget_size(&panes);
        panes
    }

    /// Gives an account other panes, sorted by key, that stand for the same events.
    pub fn set_panes(&mut self, id: Id, panes: Vec<Pane>) {
        self.panes += panes.len();
        self.row_octets += panes.iter().map(|pane| pane.row.len()).sum::<usize>();
        self.entries[id as usize].panes = panes;
    }

    /// Forgets an account.
    pub fn remove(&mut self, id: Id) {
        let Some(account) = self.entries[id as usize].account.take() else { return };
        let hash = self.hasher.hash_one(&account);
        if let Ok(place) = self.index.find_entry(hash, |known| *known == id) {
            place.remove();
        }
        self.unlink(id);
        drop(self.take_bands(id));
        drop(self.take_panes(id));
        self.free.push(id);
        self.changes.note_removed(account);
    }

    /// Has an account as it was written down once; whatever was known of it is forgotten.
    pub fn load(&mut self, account: &Account, newest_ms: i64, late_slot: u32, panes: Vec<Pane>) {
        let id = self.touch(account);
        drop(self.take_bands(id));
        drop(self.take_panes(id));
        self.set_panes(id, panes);
        let entry = &mut self.entries[id as usize];
        (entry.newest_ms, entry.late_slot) = (newest_ms, late_slot);
        (entry.room, entry.room_of, entry.room_slot) = (Room::default(), 0, 0);
    }

    /// Begins to note changes; with `everything` all accounts count as changed.
    pub fn note_changes(&mut self, everything: bool) {
        self.changes.begin(everything);
        if everything {
            for id in 0..self.entries.len() as Id {
                if self.entries[id as usize].account.is_some() {
                    self.note_changed(id);
                }
            }
        }
    }

    /// What it holds is written down already; notes changes from now on.
    pub fn nothing_changed(&mut self) {
        while self.take_changed().is_some() {}
        self.changes.begin(true);
    }

    /// Whether all changes are noted.
    pub fn has_all_changes(&self) -> bool {
        self.changes.is_complete()
    }

    /// The next account that was removed, and perhaps came back since.
    pub fn take_removed(&mut self) -> Option<Account> {
        self.changes.take_removed()
    }

    /// The next account that changed and was not taken yet.
    pub fn take_changed(&mut self) -> Option<(&Account, &Entry)> {
        while let Some(id) = self.changes.take_id() {
            let entry = &mut self.entries[id as usize];
            // The place may be free again, or another's that is noted by itself.
            if std::mem::take(&mut entry.is_changed) && entry.account.is_some() {
                let entry = &self.entries[id as usize];
                return entry.account.as_ref().map(|account| (account, entry));
            }
        }
        None
    }

    /// Forgets the least recently used accounts until at most `most` are left; gives how many it forgot.
    pub fn shrink_to(&mut self, most: usize) -> u64 {
        let mut evicted = 0;
        while self.accounts() > most && self.oldest != NONE {
            self.remove(self.oldest);
            evicted += 1;
        }
        evicted
    }

    /// Drops panes that no window reaches as of `now_ms`, and accounts that have none left. Looks at `most` accounts,
    /// going on where the last call ended.
    pub fn sweep(&mut self, now_ms: i64, most: usize) {
        let now = slot_of(now_ms);
        for _ in 0..most.min(self.entries.len()) {
            if self.sweep_from >= self.entries.len() {
                self.sweep_from = 0;
            }
            let id = self.sweep_from as Id;
            self.sweep_from += 1;
            let entry = &self.entries[id as usize];
            let is_old = |pane: &Pane| pane.key.first_window(&[Window::LONGEST], now.max(pane.key.start)).is_none();
            let all_count = entry.panes.first().is_some_and(|oldest| !is_old(oldest));
            if entry.account.is_none() || all_count {
                continue;
            }
            let mut panes = self.take_panes(id);
            panes.retain(|pane| !is_old(pane));
            if panes.is_empty() {
                self.remove(id);
            } else {
                self.set_panes(id, panes);
            }
        }
    }

    fn insert(&mut self, account: &Account) -> Id {
        let entry = Entry {
            account: Some(account.clone()),
            newest_ms: i64::MIN,
            late_slot: 0,
            room: self.empty_room.clone(),
            room_of: 0,
            room_slot: 0,
            roll_up_at: ROLL_UP_AT,
            is_changed: false,
            bands: None,
            panes: Vec::new(),
            newer: NONE,
            older: NONE,
        };
        let id = if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            id
        } else {
            self.entries.push(entry);
            (self.entries.len() - 1) as Id
        };
        let hash = self.hasher.hash_one(account);
        let Self { index, entries, hasher, .. } = self;
        // Only numbers of accounts are in the index; a free place would hash as 0.
        let hash_of = |id: &Id| entries[*id as usize].account.as_ref().map_or(0, |account| hasher.hash_one(account));
        index.insert_unique(hash, id, hash_of);
        id
    }

    /// Notes that an account changed, if changes are noted.
    pub fn note_changed(&mut self, id: Id) {
        let entry = &mut self.entries[id as usize];
        if !entry.is_changed {
            entry.is_changed = self.changes.note_changed(id);
        }
    }

    fn link(&mut self, id: Id) {
        let second = self.newest;
        self.entries[id as usize].newer = NONE;
        self.entries[id as usize].older = second;
        match second {
            NONE => self.oldest = id,
            second => self.entries[second as usize].newer = id,
        }
        self.newest = id;
    }

    fn unlink(&mut self, id: Id) {
        let Entry { newer, older, .. } = self.entries[id as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    fn forget_size(&mut self, panes: &[Pane]) {
        self.panes -= panes.len();
        self.row_octets -= panes.iter().map(|pane| pane.row.len()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn account(number: u8) -> Account {
        Account::parse(&format!("a{number}@example.org")).unwrap()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put { account: u8, slot: u32, octets: u8 },
        Remove(u8),
        Shrink(u8),
        Sweep { slot: u32, most: u8 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u8..20, 0_u32..60_000, 0_u8..9)
                .prop_map(|(account, slot, octets)| Step::Put { account, slot, octets }),
            1 => (0_u8..20).prop_map(Step::Remove),
            1 => (0_u8..20).prop_map(Step::Shrink),
            1 => (0_u32..60_000, 0_u8..30).prop_map(|(slot, most)| Step::Sweep { slot, most }),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_list_in_order_of_use(steps in proptest::collection::vec(step(), 0..120)) {
            let mut store = Store::new();
            // The model: accounts, least recently used first, with their panes' octets.
            let mut model: Vec<(u8, BTreeMap<u32, usize>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Put { account: number, slot, octets } => {
                        let id = store.touch(&account(number));
                        store.put(id, PaneKey::of_slot(slot), vec![0; octets.into()].into());
                        let known = model.iter().position(|(known, _)| *known == number);
                        let mut entry = known.map_or_else(|| (number, BTreeMap::new()), |index| model.remove(index));
                        entry.1.insert(slot, octets.into());
                        model.push(entry);
                    }
                    Step::Remove(number) => {
                        if let Some(id) = store.find(&account(number)) {
                            store.remove(id);
                        }
                        model.retain(|(known, _)| *known != number);
                    }
                    Step::Shrink(most) => {
                        let excess = model.len().saturating_sub(most.into());
                        model.drain(..excess);
                        prop_assert_eq!(store.shrink_to(most.into()), excess as u64);
                    }
                    Step::Sweep { slot, most } => {
                        store.sweep(i64::from(slot) * 3_000, most.into());
                        let reached = |pane: u32| slot.saturating_sub(pane) <= 28_800;
                        // What may be dropped depends on where the sweep stands; nothing that counts is.
                        for (number, panes) in &mut model {
                            let left: Vec<u32> = store.find(&account(*number)).map_or_else(Vec::new, |id| {
                                store.panes_of(id).iter().map(|pane| pane.key.start).collect()
                            });
                            prop_assert!(panes.keys().all(|pane| !reached(*pane) || left.contains(pane)));
                            panes.retain(|pane, _| left.contains(pane));
                        }
                        model.retain(|(_, panes)| !panes.is_empty());
                    }
                }
                prop_assert_eq!(store.accounts(), model.len());
                prop_assert_eq!(store.panes(), model.iter().map(|(_, panes)| panes.len()).sum::<usize>());
                let octets: usize = model.iter().flat_map(|(_, panes)| panes.values()).sum();
                prop_assert_eq!(store.row_octets, octets);
                for (number, panes) in &model {
                    let id = store.find(&account(*number)).unwrap();
                    let held = store.panes_of(id).iter().map(|pane| (pane.key.start, pane.row.len()));
                    prop_assert_eq!(held.collect::<Vec<_>>(), panes.clone().into_iter().collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_sweep_reaches_every_account() {
        let mut store = Store::new();
        for number in 0..100 {
            let id = store.touch(&account(number));
            store.put(id, PaneKey::of_slot(u32::from(number) * 1_000), Box::default());
        }
        for _ in 0..10 {
            store.sweep(i64::from(99 * 1_000) * 3_000, 10);
        }
        assert_eq!(store.accounts(), 29);
    }
}
