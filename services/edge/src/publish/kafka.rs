//! Publishing straight to Kafka, which may not be there when the edge starts.

use async_trait::async_trait;
use std::time::Duration;
use tidegate_bus::{BusError, BusPublisher, KafkaBus, KafkaConfig, Published, Publisher};
use tidegate_proto::v1;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tokio::sync::watch;

const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Publishes to Kafka once it is connected. Until then publishing waits, as it does for brokers that are slow; whoever
/// publishes has a time limit.
pub(crate) struct KafkaPublisher {
    connected: watch::Receiver<Option<BusPublisher>>,
}

impl KafkaPublisher {
    /// Begins to connect, again and again until it is done or this is dropped. It never makes topics: that is for
    /// those who own the log, not for a mail host that may be set up wrongly.
    pub fn new(config: KafkaConfig, max_backoff: Duration) -> Self {
        let config = KafkaConfig { create_topics: false, ..config };
        let (connection, connected) = watch::channel(None);
        tokio::spawn(async move {
            tokio::select! {
                () = connection.closed() => {}
                () = connect(&config, max_backoff, &connection) => {}
            }
        });
        Self { connected }
    }
}

async fn connect(config: &KafkaConfig, max_backoff: Duration, connection: &watch::Sender<Option<BusPublisher>>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, max_backoff);
    loop {
        match KafkaBus::connect(config.clone()).await {
            Ok(bus) => {
                connection.send_replace(Some(BusPublisher::new(bus)));
                return;
            }
            Err(error) => {
                tracing::warn!(error = error_line(&error), "cannot connect to Kafka; events go to the spool");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, events: Vec<v1::Event>) -> Result<Published, BusError> {
        let mut connected = self.connected.clone();
        let publisher = match connected.wait_for(Option::is_some).await {
            Ok(publisher) => publisher.clone(),
            Err(_) => None,
        };
        match publisher {
            Some(publisher) => publisher.publish(events).await,
            None => Err(BusError::Closed { doing: "connecting to Kafka".to_owned() }),
        }
    }
}
