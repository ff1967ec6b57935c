//! Who sends what in the demo: office people, a newsletter, a printer, and a thief.

use super::milter::Mail;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::net::{Ipv4Addr, SocketAddr};

/// The provider's own domains.
pub const DOMAINS: [&str; 3] = ["example.org", "example.net", "mail.example"];
/// The account whose password is stolen.
pub const VICTIM: &str = "erin.hughes@example.org";
/// A person whose password the thief has, too, and only tries out: too little for any rule.
pub const TRIED: u32 = 2;
/// The network of all addresses that the thief sends from.
pub const THIEFS_NETWORK: &str = "203.0.113.0/24";
const NEWSLETTER: &str = "news@example.org";
const PRINTER: &str = "scanner-3@example.net";

const WORDS: [&str; 32] = [
    "meeting", "invoice", "offer", "minutes", "report", "thanks", "tomorrow", "project", "draft", "attached", "budget",
    "question", "order", "delivery", "weekend", "holiday", "contract", "review", "update", "number", "lunch", "train",
    "garden", "school", "doctor", "music", "recipe", "ticket", "travel", "photo", "window", "paper",
];
const FIRST: [&str; 12] =
    ["Anna", "Ben", "Clara", "David", "Eva", "Frank", "Grace", "Hugo", "Iris", "Jonas", "Kim", "Laura"];

/// Makes ordinary messages.
pub struct People {
    random: StdRng,
    accounts: u32,
    made: u64,
}

impl People {
    /// `accounts` people; the same seed gives the same messages.
    pub fn new(accounts: u32, seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), accounts, made: 0 }
    }

    /// The next message of somebody. About one in fifteen is the newsletter's, one in forty the printer's.
    pub fn next(&mut self) -> Mail {
        self.made += 1;
        match self.random.random_range(0..120) {
            0..8 => self.newsletter(),
            8..11 => self.scan(),
            _ => self.letter(),
        }
    }

    fn letter(&mut self) -> Mail {
        let person = self.random.random_range(0..self.accounts);
        let login = login(person);
        // Most mail has one recipient, some a handful, many of them colleagues.
        let count = *[1, 1, 1, 1, 1, 2, 2, 3, 6].choose(&mut self.random).unwrap_or(&1);
        let recipients = (0..count).map(|_| self.recipient()).collect();
        // Sizes of people's mail spread over orders of magnitude.
        let words = (12.0 * self.random.random_range(0.0_f64..5.5).exp()) as usize;
        let subject = self.words(3);
        let mut headers = vec![("Subject", subject), ("X-Mailer", "Thunderbird 140".to_owned())];
        if self.random.random_bool(0.4) {
            headers.push(("In-Reply-To", format!("<{}@example.com>", self.random.random::<u32>())));
        }
        Mail { client: home(person), body: self.words(words.clamp(5, 4000)), headers, recipients, login }
    }

    fn newsletter(&mut self) -> Mail {
        let reader = self.random.random::<u32>();
        Mail {
            login: NEWSLETTER.to_owned(),
            client: SocketAddr::from((Ipv4Addr::new(198, 51, 100, 20), 40_000)),
            recipients: vec![format!("reader{reader}@{}", outside(reader))],
            headers: vec![
                ("Subject", "This month in the garden".to_owned()),
                ("List-Id", "Garden news <news.example.org>".to_owned()),
            ],
            body: format!("Hello reader {reader},\r\n{}\r\n", "What to plant in this month, and where. ".repeat(60)),
        }
    }

    fn scan(&mut self) -> Mail {
        let person = self.random.random_range(0..self.accounts.min(30));
        Mail {
            login: PRINTER.to_owned(),
            client: SocketAddr::from((Ipv4Addr::new(198, 51, 100, 77), 40_001)),
            recipients: vec![login(person)],
            headers: vec![("Subject", format!("Scan {}", self.made))],
            body: "JVBERi0xLjcK".repeat(self.random.random_range(300..9000)),
        }
    }

    fn recipient(&mut self) -> String {
        let number = self.random.random::<u32>();
        if self.random.random_bool(0.5) {
            login(number % self.accounts)
        } else {
            format!("{}{}@{}", FIRST[number as usize % FIRST.len()].to_lowercase(), number % 500, outside(number % 40))
        }
    }

    fn words(&mut self, count: usize) -> String {
        let words: Vec<&str> = (0..count).filter_map(|_| WORDS.choose(&mut self.random).copied()).collect();
        words.join(" ")
    }
}

/// The thief's message number `n`: one template with small changes, to people the owner never wrote to.
pub fn spam(n: u64) -> Mail {
    let name = FIRST[n as usize % FIRST.len()];
    Mail {
        login: VICTIM.to_owned(),
        client: SocketAddr::from((Ipv4Addr::new(203, 0, 113, 10 + (n % 3) as u8), 50_000)),
        recipients: vec![format!("{}{n}@{}", name.to_lowercase(), outside(n as u32))],
        headers: vec![("Subject", format!("Your parcel {} is waiting", 100_000 + n))],
        body: format!(
            "Dear {name},\r\n\r\nyour parcel could not be delivered. Pay the fee of 2.{:02} EUR within 24 hours:\r\n\
             https://parcel-service.example/pay/{n:x}\r\n\r\nYour parcel service\r\n",
            n % 100
        ),
    }
}

/// The thief's message number `n` with another account, to a mailbox of the thief's own.
pub fn trial(n: u64) -> Mail {
    Mail {
        login: login(TRIED),
        client: SocketAddr::from((Ipv4Addr::new(203, 0, 113, 11), 50_001)),
        recipients: vec![format!("drop{n}@{}", outside(7))],
        headers: vec![("Subject", "test".to_owned())],
        body: format!("{n}\r\n"),
    }
}

/// A message that the victim writes after the password was changed.
pub fn own_letter(n: u64) -> Mail {
    Mail {
        login: VICTIM.to_owned(),
        client: home(0),
        recipients: vec![login(7)],
        headers: vec![("Subject", "I am back".to_owned())],
        body: format!("Dear colleague,\r\n\r\nthe help desk has unlocked my account. Note {n}.\r\n\r\nErin\r\n"),
    }
}

/// The login of a person.
pub fn login(person: u32) -> String {
    let first = FIRST[person as usize % FIRST.len()].to_lowercase();
    format!("{first}.{person}@{}", DOMAINS[person as usize % DOMAINS.len()])
}

fn outside(number: u32) -> String {
    format!("host{}.example.com", number % 997)
}

/// A person's own address: one of a carrier's, always the same.
fn home(person: u32) -> SocketAddr {
    let [_, a, b, c] = person.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(100, 64 + (a & 0x3f), b, c), 40_000))
}
