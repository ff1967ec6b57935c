//! Option negotiation: what is asked of the mail server.

use super::{MilterError, command, frame::write_frame};

/// Protocol steps that can be left out, and extensions (`SMFIP_*`).
pub(super) mod protocol {
    /// No command that the server does not know.
    pub const NO_UNKNOWN: u32 = 0x0000_0100;
    /// No end of headers: the first body chunk tells it too.
    pub const NO_END_OF_HEADERS: u32 = 0x0000_0040;
    /// The milter answers no header.
    pub const NO_REPLY_HEADER: u32 = 0x0000_0080;
    /// The milter does not answer the connect command.
    pub const NO_REPLY_CONNECT: u32 = 0x0000_1000;
    /// The milter does not answer HELO.
    pub const NO_REPLY_HELO: u32 = 0x0000_2000;
    /// The milter answers no body chunk.
    pub const NO_REPLY_BODY: u32 = 0x0008_0000;
    /// Header values come with the space behind the colon.
    pub const LEADING_SPACE: u32 = 0x0010_0000;
}

/// Lists of macros may be sent with the options (`SMFIF_SETSYMLIST`), the only action that is asked for.
pub(super) const SET_MACRO_LIST: u32 = 0x0000_0100;
/// Newest version spoken here.
pub(super) const VERSION: u32 = 6;
/// Oldest version spoken here, that of Sendmail 8.11.
const OLDEST_VERSION: u32 = 2;

/// All that is asked for where the server offers it. Without answers to what is never refused the server need not
/// wait for them: a message costs round trips only at MAIL, RCPT, DATA and its end.
const WANTED: u32 = protocol::NO_UNKNOWN
    | protocol::NO_END_OF_HEADERS
    | protocol::NO_REPLY_HEADER
    | protocol::NO_REPLY_CONNECT
    | protocol::NO_REPLY_HELO
    | protocol::NO_REPLY_BODY
    | protocol::LEADING_SPACE;

/// Macros asked for, by stage (`SMFIM_*`). Where a list is missing or refused, the server's own settings hold; the
/// defaults of Postfix and Sendmail carry all of these but the queue id at MAIL and RCPT.
const MACROS: [(u32, &str); 4] = [
    // SMFIM_ENVFROM
    (2, "i {auth_type} {auth_authen} {tls_version}"),
    // SMFIM_ENVRCPT
    (3, "i"),
    // SMFIM_DATA
    (4, "i"),
    // SMFIM_EOM
    (5, "i"),
];

/// What was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub protocol: u32,
}

impl Options {
    pub fn has(self, flag: u32) -> bool {
        self.protocol & flag != 0
    }

    /// Answers the server's offer: version, actions, protocol steps.
    ///
    /// # Errors
    /// When the offer is cut short or of a version that is not spoken here.
    pub fn negotiate(offer: &[u8], out: &mut Vec<u8>) -> Result<Self, MilterError> {
        let word = |at: usize| offer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let (Some(version), Some(actions), Some(steps)) = (word(0), word(4), word(8)) else {
            return Err(MilterError::Options { octets: offer.len() });
        };
        if version < OLDEST_VERSION {
            return Err(MilterError::Version { version });
        }
        let version = version.min(VERSION);
        let actions = actions & SET_MACRO_LIST;
        let protocol = steps & WANTED;
        let mut data = Vec::with_capacity(128);
        for word in [version, actions, protocol] {
            data.extend_from_slice(&word.to_be_bytes());
        }
        if actions & SET_MACRO_LIST != 0 {
            for (stage, names) in MACROS {
                data.extend_from_slice(&stage.to_be_bytes());
                data.extend_from_slice(names.as_bytes());
                data.push(0);
            }
        }
        write_frame(command::OPTIONS, &[&data], out);
        Ok(Self { protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(version: u32, actions: u32, steps: u32) -> (Result<Options, MilterError>, Vec<u8>) {
        let (mut offer, mut out) = (Vec::new(), Vec::new());
        for word in [version, actions, steps] {
            offer.extend_from_slice(&u32::to_be_bytes(word));
        }
        (Options::negotiate(&offer, &mut out), out)
    }

    #[test]
    fn asks_only_for_what_is_offered() {
        // What Postfix 3.7 and Sendmail 8.17 offer.
        let (options, out) = negotiate(6, 0x1ff, 0x1f_ffff);
        assert_eq!(options.unwrap().protocol, WANTED);
        assert_eq!(out[5..17], [0, 0, 0, 6, 0, 0, 1, 0, 0, 0x18, 0x31, 0xc0]);
        assert!(out.ends_with(b"\0\0\0\x05i\0"));
        // An old server: everything is answered.
        let (options, out) = negotiate(2, 0x3f, 0x7f);
        assert_eq!(options.unwrap().protocol, protocol::NO_END_OF_HEADERS);
        assert_eq!(out, [0, 0, 0, 13, b'O', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x40]);
        // A later one: version 6 is what we speak.
        assert_eq!(negotiate(9, u32::MAX, u32::MAX).1[5..9], [0, 0, 0, 6]);
    }

    #[test]
    fn a_broken_offer_is_an_error() {
        assert_eq!(negotiate(1, 0, 0).0, Err(MilterError::Version { version: 1 }));
        assert_eq!(Options::negotiate(&[0; 11], &mut Vec::new()), Err(MilterError::Options { octets: 11 }));
    }
}
