//! Windows, and the panes of time that they share.
//!
//! Time is cut into slots of [`SLOT_MS`]. A pane is a run of slots, aligned to its tier's length. An event goes
//! into the pane of one slot; as panes grow old they are rolled up into the next tier's longer ones, but only when
//! no window that wants finer ones can reach them any more.

/// The shortest pane, in milliseconds.
pub(crate) const SLOT_MS: i64 = 3_000;
/// Length of each tier's panes, in slots: 3 s, 15 s, 1 min, 15 min, 1 h. Each divides the next.
pub(crate) const TIER_SLOTS: [u32; 5] = [1, 5, 20, 300, 1_200];
/// The last slot that is reckoned with (about the year 2378); the rest leaves room to add without overflow.
const MAX_SLOT: u32 = u32::MAX - 1_000_000;

/// The span that a statistic covers, e.g. `15m` in `messages_15m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window(u8);

/// All windows, shortest first.
pub const WINDOWS: [Window; 6] = [Window(0), Window(1), Window(2), Window(3), Window(4), Window(5)];

const NAMES: [&str; 6] = ["1m", "5m", "15m", "1h", "6h", "24h"];
const SPAN_SLOTS: [u32; 6] = [20, 100, 300, 1_200, 7_200, 28_800];
/// The coarsest tier whose panes a window counts.
const TIER_OF_WINDOW: [u8; 6] = [0, 1, 2, 2, 3, 4];

impl Window {
    /// The longest one.
    pub const LONGEST: Self = Self(5);

    /// Name as in a column: `1m`, `5m`, `15m`, `1h`, `6h` or `24h`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// Length in milliseconds.
    pub fn span_ms(self) -> i64 {
        i64::from(self.span_slots()) * SLOT_MS
    }

    /// By how much it may count too far back, in milliseconds: the length of its oldest pane.
    pub fn pane_ms(self) -> i64 {
        i64::from(TIER_SLOTS[usize::from(self.tier())]) * SLOT_MS
    }

    pub(crate) fn span_slots(self) -> u32 {
        SPAN_SLOTS[usize::from(self.0)]
    }

    pub(crate) fn tier(self) -> u8 {
        TIER_OF_WINDOW[usize::from(self.0)]
    }
}

/// The slot of a time. Times before 1970 and absurdly far ones are clamped.
pub(crate) fn slot_of(at_ms: i64) -> u32 {
    u32::try_from(at_ms.div_euclid(SLOT_MS).max(0)).unwrap_or(MAX_SLOT).min(MAX_SLOT)
}

/// A pane's place in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PaneKey {
    /// Its first slot.
    pub start: u32,
    /// Its tier: an index of [`TIER_SLOTS`].
    pub tier: u8,
}

impl PaneKey {
    /// The pane of one slot.
    pub fn of_slot(slot: u32) -> Self {
        Self { start: slot, tier: 0 }
    }

    /// The pane of a tier that begins at a slot, if there is one.
    pub fn checked(start: u32, tier: u8) -> Option<Self> {
        let length = TIER_SLOTS.get(usize::from(tier))?;
        (start <= MAX_SLOT && start.is_multiple_of(*length)).then_some(Self { start, tier })
    }

    /// The slot after its last.
    pub fn end(self) -> u32 {
        self.start + TIER_SLOTS[usize::from(self.tier)]
    }

    /// The shortest of `windows` (sorted, shortest first) that counts it as of slot `as_of`. All longer ones do too.
    ///
    /// A pane longer than the window's own panes is not counted: that happens only as of a time that is older than
    /// the account's newest, whose panes have been rolled up since. Its events were judged when they came.
    pub fn first_window(self, windows: &[Window], as_of: u32) -> Option<usize> {
        if self.start > as_of {
            return None;
        }
        let age = as_of.saturating_sub(self.end() - 1);
        windows.iter().position(|window| age <= window.span_slots() && self.tier <= window.tier())
    }

    /// Whether `window` as of slot `as_of` reaches it, also where it is longer than the window's own panes: good enough
    /// to be looked at, not to decide by.
    pub fn overlaps(self, window: Window, as_of: u32) -> bool {
        self.start <= as_of && reaches(window, self.end(), as_of)
    }

