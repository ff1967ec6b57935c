//! Writes to the log, within a time.

use std::time::Duration;
use tidegate_bus::{Bus, Message, Place, Topic};
use tidegate_runtime::error_line;

/// How long a write may take before it counts as failed.
const WRITE_WAIT: Duration = Duration::from_secs(10);

/// Writes `messages` and gives their places when they are durable.
///
/// # Errors
/// In words, why they are not known to be written; some of them may still be.
pub async fn append(bus: &dyn Bus, topic: Topic, messages: Vec<Message>) -> Result<Vec<Place>, String> {
    match tokio::time::timeout(WRITE_WAIT, bus.append(topic, messages)).await {
        Ok(Ok(places)) => Ok(places),
        Ok(Err(error)) => Err(error_line(&error)),
        Err(_) => Err(format!("it took more than {} s", WRITE_WAIT.as_secs())),
    }
}
