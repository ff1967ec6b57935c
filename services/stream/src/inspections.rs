//! Accounts' statistics for people who ask: looked up between two batches, and written beside the loop.

use crate::metrics::{Metrics, ResultLabel};
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;
use tidegate_bus::{Bus, MESSAGE_MAX_BYTES, Message, Topic};
use tidegate_detect::Inspection;
use tidegate_domain::{Account, ClientSeen};
use tidegate_proto::{Inspect, client_to_proto, v1};
use tidegate_runtime::error_line;
use tokio::sync::mpsc;

/// Most inspections that are done after one batch, over all partitions; who asks more is not answered, and asks again.
pub(crate) const MAX_A_BATCH: usize = 4;
/// Who asked longer ago by the log's time has given up.
const MAX_AGE_MS: i64 = 30_000;
/// Most answers that wait to be written.
const MAX_WAITING: usize = 64;
/// Largest answer: well below what the log takes. Of a longer one every other point is left out.
const MAX_OCTETS: usize = MESSAGE_MAX_BYTES / 2;

/// Somebody asks for an account's statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectionRequest {
    /// Whose.
    pub account: Account,
    /// The command.
    pub inspect: Inspect,
    /// When the log took it.
    pub asked_ms: i64,
}

/// Answers those who ask.
pub(crate) struct Inspections {
    metrics: Metrics,
    answers: mpsc::Sender<Message>,
    writer: Option<mpsc::Receiver<Message>>,
}

impl Inspections {
    /// Nothing is asked yet.
    pub fn new(metrics: Metrics) -> Self {
        let (answers, writer) = mpsc::channel(MAX_WAITING);
        Self { metrics, answers, writer: Some(writer) }
    }

    /// Writes answers, until it is dropped. To be called once.
    pub fn writer(&mut self, bus: Arc<dyn Bus>) -> impl Future<Output = ()> + Send + use<> {
        let waiting = self.writer.take();
        let count = self.metrics.inspections.clone();
        async move {
            let Some(mut waiting) = waiting else { return };
            while let Some(answer) = waiting.recv().await {
                if let Err(error) = bus.append(Topic::Inspections, vec![answer]).await {
                    tracing::warn!(error = %error_line(&error), "could not answer who asked for an account's statistics");
                    count.get_or_create(&ResultLabel { result: "not_written" }).inc();
                }
            }
        }
    }

    /// Those of a partition's requests that are to be answered now; `left` is how many more the batch may have.
    pub fn due(
        &self,
        requests: Vec<InspectionRequest>,
        now_ms: i64,
        is_ready: bool,
        left: &mut usize,
    ) -> Vec<InspectionRequest> {
        let mut due = Vec::new();
        for request in requests {
            if now_ms.saturating_sub(request.asked_ms) > MAX_AGE_MS {
                self.count("too_old");
            } else if !is_ready {
                self.count("rebuilding");
            } else if *left == 0 {
                self.count("busy");
            } else {
                *left -= 1;
                due.push(request);
            }
        }
        due
    }

    /// Hands an answer to be written.
    pub fn answer(&self, answer: &v1::Inspection) {
        let key = Bytes::from(answer.account.clone());
        let message = Message::new(key, Some(answer.encode_to_vec().into()));
        self.count(if self.answers.try_send(message).is_ok() { "answered" } else { "busy" });
    }

    /// Counts what became of a request.
    pub fn count(&self, result: &'static str) {
        self.metrics.inspections.get_or_create(&ResultLabel { result }).inc();
    }
}

/// The answer, small enough for a record.
pub(crate) fn answer_message(
    request: &InspectionRequest,
    at_ms: i64,
    found: Inspection,
    clients: &[ClientSeen],
) -> v1::Inspection {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let series = found.series.into_iter().map(|series| v1::StatisticSeries {
        column: series.column,
        points: series
            .points
            .into_iter()
            .map(|(at_ms, value)| v1::StatisticPoint { at_ms, value: number(value) })
            .collect(),
    });
    let limits = found.limits.into_iter().map(|limit| v1::LimitInForce {
        rule: limit.rule,
        action: limit.action.to_owned(),
        column: limit.column,
        comparison: limit.comparison.to_owned(),
        limit: limit.limit,
    });
    let mut answer = v1::Inspection {
        command_id: request.inspect.id.clone(),
        account: request.account.as_str().to_owned(),
        at_ms,
        values: found
            .values
            .into_iter()
            .map(|(column, value)| v1::StatisticValue { column, value: number(value) })
            .collect(),
        series: series.collect(),
        limits: limits.collect(),
        clients: clients.iter().map(client_to_proto).collect(),
    };
    while answer.encoded_len() > MAX_OCTETS {
        if answer.series.iter().all(|series| series.points.len() <= 1) {
            // Hundreds of rules with hundreds of limits each.
            answer.limits.truncate(answer.limits.len() / 2);
        }
        for series in &mut answer.series {
            halve(&mut series.points);
        }
    }
    answer
}

/// Leaves every other point out; the last stays.
fn halve(points: &mut Vec<v1::StatisticPoint>) {
    let odd = points.len() % 2;
    let mut index = 0;
    points.retain(|_| {
        index += 1;
        index % 2 == odd
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;
    use tidegate_detect::{LimitInForce, Series};

    fn request(number: i64, asked_ms: i64) -> InspectionRequest {
        InspectionRequest {
            account: Account::parse("jo@example.org").unwrap(),
            inspect: Inspect { id: format!("c{number}"), points: 200 },
            asked_ms,
        }
    }

    #[test]
    fn old_requests_and_too_many_are_not_answered_and_none_while_windows_are_rebuilt() {
        let inspections = Inspections::new(Metrics::new(&mut Registry::default()));
        let now_ms = 1_000_000;
        let requests = || (0..10).map(|number| request(number, now_ms - 10_000 * number)).collect();
        let mut left = MAX_A_BATCH;
        assert_eq!(inspections.due(requests(), now_ms, false, &mut left), []);
        let due = inspections.due(requests(), now_ms, true, &mut left);
        assert_eq!(due.iter().map(|one| one.inspect.id.as_str()).collect::<Vec<_>>(), ["c0", "c1", "c2", "c3"]);
        assert_eq!(inspections.due(requests(), now_ms, true, &mut left), [], "of another partition, in the same batch");
        let counted = |result| inspections.metrics.inspections.get_or_create(&ResultLabel { result }).get();
        assert_eq!([counted("too_old"), counted("rebuilding"), counted("busy")], [18, 4, 4]);
    }

    #[test]
    fn the_largest_answer_fits_a_record_and_keeps_the_newest() {
        let column = |number: usize| format!("{}{number}_24h", "x".repeat(50));
        let found = Inspection {
            values: (0..600).map(|number| (column(number), None)).collect(),
            series: (0..600)
                .map(|number| Series { column: column(number), points: (0..200).map(|at| (at, Some(0.5))).collect() })
                .collect(),
            limits: (0..20_000)
                .map(|number| LimitInForce {
                    rule: "r".repeat(64),
                    action: "lock",
                    column: column(number),
                    comparison: ">=",
                    limit: 5.0,
                })
                .collect(),
        };
        let answer = answer_message(&request(1, 0), 7, found, &[]);
        assert!(answer.encoded_len() <= MAX_OCTETS);
        assert_eq!((answer.values.len(), answer.series.len()), (600, 600));
        assert!(!answer.limits.is_empty() && answer.values[0].value.is_nan());
        assert!(answer.series.iter().all(|series| series.points.last().unwrap().at_ms == 199));
    }
}