    /// The pane that it belongs to when the account's newest slot is `newest`; none when it is out of every window.
    ///
    /// `late` is the slot of the account's last late event, if one came lately: more may follow it, and they are
    /// judged as of their own time, so what windows that end there reach stays fine enough for them too.
    pub fn rolled_up(self, newest: u32, late: Option<u32>) -> Option<Self> {
        let is_reached = |window: Window, pane: Self| {
            let by_late = |late: u32| pane.start <= late && reaches(window, pane.end(), late);
            reaches(window, pane.end(), newest) || late.is_some_and(by_late)
        };
        if !is_reached(Window::LONGEST, self) {
            return None;
        }
        // A tier is coarse enough for what no window with finer panes reaches.
        let finer_window = [None, Some(WINDOWS[0]), Some(WINDOWS[1]), Some(WINDOWS[3]), Some(WINDOWS[4])];
        let mut best = self;
        for tier in (self.tier + 1)..TIER_SLOTS.len() as u8 {
            let length = TIER_SLOTS[usize::from(tier)];
            let parent = Self { start: self.start - self.start % length, tier };
            match finer_window[usize::from(tier)] {
                Some(window) if !is_reached(window, parent) => best = parent,
                _ => break,
            }
        }
        Some(best)
    }
}

/// Whether `window` as of slot `newest` reaches back to a pane that ends before slot `end`.
fn reaches(window: Window, end: u32, newest: u32) -> bool {
    newest.saturating_sub(end - 1) <= window.span_slots()
}

/// Whether an event of slot `slot` is too old to count in any window as of slot `newest`.
pub(crate) fn is_too_old(slot: u32, newest: u32) -> bool {
    !reaches(Window::LONGEST, slot + TIER_SLOTS[usize::from(Window::LONGEST.tier())], newest)
}

/// Whether an event of slot `slot` is late: rules are evaluated as of its own time, apart from the newest.
pub(crate) fn is_late(slot: u32, newest: u32) -> bool {
    !reaches(WINDOWS[0], slot + 1, newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_window_says_its_pane() {
        let panes: Vec<_> = WINDOWS.iter().map(|window| (window.name(), window.span_ms(), window.pane_ms())).collect();
        let minute = 60_000;
        assert_eq!(
            panes,
            [
                ("1m", minute, 3_000),
                ("5m", 5 * minute, 15_000),
                ("15m", 15 * minute, minute),
                ("1h", 60 * minute, minute),
                ("6h", 360 * minute, 15 * minute),
                ("24h", 1440 * minute, 60 * minute),
            ]
        );
    }

    #[test]
    fn absurd_times_are_clamped() {
        assert_eq!(slot_of(i64::MIN), 0);
        assert_eq!(slot_of(-1), 0);
        assert_eq!(slot_of(i64::MAX), MAX_SLOT);
        assert!(PaneKey { start: MAX_SLOT, tier: 4 }.end() > MAX_SLOT);
    }

    proptest! {
        #[test]
        fn a_rolled_up_pane_holds_its_slot_and_is_fine_enough_for_every_window(
            newest in 0_u32..2_000_000,
            age in 0_u32..40_000,
        ) {
            let slot = newest.saturating_sub(age);
            match PaneKey::of_slot(slot).rolled_up(newest, None) {
                None => prop_assert!(newest - slot > Window::LONGEST.span_slots()),
                Some(pane) => {
                    prop_assert!(pane.start <= slot && slot < pane.end());
                    for window in WINDOWS {
                        if newest - slot <= window.span_slots() {
                            prop_assert!(pane.tier <= window.tier(), "{} {pane:?}", window.name());
                        }
                    }
                    // Rolling up again later gives the same pane as rolling up once.
                    let later = newest + 5_000;
                    if let Some(at_once) = PaneKey::of_slot(slot).rolled_up(later, None) {
                        prop_assert_eq!(pane.rolled_up(later, None), Some(at_once));
                    }
                }
            }
        }

        #[test]
        fn what_a_late_event_reaches_stays_fine_and_panes_stay_in_order(
            newest in 100_000_u32..200_000,
            late_age in 0_u32..28_800,
            ages in proptest::collection::btree_set(0_u32..60_000, 1..60),
        ) {
            let late = newest - late_age;
            let mut last: Option<PaneKey> = None;
            for slot in ages.into_iter().rev().map(|age| newest - age) {
                let pane = PaneKey::of_slot(slot).rolled_up(newest, Some(late));
                for window in WINDOWS.into_iter().filter(|window| slot <= late && late - slot <= window.span_slots()) {
                    prop_assert!(pane.is_some_and(|pane| pane.tier <= window.tier()), "{} {pane:?}", window.name());
                }
                if let Some(pane) = pane {
                    prop_assert!(last.is_none_or(|last| last == pane || last.end() <= pane.start), "{last:?} {pane:?}");
                    last = Some(pane);
                }
            }
        }
    }
}
