//! Milter connections.

use super::{READ_OCTETS, Sessions};
use crate::listen::Connection;
use std::time::Instant;
use tidegate_mta::milter::{Flow, MilterSession};

pub(super) async fn serve(sessions: &Sessions, mut connection: Connection) {
    let mut session = MilterSession::new(sessions.settings.clone());
    let (mut buffer, mut answer, mut events) = (vec![0; READ_OCTETS], Vec::new(), Vec::new());
    while let Some(octets) = sessions.read(&mut connection, &mut buffer).await {
        let begun = Instant::now();
        let flow = session.input(&buffer[..octets], &*sessions.gate, &mut answer, &mut events);
        sessions.metrics.answer_seconds.observe(begun.elapsed().as_secs_f64());
        // The event is in hand before the mail server hears that the message was taken.
        sessions.intake.take(&mut events);
        if !answer.is_empty() {
            if connection.write(&answer).await.is_err() {
                break;
            }
            answer.clear();
        }
        match flow {
            Ok(Flow::Open) => {}
            Ok(Flow::Close) => break,
            Err(error) => {
                sessions.metrics.protocol_errors.get_or_create(&sessions.protocol.label()).inc();
                tracing::warn!(error = error.to_string(), "a milter connection is closed");
                break;
            }
        }
    }
    session.closed(&mut events);
    sessions.intake.take(&mut events);
}
