//! Exemptions that end: when administrators are to be reminded.

use crate::values::DAY_MS;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tidegate_proto::v1;

/// An exemption that ends so soon after it was seen was short from the beginning: nobody is reminded of it.
const TOO_LATE_MS: i64 = 60 * 60 * 1000;

/// Exemptions that end, by account or domain (`@example.org`). Time is an argument.
#[derive(Debug, Default)]
pub(crate) struct Reminders {
    before_ms: i64,
    by_subject: HashMap<String, Subject>,
    /// When the next reminder of a subject is due.
    due: BTreeSet<(i64, String)>,
    /// Ids of reminders that were told, and when they were.
    told: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct Subject {
    partition: u32,
    version: u64,
    /// Those that are still to be told of.
    exemptions: Vec<v1::Exemption>,
}

/// An exemption that administrators are to be reminded of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reminder {
    pub partition: u32,
    pub subject: String,
    pub version: u64,
    pub exemption: v1::Exemption,
}

impl Reminders {
    /// Reminders `days` before the end; 0: none.
    pub fn new(days: u32) -> Self {
        Self { before_ms: i64::from(days) * DAY_MS, ..Self::default() }
    }

    /// These are the exemptions of an account or a domain now; none: there are none any more.
    pub fn observe(&mut self, partition: u32, subject: &str, version: u64, exemptions: &[v1::Exemption]) {
        if self.before_ms == 0 {
            return;
        }
        if let Some(old) = self.by_subject.remove(subject)
            && let Some(at_ms) = self.at_ms(&old)
        {
            self.due.remove(&(at_ms, subject.to_owned()));
        }
        let exemptions: Vec<_> = exemptions.iter().filter(|one| one.until_ms.is_some()).cloned().collect();
        self.put(subject, Subject { partition, version, exemptions });
    }

    /// A reminder of this id was told already, at `at_ms`.
    pub fn note_told(&mut self, id: &str, at_ms: i64) {
        self.told.insert(id.to_owned(), at_ms);
    }

    pub fn is_told(&self, id: &str) -> bool {
        self.told.contains_key(id)
    }

    /// Takes out what is due.
    pub fn take_due(&mut self, now_ms: i64) -> Vec<Reminder> {
        let mut taken = Vec::new();
        while let Some((at_ms, subject)) = self.due.first().filter(|(at_ms, _)| *at_ms <= now_ms).cloned() {
            self.due.remove(&(at_ms, subject.clone()));
            let Some(mut found) = self.by_subject.remove(&subject) else { continue };
            let before_ms = self.before_ms;
            let (now_due, later) = std::mem::take(&mut found.exemptions)
                .into_iter()
                .partition(|one| one.until_ms.is_some_and(|until_ms| until_ms.saturating_sub(before_ms) <= now_ms));
            found.exemptions = later;
            let (partition, version) = (found.partition, found.version);
            let in_time = |one: &v1::Exemption| one.until_ms.is_some_and(|until_ms| until_ms > now_ms + TOO_LATE_MS);
            let reminders = <Vec<v1::Exemption>>::into_iter(now_due).filter(in_time);
            taken.extend(reminders.map(|exemption| Reminder {
                partition,
                subject: subject.clone(),
                version,
                exemption,
            }));
            self.put(&subject, found);
        }
        taken
    }

    /// When the next one is due.
    #[cfg(test)]
    pub fn next_ms(&self) -> Option<i64> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }

    /// Forgets a partition that others own now, and what was told so long ago that nothing can be told of it again.
    pub fn forget(&mut self, partition: u32) {
        self.by_subject.retain(|_, subject| subject.partition != partition);
        let known: HashSet<&String> = self.by_subject.keys().collect();
        self.due.retain(|(_, subject)| known.contains(subject));
    }

    /// Forgets reminders that were told before this time: their exemptions have ended.
    pub fn forget_told_before(&mut self, oldest_ms: i64) {
        self.told.retain(|_, at_ms| *at_ms >= oldest_ms);
    }

    fn put(&mut self, name: &str, subject: Subject) {
        if let Some(at_ms) = self.at_ms(&subject) {
            self.due.insert((at_ms, name.to_owned()));
            self.by_subject.insert(name.to_owned(), subject);
        }
    }

    fn at_ms(&self, subject: &Subject) -> Option<i64> {
        let ends = subject.exemptions.iter().filter_map(|one| one.until_ms);
        ends.min().map(|until_ms| until_ms.saturating_sub(self.before_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn until(days: i64) -> v1::Exemption {
        v1::Exemption { until_ms: Some(NOW + days * DAY_MS), actor: "amy".into(), ..v1::Exemption::default() }
    }

    fn subjects(taken: &[Reminder]) -> Vec<(&str, i64)> {
        taken.iter().map(|one| (one.subject.as_str(), (one.exemption.until_ms.unwrap() - NOW) / DAY_MS)).collect()
    }

    #[test]
    fn each_is_due_once_some_days_before_its_end() {
        let mut reminders = Reminders::new(7);
        reminders.observe(0, "jo@example.org", 1, &[until(10), until(30), v1::Exemption::default()]);
        reminders.observe(1, "@example.com", 0, &[until(5)]);
        assert_eq!(subjects(&reminders.take_due(NOW)), [("@example.com", 5)]);
        assert!(reminders.take_due(NOW).is_empty());
        assert_eq!(reminders.next_ms(), Some(NOW + 3 * DAY_MS));
        assert_eq!(subjects(&reminders.take_due(NOW + 4 * DAY_MS)), [("jo@example.org", 10)]);
        assert_eq!(reminders.next_ms(), Some(NOW + 23 * DAY_MS));
        reminders.observe(0, "jo@example.org", 2, &[]);
        assert_eq!((reminders.next_ms(), reminders.by_subject.len()), (None, 0));
    }

    #[test]
    fn short_ones_are_left_out_and_none_are_due_where_none_are_wanted() {
        let mut reminders = Reminders::new(7);
        let short = v1::Exemption { until_ms: Some(NOW + 60_000), ..v1::Exemption::default() };
        reminders.observe(0, "jo", 1, std::slice::from_ref(&short));
        assert!(reminders.take_due(NOW).is_empty());
        let mut none = Reminders::new(0);
        none.observe(0, "jo", 1, &[until(1)]);
        assert!(none.take_due(NOW).is_empty());
    }

    #[test]
    fn a_partition_that_went_away_is_forgotten() {
        let mut reminders = Reminders::new(7);
        reminders.observe(0, "a", 1, &[until(1)]);
        reminders.observe(1, "b", 1, &[until(1)]);
        reminders.forget(0);
        assert_eq!(subjects(&reminders.take_due(NOW)), [("b", 1)]);
    }
}
