//! What every log takes, so that a message that one takes is not refused by another.

use crate::{BusError, Message, Topic, partition_of};

/// Key and value of a message together, at most. Kafka's default for a whole batch is 1,048,588 bytes.
pub const MESSAGE_MAX_BYTES: usize = 900_000;

/// Records that a reader gives at once, at most.
pub const BATCH_MAX_RECORDS: usize = 5_000;

/// Bytes of keys and values that a reader gives at once, about.
pub const BATCH_MAX_BYTES: usize = 4 << 20;

/// What is handed to the log in one piece, at most; appending more takes several.
const PART_MAX_MESSAGES: usize = 4_096;
const PART_MAX_BYTES: usize = 4 << 20;

/// Checks messages for one topic before any of them is written.
///
/// # Errors
/// [`BusError::Message`] when one is too large, has no key, or has an empty value: a log must be able to tell a
/// value from its absence.
pub(crate) fn check(topic: &str, messages: &[Message]) -> Result<(), BusError> {
    messages.iter().try_for_each(|message| check_one(topic, message))
}

/// Checks what the owner of `owned` is to write.
///
/// # Errors
/// As [`check`], and when a key belongs to another partition.
pub(crate) fn check_owned(messages: &[(Topic, Message)], owned: u32, partitions: u32) -> Result<(), BusError> {
    for (topic, message) in messages {
        check_one(topic.suffix(), message)?;
        let partition = partition_of(&message.key, partitions);
        if partition != owned {
            let key = String::from_utf8_lossy(&message.key);
            let problem = format!("key {key:?} belongs to partition {partition}, not to {owned}, which is owned here");
            return Err(BusError::Message { topic: topic.suffix().to_owned(), problem });
        }
    }
    Ok(())
}

/// Checks that a partition exists.
///
/// # Errors
/// [`BusError::Topic`] when it does not.
pub(crate) fn check_partition(topic: &str, partition: u32, partitions: u32) -> Result<(), BusError> {
    if partition < partitions {
        return Ok(());
    }
    let problem = format!("there is no partition {partition}, only 0 to {}", partitions.saturating_sub(1));
    Err(BusError::Topic { topic: topic.to_owned(), problem })
}

/// Cuts what is to be written into pieces that the log takes one by one.
pub(crate) fn split(messages: Vec<Message>) -> Vec<Vec<Message>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for message in messages {
        let size = size(&message);
        if part.len() == PART_MAX_MESSAGES || (bytes + size > PART_MAX_BYTES && !part.is_empty()) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(message);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Key and value together, in bytes.
pub(crate) fn size(message: &Message) -> usize {
    message.key.len() + message.value.as_ref().map_or(0, bytes::Bytes::len)
}

fn check_one(topic: &str, message: &Message) -> Result<(), BusError> {
    let refuse = |problem| Err(BusError::Message { topic: topic.to_owned(), problem });
    let bytes = size(message);
    if bytes > MESSAGE_MAX_BYTES {
        return refuse(format!("a message of {bytes} bytes is over the limit of {MESSAGE_MAX_BYTES}"));
    }
    if message.key.is_empty() {
        return refuse("a message has no key, which decides its partition".to_owned());
    }
    if message.value.as_ref().is_some_and(bytes::Bytes::is_empty) {
        return refuse("a message has an empty value; give none to delete its key".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(value_bytes: usize) -> Message {
        Message::new(Bytes::from_static(b"k"), Some(vec![7; value_bytes].into()))
    }

    #[test]
    fn refuses_what_a_log_could_not_keep() {
        assert!(check("events", &[message(1), message(MESSAGE_MAX_BYTES - 1)]).is_ok());
        let error = check("events", &[message(1), message(MESSAGE_MAX_BYTES)]).unwrap_err().to_string();
        assert_eq!(error, "cannot write to events: a message of 900001 bytes is over the limit of 900000");
        assert!(check("events", &[message(0)]).unwrap_err().to_string().contains("empty value"));
        let no_key = Message::new(Bytes::new(), None);
        assert!(check("events", &[no_key]).unwrap_err().to_string().contains("no key"));
    }

    #[test]
    fn an_owner_writes_its_own_keys_only() {
        let owned = partition_of(b"k", 8);
        assert!(check_owned(&[(Topic::Accounts, message(1))], owned, 8).is_ok());
        let error = check_owned(&[(Topic::Accounts, message(1))], (owned + 1) % 8, 8).unwrap_err().to_string();
        assert!(error.contains(&format!("belongs to partition {owned}")), "{error}");
    }

    #[test]
    fn splits_by_count_and_by_bytes_and_keeps_the_order() {
        let parts = split((0..10_000).map(|_| message(1)).collect());
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [4_096, 4_096, 1_808]);
        let parts = split((0..6).map(|_| message(MESSAGE_MAX_BYTES - 1)).collect());
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [4, 2]);
        assert!(split(Vec::new()).is_empty());
    }
}
