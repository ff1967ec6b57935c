//! Lets a notification on the dead-letter list be sent once more.

use crate::take_over::decode;
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;
use tidegate_bus::{Bus, BusError, Message, ReadFrom, Topic};
use tidegate_proto::{NotRetried, notification_key, retried, v1};

/// Why a notification is not sent once more.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The log cannot be read or written.
    #[error("looking for the notification in the log")]
    Bus(#[from] BusError),
    /// There is none.
    #[error("there is no notification {id:?}; `tidegate notify dead` lists those that can be sent once more")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// It is not dead.
    #[error(transparent)]
    NotDead(#[from] NotRetried),
}

/// Writes the record that lets the dead notification `id` be sent once more by whoever owns its partition.
///
/// # Errors
/// When the log cannot be reached, or there is no such notification among the dead.
pub async fn retry(bus: &dyn Bus, id: &str, now_ms: i64) -> Result<v1::Notification, RetryError> {
    let mut newest = None;
    for partition in 0..bus.partitions() {
        let bounds = bus.bounds(Topic::Notifications, partition).await?;
        let mut at = ReadFrom { topic: Topic::Notifications, partition, offset: bounds.first };
        let mut reader = bus.read(&[at]).await?;
        while at.offset < bounds.next {
            let batch = reader.next(Duration::from_millis(500)).await?;
            let all = batch.records.iter().filter_map(decode).filter(|found| found.id == id);
            newest = all.last().or(newest);
            if let Some(next) = batch.next.last() {
                at.offset = next.offset;
            }
        }
    }
    let dead = newest.ok_or_else(|| RetryError::Unknown { id: id.to_owned() })?;
    let again = retried(&dead, now_ms)?;
    let message = Message::new(Bytes::from(notification_key(&again)), Some(again.encode_to_vec().into()));
    bus.append(Topic::Notifications, vec![message]).await?;
    Ok(again)
}
