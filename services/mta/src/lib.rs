#![cfg_attr(test, allow(clippy::unwrap_used))]
//! Sans-IO sessions of mail servers: bytes in, replies and submissions out.
//!
//! - [`milter`]: the milter protocol (Postfix `smtpd_milters`, Sendmail), and its client side for tests and generators.
//! - [`policy`]: Postfix policy delegation, which Exim can speak too.
//! - [`rspamd`]: what rspamd's metadata exporter posts.
//! - [`VerdictJoiner`]: joins messages and filter verdicts, so that each message counts as spam once.
//!
//! Sessions ask a [`Gate`] what is in force for an account now, and give one [`Submitted`] per message. Nothing
//! here opens a socket, reads a clock or waits; times are arguments in milliseconds since 1970 UTC. Everything
//! kept is bounded, and no input makes anything panic.

mod base64;
mod content;
mod encoded_word;
mod expiring;
mod gate;
mod headers;
mod keyed_hash;
pub mod milter;
mod network;
mod origin;
pub mod policy;
mod recipients;
pub mod rspamd;
mod settings;
mod spam;
mod submitted;
mod verdict_joiner;

pub use content::Fingerprinter;
pub use encoded_word::decode_words;
pub use gate::{Gate, Refusal, Stage, Verdict};
pub use keyed_hash::KeyedHash;
pub use network::{Network, NetworkError, Networks};
pub use settings::{Problem, RefuseAt, SessionConfig, SessionSettings};
pub use spam::{SpamHeader, SpamSigns};
pub use submitted::{Ignored, SessionEvent, Submitted};
pub use verdict_joiner::{VerdictJoiner, VerdictJoinerConfig, VerdictJoinerStats};
