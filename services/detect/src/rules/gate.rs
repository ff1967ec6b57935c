//! Gates: what an account must at least have before a rule can hold for it. Most accounts are far from every rule, and
//! need not be read for each of their events.
//!
//! A rule `messages_1h >= 60 AND size_cv_1h < 0.1` cannot hold before `messages_1h` has reached 60. When it is 12, the
//! account has *room* for 48 messages more: until then the rule needs no look. Each rule is guarded by the gate that
//! leaves the most room, and an account has for each counter the least room of all rules that it guards. The room
//! shrinks with each event and is measured anew when it is used up.

use super::plan::StepPlan;
use super::predicate::{Predicate, column_name, comparison};
use crate::statistics::{Growth, Statistics};
use crate::window::{WINDOWS, Window};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use datafusion::common::Result;
use datafusion::logical_expr::Operator;
use hashbrown::HashMap;

/// Up to this many values distinct counts are exact.
const EXACT_DISTINCT: f64 = 64.0;
/// Beyond, they are estimated: a count that is said to be below this share of a limit is below the limit, by more than
/// five standard errors.
const SURE_SHARE: f64 = 0.85;

/// The gates of a rule set.
#[derive(Debug)]
pub(crate) struct GatePlan {
    /// Aggregates whose growth is followed, each once.
    pub counters: Vec<Counter>,
    /// For each enabled rule, its gates: at least one.
    rules: Vec<Vec<Gate>>,
    /// What gates read besides the first step's columns.
    pub digests: StepPlan,
}

/// One aggregate, and how it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counter {
    pub growth: Growth,
    /// Index of the aggregate in the statistics' plan.
    pub aggregate: usize,
}

/// `column >= at_least`.
#[derive(Debug, Clone, Copy)]
struct Gate {
    counter: usize,
    column: Place,
    at_least: f64,
}

/// Where a gate's column is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Among the first step's columns.
    First(usize),
    /// Among [`GatePlan::digests`]' columns.
    Digest(usize),
}

impl GatePlan {
    /// The gates of these predicates; none when a rule has no gate: then every event is judged.
    pub fn new(statistics: &Statistics, predicates: &[&Predicate], first: &[(usize, Window)]) -> Result<Option<Self>> {
        let plan = statistics.plan();
        let mut columns: HashMap<String, (usize, Window)> = HashMap::new();
        for (index, info) in plan.infos.iter().enumerate() {
            columns.extend(WINDOWS.map(|window| (column_name(&info.name, window), (index, window))));
        }
        let mut counters: Vec<Counter> = Vec::new();
        let mut digests: Vec<(usize, Window)> = Vec::new();
        let mut rules = Vec::new();
        for predicate in predicates {
            let mut gates = Vec::new();
            for (name, op, at_least) in predicate.conjuncts.iter().filter_map(comparison) {
                let Some(column) = columns.get(&name).copied() else { continue };
                let statistic = &plan.statistics[column.0];
                let (Operator::Gt | Operator::GtEq, Some((aggregate, growth))) = (op, statistic.growth) else {
                    continue;
                };
                let counter = place_of(&mut counters, Counter { growth, aggregate });
                let at_least = match growth {
                    Growth::Values if at_least > EXACT_DISTINCT => at_least * SURE_SHARE,
                    _ => at_least,
                };
                let column = match first.iter().position(|known| *known == column) {
                    Some(place) => Place::First(place),
                    None => Place::Digest(place_of(&mut digests, column)),
                };
                gates.push(Gate { counter, column, at_least });
            }
            if gates.is_empty() {
                return Ok(None);
            }
            rules.push(gates);
        }
        digests_in_order(&mut digests, &mut rules);
        Ok(Some(Self { counters, rules, digests: StepPlan::new(statistics, &digests)? }))
    }

    /// The room of an account without any event, for each counter.
    pub fn empty_room(&self) -> Box<[f64]> {
        self.room(|_| Some(0.0))
    }

