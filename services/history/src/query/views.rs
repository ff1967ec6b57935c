//! Ready-made views.

/// A view of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// What it tells, in a sentence.
    pub meaning: &'static str,
    /// Its query over the tables.
    pub sql: &'static str,
}

impl View {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self {
            name: "account_timeline",
            meaning: "All that is known of an account, in one list: its messages and logins, decisions, and who asked what.",
            sql: include_str!("views/account_timeline.sql"),
        },
        Self {
            name: "locks",
            meaning: "Each lock: why, since when, how long, from which addresses was sent, who unlocked it and on what grounds.",
            sql: include_str!("views/locks.sql"),
        },
        Self {
            name: "top_senders",
            meaning: "What each account sent each day: messages, recipients, octets, client addresses, spam.",
            sql: include_str!("views/top_senders.sql"),
        },
        Self {
            name: "address_overlap",
            meaning: "Accounts that sent from the same client address on the same day, in pairs.",
            sql: include_str!("views/address_overlap.sql"),
        },
    ];

    /// The view of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        static ALL: [View; 4] = View::ALL;
        ALL.iter().find(|view| view.name == name)
    }
}
