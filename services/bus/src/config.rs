//! Which log an installation has.

use crate::{Bus, BusError, EmbeddedBus, EmbeddedConfig, KafkaBus, KafkaConfig};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidegate_runtime::{Problems, Validate};

/// Which log an installation has: `kind = "embedded"` with the keys of [`EmbeddedConfig`], or `kind = "kafka"` with
/// those of [`KafkaConfig`].
///
/// ```
/// # use tidegate_bus::{BusConfig, EmbeddedConfig};
/// let config: BusConfig = toml::from_str(r#"
///     kind = "kafka"
///     bootstrap_servers = "kafka-1:9092,kafka-2:9092"
///     partitions = 24
///     replication_factor = 3
///     properties = { "security.protocol" = "ssl", "ssl.ca.location" = "/etc/tidegate/kafka-ca.pem" }
/// "#)?;
/// assert!(matches!(config, BusConfig::Kafka(kafka) if kafka.partitions == 24 && kafka.topic_prefix == "tidegate"));
///
/// let config: BusConfig = toml::from_str(r#"
///     kind = "embedded"
///     directory = "/var/lib/tidegate/log"
///     events_max_age_s = 172800
/// "#)?;
/// assert!(matches!(config, BusConfig::Embedded(EmbeddedConfig { events_max_age_s: 172_800, .. })));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BusConfig {
    /// The log of one process, on its disk.
    Embedded(EmbeddedConfig),
    /// Kafka, for any number of processes.
    Kafka(KafkaConfig),
}

impl BusConfig {
    /// Opens or connects to the log. It must be called on a tokio runtime. An embedded log is maintained in the
    /// background for as long as it is used.
    ///
    /// # Errors
    /// As for [`EmbeddedBus::open`] and [`KafkaBus::connect`].
    pub async fn connect(&self) -> Result<Arc<dyn Bus>, BusError> {
        match self {
            Self::Embedded(config) => {
                let opening = config.clone();
                let opened = tokio::task::spawn_blocking(move || EmbeddedBus::open(opening)).await;
                let doing = || format!("opening {}", config.directory.display());
                let bus = opened.map_err(|_| BusError::Closed { doing: doing() })??;
                bus.maintain_while_in_use();
                Ok(bus)
            }
            Self::Kafka(config) => Ok(KafkaBus::connect(config.clone()).await?),
        }
    }
}

impl Default for BusConfig {
    fn default() -> Self {
        Self::Embedded(EmbeddedConfig::default())
    }
}

impl Validate for BusConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        match self {
            Self::Embedded(config) => config.validate(path, problems),
            Self::Kafka(config) => config.validate(path, problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, Topic};

    #[test]
    fn unknown_keys_and_kinds_are_refused() {
        let error = |text: &str| toml::from_str::<BusConfig>(text).unwrap_err().to_string();
        assert!(error("kind = 'kafka'\npartitoins = 3").contains("unknown field `partitoins`"));
        assert!(error("kind = 'embedded'\ntopic_prefix = 'x'").contains("unknown field `topic_prefix`"));
        assert!(error("kind = 'nats'").contains("unknown variant `nats`"));
        assert!(error("partitions = 3").contains("missing field `kind`"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for config in [BusConfig::default(), BusConfig::Kafka(KafkaConfig::default())] {
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<BusConfig>(&text).unwrap(), config, "{text}");
        }
    }

    #[tokio::test]
    async fn connects_to_an_embedded_log_and_maintains_it() {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig {
            directory: directory.path().to_owned(),
            events_max_age_s: 1,
            maintain_interval_ms: 10,
            ..EmbeddedConfig::default()
        };
        let bus = BusConfig::Embedded(config).connect().await.unwrap();
        let message = Message::new("a".into(), Some("b".into()));
        let place = bus.append(Topic::Events, vec![message]).await.unwrap()[0];
        while bus.bounds(Topic::Events, place.partition).await.unwrap().first == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
