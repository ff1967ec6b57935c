//! Which accounts changed, so that they can be written down without looking at all.

use super::store::Id;
use tidegate_domain::Account;

/// Most removed accounts that are noted. More come together only when nobody takes them.
const MAX_REMOVED: usize = 100_000;

/// Accounts that changed, and accounts that were removed, since they were last taken. Nothing is noted before
/// [`Changes::begin`].
#[derive(Debug, Default)]
pub(crate) struct Changes {
    is_noting: bool,
    /// Each once while its entry says so; a place that was freed and taken again may stand here twice.
    ids: Vec<Id>,
    removed: Vec<Account>,
    /// Some could not be noted: only everything is complete.
    is_lost: bool,
}

impl Changes {
    /// Begins to note; what was removed so far does not matter when `everything` will be taken.
    pub fn begin(&mut self, everything: bool) {
        (self.is_noting, self.is_lost) = (true, false);
        if everything {
            self.removed.clear();
        }
    }

    /// Whether everything that changed since the last [`Changes::begin`] is noted.
    pub fn is_complete(&self) -> bool {
        self.is_noting && !self.is_lost
    }

    /// Gives whether it was noted.
    pub fn note_changed(&mut self, id: Id) -> bool {
        if self.is_noting {
            self.ids.push(id);
        }
        self.is_noting
    }

    pub fn note_removed(&mut self, account: Account) {
        if self.is_noting {
            self.is_lost |= self.removed.len() >= MAX_REMOVED;
            if !self.is_lost {
                self.removed.push(account);
            }
        }
    }

    pub fn take_id(&mut self) -> Option<Id> {
        self.ids.pop()
    }

    pub fn take_removed(&mut self) -> Option<Account> {
        self.removed.pop()
    }
}
