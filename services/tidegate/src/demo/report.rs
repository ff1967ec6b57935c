//! What the demo measured.

use super::milter::Outcome;
use super::question::Answer;
use super::traffic::Attempt;
use serde::Serialize;
use std::collections::BTreeMap;

/// Every figure of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Events that the stream service counted into windows.
    pub events: u64,
    /// Ordinary accounts.
    pub accounts: u32,
    /// What was locked; none when nothing was.
    pub locked: Option<Locked>,
    /// For each site, how long after the crossing message's acceptance its edge refused first.
    pub edges: Vec<EdgeReport>,
    /// Messages of the thief that were accepted after the crossing one.
    pub slipped_through: u64,
    /// Ordinary messages that were accepted.
    pub ordinary_accepted: u64,
    /// Ordinary messages that were refused, and must not have been.
    pub ordinary_refused: u64,
    /// Sessions that broke.
    pub sessions_broken: u64,
    /// From asking for the unlock until every site had accepted a message of the account.
    pub unlocked_ms: Option<f64>,
    /// What the history of the run says to an analyst's question; none when nothing was locked.
    pub history: Option<Answer>,
    /// Seed of the traffic.
    pub seed: u64,
}

/// The lock, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Locked {
    /// The account.
    pub account: String,
    /// The rule that held.
    pub rule: String,
    /// Id of the lock.
    pub id: String,
    /// The statistics that made it hold.
    pub evidence: BTreeMap<String, f64>,
    /// What the thief's program was told.
    pub reply: String,
}

/// One site's part.
#[derive(Debug, Clone, Serialize)]
pub struct EdgeReport {
    /// The site.
    pub site: String,
    /// Milliseconds from the crossing message's acceptance to the first refusal; none when it never refused.
    pub first_refusal_ms: Option<f64>,
}

/// What the thief's attempts came to, given the time of the last event that the lock's decision counted.
///
/// The crossing message is the first one whose acceptance was seen at or after that time: an edge gives an event its
/// time just before it accepts the message.
pub fn measure(attempts: &[Attempt], decided_on_ms: f64, sites: &[&str]) -> (Vec<EdgeReport>, u64) {
    let accepted = |attempt: &&Attempt| attempt.outcome == Outcome::Accepted;
    let crossing_ms = attempts
        .iter()
        .filter(accepted)
        .map(|attempt| attempt.at_ms)
        .find(|at_ms| *at_ms >= decided_on_ms)
        .unwrap_or(decided_on_ms);
    let edges = sites.iter().enumerate().map(|(site, name)| {
        let first = attempts.iter().find(|attempt| attempt.site == site && attempt.outcome != Outcome::Accepted);
        let first_refusal_ms = first.map(|attempt| round(attempt.at_ms - crossing_ms));
        EdgeReport { site: (*name).to_owned(), first_refusal_ms }
    });
    let slipped = attempts.iter().filter(accepted).filter(|attempt| attempt.at_ms > crossing_ms).count();
    (edges.collect(), slipped as u64)
}

/// `messages_1m = 60, size_cv_15m = 0.012`.
pub fn evidence_text<'a>(evidence: impl Iterator<Item = (&'a str, f64)>) -> String {
    let columns = evidence.map(|(column, value)| match value {
        whole if whole.fract() == 0.0 => format!("{column} = {whole}"),
        other => format!("{column} = {other:.3}"),
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// To hundredths of a millisecond.
pub fn round(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

impl Report {
    /// What did not go as it must; empty when all did.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.locked.is_none() {
            failures.push("the hijacked account was not locked".to_owned());
        }
        let silent = self.edges.iter().filter(|edge| edge.first_refusal_ms.is_none());
        failures.extend(silent.map(|edge| format!("site {} refused nothing", edge.site)));
        if self.ordinary_refused > 0 {
            failures.push(format!("{} ordinary messages were refused", self.ordinary_refused));
        }
        if self.unlocked_ms.is_none() {
            failures.push("the account was not unlocked".to_owned());
        }
        if self.history.as_ref().is_some_and(|answer| answer.rows.is_empty()) {
            failures.push("the history does not know what the account did".to_owned());
        }
        failures
    }

    /// The summary for people.
    pub fn summary(&self) -> String {
        let mut lines = vec![format!(
            "{} events of {} accounts went through; {} ordinary messages accepted, {} refused.",
            self.events, self.accounts, self.ordinary_accepted, self.ordinary_refused
        )];
        if let Some(locked) = &self.locked {
            lines.push(format!("{} was locked by rule {} ({}).", locked.account, locked.rule, locked.id));
        }
        for edge in &self.edges {
            lines.push(match edge.first_refusal_ms {
                Some(ms) => {
                    format!("  {:<10} refused it {ms:.1} ms after the message that crossed the limit", edge.site)
                }
                None => format!("  {:<10} did not refuse it", edge.site),
            });
        }
        lines.push(format!("{} of its messages slipped through after the crossing.", self.slipped_through));
        if let Some(ms) = self.unlocked_ms {
            lines.push(format!("Unlocked by an administrator, it sent again at every site {ms:.1} ms later."));
        }
        if let Some(Answer { question, sql, table, .. }) = &self.history {
            lines.extend([String::new(), format!("{question} The history knows:"), String::new()]);
            lines.extend(sql.lines().map(|line| format!("  {line}")));
            lines.push(String::new());
            lines.extend(table.lines().map(str::to_owned));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_acceptance_of_the_message_that_crossed() {
        let attempt = |site, at_ms, refused: bool| Attempt {
            site,
            at_ms,
            outcome: if refused { Outcome::Refused("550".into()) } else { Outcome::Accepted },
        };
        let attempts = [
            attempt(0, 90.0, false),
            attempt(1, 100.5, false),
            attempt(0, 104.0, false),
            attempt(1, 110.5, true),
            attempt(0, 120.5, true),
            attempt(1, 130.0, true),
        ];
        let (edges, slipped) = measure(&attempts, 100.0, &["ams", "ber", "par"]);
        let first: Vec<Option<f64>> = edges.iter().map(|edge| edge.first_refusal_ms).collect();
        assert_eq!((first, slipped), (vec![Some(20.0), Some(10.0), None], 1));
    }
}
