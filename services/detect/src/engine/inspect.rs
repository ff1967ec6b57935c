//! A look at one account, for people: its statistics now and lately, and what rules compare them with.

use super::read::{AsOf, Panes};
use super::store::Id;
use super::{Engine, EngineError};
use crate::engine::ReadPlan;
use crate::rules::action_name;
use crate::window::{SLOT_MS, WINDOWS, Window, slot_of};
use datafusion::common::Result;
use tidegate_domain::Account;

/// Most points of a series.
const MAX_POINTS: usize = 200;
/// Most rows of panes that are merged for the series of one window: some milliseconds. More points than that allows
/// are left out.
const MAX_ROWS: usize = 3_000;
/// For each window, how long its series is, in minutes: as far back as there are panes of a quarter of the window at
/// most. Panes of more than a day ago are gone, so that of a day begins with what is still known.
const SERIES_MINUTES: [i64; WINDOWS.len()] = [4, 55, 45, 5 * 60, 18 * 60, 24 * 60];

/// What is known of an account.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inspection {
    /// All its statistics in all windows, in the order of [`crate::Statistics::columns`]; none is NULL.
    pub values: Vec<(String, Option<f64>)>,
    /// The past of those columns that enabled rules look at.
    pub series: Vec<Series>,
    /// What enabled rules compare its columns with.
    pub limits: Vec<LimitInForce>,
}

/// The past of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// `<statistic>_<window>`.
    pub column: String,
    /// Times in milliseconds, the oldest first, and values. The last is exact, those before may count one pane of a
    /// quarter of the window too much; in a `24h` column they lack what is older than a day now.
    pub points: Vec<(i64, Option<f64>)>,
}

/// A number that a rule compares a column with.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitInForce {
    /// The rule.
    pub rule: String,
    /// What it asks for: `observe`, `notify`, `throttle` or `lock`.
    pub action: &'static str,
    /// The column.
    pub column: String,
    /// `>=`, `>`, `<=` or `<`.
    pub comparison: &'static str,
    /// The number.
    pub limit: f64,
}

impl Engine {
    /// Looks at an account as of `now_ms`, with at most `points` of each column's past. The work is bounded: some tens
    /// of milliseconds at most.
    ///
    /// # Errors
    /// When DataFusion fails.
    pub fn inspect(
        &self,
        account: &Account,
        on_probation: bool,
        now_ms: i64,
        points: usize,
    ) -> Result<Inspection, EngineError> {
        let mut series = Vec::new();
        let id = self.store.find(account);
        if let Some(id) = id {
            for (window, minutes) in WINDOWS.into_iter().zip(SERIES_MINUTES) {
                let of_window = self.series(id, window, now_ms, minutes, points.min(MAX_POINTS));
                series.extend(of_window.map_err(EngineError::Read)?);
            }
        }
        let values = if id.is_some() { self.columns(account, now_ms)? } else { self.columns_of_nobody() };
        Ok(Inspection { values, series, limits: self.limits_in_force(account, on_probation) })
    }

    fn columns_of_nobody(&self) -> Vec<(String, Option<f64>)> {
        let names = self.statistics.columns().into_iter().enumerate();
        names.map(|(index, name)| (name, self.everything.empty_value(index / WINDOWS.len()))).collect()
    }

    /// The past of the columns of one window.
    fn series(&self, id: Id, window: Window, now_ms: i64, minutes: i64, points: usize) -> Result<Vec<Series>> {
        let columns = &self.rules.plan().columns;
        let statistics: Vec<usize> =
            columns.iter().filter(|(_, of)| *of == window).map(|(statistic, _)| *statistic).collect();
        if statistics.is_empty() || points == 0 {
            return Ok(Vec::new());
        }
        let times = self.times(id, window, now_ms, minutes, points);
        let as_of: Vec<AsOf> = times.iter().map(|at_ms| AsOf { id, slot: slot_of(*at_ms) }).collect();
        let plan = self.statistics.plan();
        let read = ReadPlan::new(plan, &statistics, vec![window])?;
        let values = read.read_panes(&self.store, plan, &as_of, Panes::AlsoCoarse)?;
        let series = statistics.iter().enumerate().map(|(place, statistic)| Series {
            column: format!("{}_{}", plan.infos[*statistic].name, window.name()),
            points: times.iter().enumerate().map(|(point, at_ms)| (*at_ms, values.value(place, 0, point))).collect(),
        });
        Ok(series.collect())
    }

    /// Evenly over the last minutes, as many as the bound on rows allows; the last is now.
    fn times(&self, id: Id, window: Window, now_ms: i64, minutes: i64, points: usize) -> Vec<i64> {
        let span_ms = minutes * 60_000;
        let panes = self.store.panes_of(id);
        // No two in one slot.
        let mut count = i64::try_from(points).unwrap_or(i64::MAX).min(span_ms / SLOT_MS);
        loop {
            let at = |number: i64| now_ms.saturating_sub(span_ms - span_ms * number / count);
            let times: Vec<i64> = (1..=count).map(at).collect();
            let rows = |at_ms: &i64| panes.iter().filter(|pane| pane.key.overlaps(window, slot_of(*at_ms))).count();
            if count == 1 || times.iter().map(rows).sum::<usize>() <= MAX_ROWS {
                return times;
            }
            count = (count / 2).max(1);
        }
    }

    fn limits_in_force(&self, account: &Account, on_probation: bool) -> Vec<LimitInForce> {
        let variants = self.rules.variants();
        let plan = variants.plan(variants.of(account, on_probation));
        let concerned = plan.comparisons.iter().filter(|one| self.rules.list()[one.rule].concerns(account));
        let limit = |one: &crate::rules::Comparison| {
            let rule = &self.rules.list()[one.rule];
            LimitInForce {
                rule: rule.name.clone(),
                action: action_name(rule.action),
                column: one.column.clone(),
                comparison: one.operator,
                limit: one.limit,
            }
        };
        concerned.map(limit).collect()
    }
}
