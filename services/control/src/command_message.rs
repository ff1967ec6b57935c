//! Commands as they are written to the log.

use bytes::Bytes;
use prost::Message as _;
use tidegate_bus::Message;
use tidegate_proto::v1;

/// The message that `command` is written as: under its account.
pub(crate) fn command_message(command: &v1::Command) -> Message {
    let key = Bytes::copy_from_slice(command.account.as_bytes());
    Message::new(key, Some(command.encode_to_vec().into()))
}
