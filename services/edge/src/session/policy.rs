//! Policy delegation connections.

use super::{READ_OCTETS, Sessions};
use crate::listen::Connection;
use std::time::Instant;
use tidegate_mta::policy::PolicySession;

/// Postfix keeps a connection for many requests. Exim closes its side after one and reads to the end: what was answered
/// is sent, then the connection is closed.
pub(super) async fn serve(sessions: &Sessions, mut connection: Connection) {
    let mut session = PolicySession::new(sessions.settings.clone());
    let (mut buffer, mut answer, mut events) = (vec![0; READ_OCTETS], Vec::new(), Vec::new());
    while let Some(octets) = sessions.read(&mut connection, &mut buffer).await {
        let (begun, now_ms) = (Instant::now(), sessions.clock.now_ms());
        {
            let mut joiner = sessions.intake.policy_joiner.lock();
            session.input(&buffer[..octets], &*sessions.gate, &mut joiner, now_ms, &mut answer, &mut events);
        }
        sessions.metrics.answer_seconds.observe(begun.elapsed().as_secs_f64());
        sessions.intake.take(&mut events);
        if !answer.is_empty() {
            if connection.write(&answer).await.is_err() {
                break;
            }
            answer.clear();
        }
    }
}
