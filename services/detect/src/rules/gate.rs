//! Gates: what an account must at least have before a rule can hold for it. Most accounts are far from every rule, and
//! need not be read for each of their events.
//!
//! A rule `messages_1h >= 60 AND size_cv_1h < 0.1` cannot hold before `messages_1h` has reached 60. When it is 12, the
//! account has *room* for 48 messages more: until then the rule needs no look. A room shrinks with each event, by what
//! the event adds at most, and is measured anew when the account is read. A rule is due when none of its gates has
//! room left; one without a gate always is.

use super::predicate::{Predicate, column_name, comparison};
use crate::statistics::{Growth, Statistics};
use crate::window::{WINDOWS, Window};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, SchemaRef};
use datafusion::logical_expr::Operator;
use std::ops::Range;

/// Up to this many values distinct counts are exact.
const EXACT_DISTINCT: f64 = 64.0;
/// Beyond, they are estimated: a count that is said to be below this share of a limit is below the limit, by more than
/// five standard errors.
const SURE_SHARE: f64 = 0.85;
/// Rooms are kept in single precision; this share of one is surely there.
const SURE_ROOM: f64 = 0.999;

/// The gates of a rule set.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    /// Aggregates whose growth is followed, each once.
    pub counters: Vec<Counter>,
    /// Those of one rule stand together.
    all: Vec<Gate>,
    rules: Vec<Range<usize>>,
    /// Columns of the first step.
    numbers: usize,
}

/// One aggregate, and how it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counter {
    pub growth: Growth,
    /// Index of the aggregate in the statistics' plan.
    pub aggregate: usize,
}

/// `column >= at_least`.
#[derive(Debug, Clone, Copy)]
struct Gate {
    counter: usize,
    /// Place among the columns of the rule's last step, of which the first step's come first.
    column: usize,
    at_least: f64,
}

/// What may be added, for each gate, before it is passed.
pub(crate) type Room = Box<[f32]>;

impl Gates {
    /// No gate yet; the first step of all rules has so many columns.
    pub(super) fn new(numbers: usize) -> Self {
        Self { numbers, ..Self::default() }
    }

    /// Adds the gates of the next rule, whose last step has these columns.
    pub(super) fn add_rule(&mut self, statistics: &Statistics, predicate: &Predicate, columns: &SchemaRef) {
        let begin = self.all.len();
        for (name, op, at_least) in predicate.conjuncts.iter().filter_map(comparison) {
            let Some((aggregate, growth)) = growth_of_column(statistics, &name) else { continue };
            let (Operator::Gt | Operator::GtEq, Ok(column)) = (op, columns.index_of(&name)) else { continue };
            let counter = Counter { growth, aggregate };
            let counter = self.counters.iter().position(|known| *known == counter).unwrap_or_else(|| {
                self.counters.push(counter);
                self.counters.len() - 1
            });
            let estimated = growth == Growth::Values && at_least > EXACT_DISTINCT;
            let at_least = if estimated { at_least * SURE_SHARE } else { at_least };
            self.all.push(Gate { counter, column, at_least });
        }
        self.rules.push(begin..self.all.len());
    }

    /// The room of an account without any event.
    pub fn empty_room(&self) -> Room {
        self.all.iter().map(|gate| room(gate.at_least, 0.0)).collect()
    }

    /// The room of an account of which nothing is known.
    pub fn no_room(&self) -> Room {
        vec![0.0; self.all.len()].into()
    }

    /// Takes from a room what an event adds to each counter.
    pub fn charge(&self, room: &mut [f32], added: &[&[f64]], event: usize) {
        for (gate, room) in self.all.iter().zip(room) {
            *room -= added[gate.counter][event] as f32;
        }
    }

    /// Whether a rule, the `index`th of the enabled ones, may hold.
    pub fn is_rule_due(&self, index: usize, room: &[f32]) -> bool {
        room[self.rules[index].clone()].iter().all(|left| *left <= 0.0)
    }

    /// Whether some rule may hold.
    pub fn is_due(&self, room: &[f32]) -> bool {
        room.len() != self.all.len() || (0..self.rules.len()).any(|index| self.is_rule_due(index, room))
    }

    /// Measures what can be read from the first step's columns.
    pub fn measure_numbers(&self, room: &mut [f32], columns: &RecordBatch, row: usize) {
        self.measure(0..self.all.len(), 0..self.numbers, room, columns, row);
    }

