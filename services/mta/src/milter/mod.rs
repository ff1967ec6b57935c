//! The milter protocol (version 2 to 6), as Postfix and Sendmail speak it.
//!
//! A packet is a length (32 bits, big endian), a command octet, and data. The protocol has no specification but
//! Sendmail's libmilter (`mfdef.h`) and Postfix's reading of it; the names below are theirs.

pub mod client;
mod frame;
mod options;
mod session;
mod transaction;

pub use session::{Flow, MilterError, MilterSession};

/// What a mail server sends.
mod command {
    pub const ABORT: u8 = b'A';
    pub const BODY: u8 = b'B';
    pub const CONNECT: u8 = b'C';
    pub const MACROS: u8 = b'D';
    pub const END_OF_MESSAGE: u8 = b'E';
    pub const HELO: u8 = b'H';
    pub const QUIT_NEW_CONNECTION: u8 = b'K';
    pub const HEADER: u8 = b'L';
    pub const MAIL: u8 = b'M';
    pub const END_OF_HEADERS: u8 = b'N';
    pub const OPTIONS: u8 = b'O';
    pub const QUIT: u8 = b'Q';
    pub const RECIPIENT: u8 = b'R';
    pub const DATA: u8 = b'T';
    pub const UNKNOWN: u8 = b'U';
}

/// What a milter answers.
mod reply {
    pub const ACCEPT: u8 = b'a';
    pub const CONTINUE: u8 = b'c';
    pub const DISCARD: u8 = b'd';
    pub const REJECT: u8 = b'r';
    pub const REPLY_CODE: u8 = b'y';
    pub const TEMPORARY_FAILURE: u8 = b't';
}