    /// The rooms of the accounts in `first`, and whether each is final: where it is not, the digests may leave more.
    pub fn rooms(&self, first: &RecordBatch) -> Vec<(Box<[f64]>, bool)> {
        let room = |row| {
            let room = self.room(|gate| match gate.column {
                Place::First(place) => Some(number(first.column(place), row)),
                Place::Digest(_) => None,
            });
            let is_final = !is_used_up(&room) || self.digests.columns.is_empty();
            (room, is_final)
        };
        (0..first.num_rows()).map(room).collect()
    }

    /// The room of the account in row `row` of `first` and row `digest_row` of its digests.
    pub fn room_with_digests(
        &self,
        first: &RecordBatch,
        row: usize,
        digests: &[ArrayRef],
        digest_row: usize,
    ) -> Box<[f64]> {
        self.room(|gate| {
            Some(match gate.column {
                Place::First(place) => number(first.column(place), row),
                Place::Digest(place) => number(&digests[place], digest_row),
            })
        })
    }

    /// Room by what gates' columns are now; none where it was not read.
    fn room(&self, now: impl Fn(&Gate) -> Option<f64>) -> Box<[f64]> {
        let mut room = vec![f64::INFINITY; self.counters.len()].into_boxed_slice();
        for gates in &self.rules {
            let left = |gate: &Gate| now(gate).map(|now| (gate.at_least - now, gate.counter));
            let widest = gates.iter().filter_map(left).max_by(|a, b| a.0.total_cmp(&b.0));
            // Nothing known of it: it is to be looked at.
            let (left, counter) = widest.unwrap_or((0.0, gates[0].counter));
            room[counter] = room[counter].min(left);
        }
        room
    }
}

/// Whether some rule may hold.
pub(crate) fn is_used_up(room: &[f64]) -> bool {
    room.iter().any(|left| *left <= 0.0)
}

/// A step reads its columns in the order of statistics and windows.
fn digests_in_order(digests: &mut Vec<(usize, Window)>, rules: &mut [Vec<Gate>]) {
    let mut sorted = digests.clone();
    sorted.sort_unstable();
    for gate in rules.iter_mut().flatten() {
        if let Place::Digest(place) = &mut gate.column {
            *place = sorted.iter().position(|column| *column == digests[*place]).unwrap_or(*place);
        }
    }
    *digests = sorted;
}

/// NULL is what an account without such events has.
fn number(column: &ArrayRef, row: usize) -> f64 {
    let column = column.as_primitive::<Float64Type>();
    if column.is_valid(row) { column.value(row) } else { 0.0 }
}

fn place_of<T: PartialEq>(known: &mut Vec<T>, one: T) -> usize {
    known.iter().position(|known| *known == one).unwrap_or_else(|| {
        known.push(one);
        known.len() - 1
    })
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

    #[test]
    fn every_shipped_rule_has_a_gate() {
        let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
        let rules = Rules::parse("rules.toml", DEFAULT_RULES, &statistics).unwrap();
        assert!(rules.plan().gates.is_some());
    }

    #[test]
    fn the_widest_gate_of_each_rule_guards_it() {
        let rules = rules(&["messages_1h >= 20 AND client_ips_1h > 5", "10 <= messages_5m", "bytes_1m >= 1e6"]);
        let gates = rules.plan().gates.as_ref().unwrap();
        let mut room = gates.empty_room().to_vec();
        room.sort_by(f64::total_cmp);
        // Messages guard the first two, octets the third, and nothing is guarded by addresses.
        assert_eq!(room, [10.0, 1e6, f64::INFINITY]);
    }

    #[test]
    fn an_estimated_count_is_not_trusted_to_the_last() {
        let rules = rules(&["client_ips_24h >= 1000"]);
        assert_eq!(*rules.plan().gates.as_ref().unwrap().empty_room(), [850.0]);
    }

    #[test]
    fn what_may_hold_without_growth_has_no_gate() {
        for predicate in ["messages_1h < 5", "size_mean_1h >= 5", "messages_1h >= 5 OR spam_1h >= 2", "-bytes_1h < 5"] {
            assert!(rules(&["messages_1h >= 5", predicate]).plan().gates.is_none(), "{predicate}");
        }
    }
}
