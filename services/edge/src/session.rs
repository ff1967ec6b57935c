//! Connections of mail servers: octets in, the sans-IO session decides, octets out.

mod milter;
mod policy;

use crate::clock::Clock;
use crate::gate::EdgeGate;
use crate::intake::Intake;
use crate::listen::Connection;
use crate::metrics::{Metrics, Protocol};
use std::sync::Arc;
use std::time::Duration;
use tidegate_mta::SessionSettings;

/// Octets read at a time.
const READ_OCTETS: usize = 16 * 1024;

/// What all sessions of one protocol share.
pub(crate) struct Sessions {
    /// How logins, relays and spam headers are read.
    pub settings: Arc<SessionSettings>,
    /// What is in force.
    pub gate: Arc<EdgeGate>,
    /// Where it goes.
    pub intake: Arc<Intake>,
    /// A connection that says nothing for so long is closed.
    pub idle: Duration,
    /// Which protocol.
    pub protocol: Protocol,
    /// The clock.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
}

impl Sessions {
    /// Serves a connection to its end.
    pub async fn serve(self: Arc<Self>, connection: Connection) {
        match self.protocol {
            Protocol::Milter => milter::serve(&self, connection).await,
            Protocol::Policy => policy::serve(&self, connection).await,
        }
    }

    /// Reads what is there; none at the end, after an error, or after too long a silence.
    async fn read(&self, connection: &mut Connection, buffer: &mut [u8]) -> Option<usize> {
        match tokio::time::timeout(self.idle, connection.read(buffer)).await {
            Ok(Ok(octets)) => Some(octets).filter(|octets| *octets > 0),
            Ok(Err(_)) => None,
            Err(_) => {
                self.metrics.connections_idle.get_or_create(&self.protocol.label()).inc();
                None
            }
        }
    }
}
