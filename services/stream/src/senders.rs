//! From where accounts sent last, for the people who look at a lock. Nothing is decided by it: after a restart from a
//! checkpoint it begins empty.

use std::collections::HashMap;
use tidegate_domain::{Account, ClientSeen, Submission};

/// Most accounts that are remembered, about: the generations below have at most half of it each.
const MAX_ACCOUNTS: usize = 100_000;
/// Most addresses of one account; the one that was idle longest makes room.
const MAX_CLIENTS: usize = 8;
/// Most subjects of one account that are kept of a batch.
const MAX_SUBJECTS: usize = 5;

/// The last client addresses of the accounts that sent last.
///
/// There are two generations. Who sends is in the newer one; when that is full the older one is forgotten and the newer
/// one takes its place. So an account stays for at least as long as half the bound of others have sent since.
#[derive(Debug)]
pub(crate) struct Senders {
    newer: HashMap<Account, Vec<ClientSeen>>,
    older: HashMap<Account, Vec<ClientSeen>>,
    max_accounts: usize,
    forgotten: u64,
    /// Subjects of the batch that is being read.
    subjects: HashMap<Account, Vec<String>>,
}

impl Default for Senders {
    fn default() -> Self {
        Self::of_at_most(MAX_ACCOUNTS)
    }
}

impl Senders {
    fn of_at_most(max_accounts: usize) -> Self {
        Self { newer: HashMap::new(), older: HashMap::new(), max_accounts, forgotten: 0, subjects: HashMap::new() }
    }

    /// An account sent a message.
    pub fn note(&mut self, account: &Account, at_ms: i64, submission: &Submission) {
        if !submission.is_message() {
            return;
        }
        if !submission.subject.is_empty() {
            note_subject(self.subjects.entry(account.clone()).or_default(), &submission.subject);
        }
        if let Some(address) = submission.client_address {
            let seen = ClientSeen { address, messages: 1, last_ms: at_ms };
            if let Some(clients) = self.newer.get_mut(account) {
                note_client(clients, seen);
            } else {
                let mut clients = self.older.remove(account).unwrap_or_default();
                note_client(&mut clients, seen);
                if self.newer.len() >= self.max_accounts / 2 {
                    self.forgotten += self.older.len() as u64;
                    self.older = std::mem::take(&mut self.newer);
                }
                self.newer.insert(account.clone(), clients);
            }
        }
    }

    /// Its last addresses, the latest first.
    pub fn clients(&self, account: &Account) -> Vec<ClientSeen> {
        let clients = self.newer.get(account).or_else(|| self.older.get(account));
        let mut clients = clients.cloned().unwrap_or_default();
        clients.sort_by_key(|client| (std::cmp::Reverse(client.last_ms), client.address));
        clients
    }

    /// Some subjects of its messages in the batch that is being read.
    pub fn subjects(&self, account: &Account) -> Vec<String> {
        self.subjects.get(account).cloned().unwrap_or_default()
    }

    /// The batch was decided upon.
    pub fn end_batch(&mut self) {
        self.subjects.clear();
    }

    /// A clean slate.
    pub fn forget(&mut self, account: &Account) {
        self.newer.remove(account);
        self.older.remove(account);
        self.subjects.remove(account);
    }

    /// How many accounts made room for others.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

fn note_client(clients: &mut Vec<ClientSeen>, seen: ClientSeen) {
    if let Some(known) = clients.iter_mut().find(|known| known.address == seen.address) {
        known.messages = known.messages.saturating_add(1);
        known.last_ms = known.last_ms.max(seen.last_ms);
        return;
    }
    if clients.len() >= MAX_CLIENTS {
        let idle = clients.iter().enumerate().min_by_key(|(_, client)| (client.last_ms, client.address));
        if let Some((index, _)) = idle {
            clients.swap_remove(index);
        }
    }
    clients.push(seen);
}

fn note_subject(subjects: &mut Vec<String>, subject: &str) {
    if subjects.iter().any(|known| known == subject) {
        return;
    }
    if subjects.len() >= MAX_SUBJECTS {
        subjects.remove(0);
    }
    subjects.push(subject.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::Disposition;

    fn account(number: u8) -> Account {
        Account::parse(&format!("a{number}@example.org")).unwrap()
    }

    fn from(last_octet: u8, subject: &str) -> Submission {
        Submission {
            client_address: Some([192, 0, 2, last_octet].into()),
            subject: subject.to_owned(),
            ..Submission::default()
        }
    }

    fn clients(senders: &Senders, number: u8) -> Vec<(String, u32, i64)> {
        let all = senders.clients(&account(number)).into_iter();
        all.map(|client| (client.address.to_string(), client.messages, client.last_ms)).collect()
    }

    #[test]
    fn the_latest_addresses_are_told_with_their_messages() {
        let mut senders = Senders::default();
        for at_ms in 0..30_i64 {
            senders.note(&account(1), at_ms, &from((at_ms % 3) as u8, ""));
        }
        // A late message, and what is no message.
        senders.note(&account(1), 5, &from(2, ""));
        senders.note(&account(1), 99, &Submission { disposition: Disposition::LateVerdict, ..from(9, "") });
        let expected = [("192.0.2.2", 11, 29), ("192.0.2.1", 10, 28), ("192.0.2.0", 10, 27)];
        assert_eq!(clients(&senders, 1), expected.map(|(address, count, ms)| (address.to_owned(), count, ms)));
        for octet in 10..17 {
            senders.note(&account(1), 100 + i64::from(octet), &from(octet, ""));
        }
        let left: Vec<String> = clients(&senders, 1).into_iter().map(|(address, ..)| address).collect();
        assert_eq!((left.len(), left[7].as_str()), (MAX_CLIENTS, "192.0.2.2"));
        senders.forget(&account(1));
        assert!(clients(&senders, 1).is_empty());
    }

    #[test]
    fn accounts_are_bounded_and_those_that_send_stay() {
        let mut senders = Senders::of_at_most(10);
        for number in 0..100 {
            senders.note(&account(number), number.into(), &from(1, ""));
            senders.note(&account(0), number.into(), &from(1, ""));
            assert!(senders.newer.len() + senders.older.len() <= 10);
        }
        assert_eq!(clients(&senders, 0), [("192.0.2.1".to_owned(), 101, 99)]);
        assert_eq!(clients(&senders, 99).len(), 1);
        assert!(clients(&senders, 50).is_empty() && senders.forgotten() >= 90, "{}", senders.forgotten());
    }

    #[test]
    fn subjects_are_a_sample_of_the_batch() {
        let mut senders = Senders::default();
        for number in 0..20 {
            senders.note(&account(1), 0, &from(1, &format!("Offer {}", number / 2)));
        }
        senders.note(&account(2), 0, &from(1, "Lunch"));
        assert_eq!(senders.subjects(&account(1)), ["Offer 5", "Offer 6", "Offer 7", "Offer 8", "Offer 9"]);
        senders.end_batch();
        assert!(senders.subjects(&account(2)).is_empty() && !senders.clients(&account(2)).is_empty());
    }
}