    /// Measures what can be read from the columns of a rule's second step.
    pub fn measure_digests(&self, index: usize, room: &mut [f32], columns: &RecordBatch, row: usize) {
        self.measure(self.rules[index].clone(), self.numbers..usize::MAX, room, columns, row);
    }

    fn measure(&self, gates: Range<usize>, places: Range<usize>, left: &mut [f32], columns: &RecordBatch, row: usize) {
        for (gate, left) in self.all[gates.clone()].iter().zip(&mut left[gates]) {
            if places.contains(&gate.column) {
                let column = columns.column(gate.column).as_primitive::<Float64Type>();
                // NULL is what an account without such events has.
                let now = if column.is_valid(row) { column.value(row) } else { 0.0 };
                *left = room(gate.at_least, now);
            }
        }
    }
}

fn room(at_least: f64, now: f64) -> f32 {
    ((at_least - now) * SURE_ROOM) as f32
}

/// The aggregate that a column's statistic is, if it can only grow by what is added.
fn growth_of_column(statistics: &Statistics, name: &str) -> Option<(usize, Growth)> {
    let plan = statistics.plan();
    let is_named = |statistic: &str| WINDOWS.iter().any(|window: &Window| column_name(statistic, *window) == name);
    let index = plan.infos.iter().position(|info| is_named(&info.name))?;
    plan.statistics[index].growth
}

#[cfg(test)]
mod tests {
    use crate::rules::{DEFAULT_RULES, Rules};
    use crate::statistics::{DEFAULT_STATISTICS, Statistics};

    fn rules(predicates: &[&str]) -> Rules {
        let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
        let rule = |(number, when): (usize, &&str)| {
            format!("[[rule]]\nname = 'r{number}'\nwhen = '{when}'\naction = 'observe'\nreason = 'r'\nsource = 's'\n")
        };
        let text: String = predicates.iter().enumerate().map(rule).collect();
        Rules::parse("rules.toml", &text, &statistics).unwrap()
    }

    /// The limits that an account without any event is away from, of each rule.
    fn limits(predicates: &[&str]) -> Vec<Vec<f32>> {
        let rules = rules(predicates);
        let gates = &rules.plan().gates;
        let room = gates.empty_room();
        let limit = |room: &f32| (room / super::SURE_ROOM as f32).round();
        gates.rules.iter().map(|gates| room[gates.clone()].iter().map(limit).collect()).collect()
    }

    #[test]
    fn no_shipped_rule_is_always_due() {
        let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
        let rules = Rules::parse("rules.toml", DEFAULT_RULES, &statistics).unwrap();
        let gates = &rules.plan().gates;
        assert!(!gates.is_due(&gates.empty_room()));
        assert!(gates.is_due(&gates.no_room()) && gates.is_due(&[]));
    }

    #[test]
    fn a_rule_is_due_when_none_of_its_gates_has_room() {
        let rules = rules(&["messages_1h >= 20 AND client_ips_1h > 5", "10 <= messages_5m", "bytes_1m >= 1e6"]);
        let gates = &rules.plan().gates;
        let mut room = gates.empty_room();
        let added: Vec<&[f64]> = gates.counters.iter().map(|_| &[8.0][..]).collect();
        gates.charge(&mut room, &added, 0);
        assert!(!gates.is_due(&room), "only the addresses are used up");
        gates.charge(&mut room, &added, 0);
        assert_eq!([0, 1, 2].map(|rule| gates.is_rule_due(rule, &room)), [false, true, false]);
        gates.charge(&mut room, &added, 0);
        assert_eq!([0, 1, 2].map(|rule| gates.is_rule_due(rule, &room)), [true, true, false]);
    }

    #[test]
    fn an_estimated_count_is_not_trusted_to_the_last() {
        assert_eq!(limits(&["client_ips_24h >= 1000 AND client_ips_1h >= 60"]), [[850.0, 60.0]]);
    }

    #[test]
    fn what_may_hold_without_growth_has_no_gate() {
        for predicate in ["messages_1h < 5", "size_mean_1h >= 5", "messages_1h >= 5 OR spam_1h >= 2", "-bytes_1h < 5"] {
            assert_eq!(limits(&["messages_1h >= 5", predicate]), [vec![5.0], vec![]], "{predicate}");
        }
    }
}
