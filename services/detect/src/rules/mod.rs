//! Rules: SQL predicates over the statistics of an account, and what is asked for when one holds.

mod document;
mod file;
mod gate;
mod plan;
mod predicate;

pub(crate) use gate::{Gates, Room};
pub(crate) use plan::{AccountColumn, CompiledRule, RulesPlan, SecondStep, StepPlan};

use crate::problem::{Finding, Problem, Problems, list};
use crate::sql::plan::{Planner, reason};
use crate::statistics::Statistics;
use predicate::{Columns, Predicate};
use std::sync::Arc;
use tidegate_domain::{Action, QueuedMail};
use twox_hash::XxHash64;

/// The rules that ship with Tidegate, in the file format of [`Rules::parse`].
pub const DEFAULT_RULES: &str = include_str!("../../defaults/rules.toml");

/// A rule set, compiled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rules {
    mode: Mode,
    infos: Arc<[RuleInfo]>,
    plan: Arc<RulesPlan>,
    statistics: Statistics,
    version: String,
}

/// Whether rules act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Every match only says what would have been done. New installations start so.
    #[default]
    Observe,
    /// Matches ask for their rule's action.
    Enforce,
}

/// One rule, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its name.
    pub name: String,
    /// The predicate, on one line, with the numbers of `[limits]` filled in.
    pub when: String,
    /// What it asks for, in enforce mode.
    pub action: Action,
    /// Reason, for administrators.
    pub reason: String,
    /// What the SMTP client is told.
    pub reply: String,
    /// Why its limits are what they are.
    pub source: String,
    /// Whether it is evaluated.
    pub enabled: bool,
    /// The account domains that it is limited to; empty means all.
    pub domains: Vec<String>,
}

impl Mode {
    /// `observe` or `enforce`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

impl Rules {
    /// Reads a rules file (TOML): an optional `mode = "observe" | "enforce"`, optional `[limits]` (numbers that
    /// predicates use as `$name`), and `[[rule]]` tables.
    ///
    /// A rule has `name`, `when` (a predicate over `<statistic>_<window>` columns and `account`, `account_domain`,
    /// `account_kind`), `action` (`observe`, `notify`, `throttle`, `lock`), `for` (a duration like `30m`; a throttle
    /// needs one, a lock without one lasts until somebody unlocks it), `queued_mail` (`keep`, `hold`, `delete`; of a
    /// lock), `max_auto_unlocks` (of a lock with `for`: after so many that ended by themselves the next has no end),
    /// `reason`, `reply` (of a throttle or lock), `source`, `enabled` (default true) and `domains`.
    ///
    /// # Errors
    /// All problems of the file at once, with their places; disabled rules are checked too.
    pub fn parse(file_name: &str, text: &str, statistics: &Statistics) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::new(file_name);
        let file = file::read(text, &mut problems);
        let planner = Planner::new();
        let columns = match Columns::new(statistics) {
            Ok(columns) => columns,
            Err(error) => {
                problems.add(None, Finding::at(None, reason(&error)));
                return Err(problems.into_sorted());
            }
        };
        let mut used = Vec::new();
        let mut rules: Vec<(RuleInfo, Predicate)> = Vec::new();
        for rule in file.rules {
            let predicate = rule.when.map(|when| {
                predicate::plan(&planner, &columns, &when, &file.limits, &mut used).map_err(|findings| {
                    for finding in findings {
                        problems.add(Some(&rule.subject), finding);
                    }
                })
            });
            if let (Some(Ok(predicate)), Some(info)) = (predicate, rule.info) {
                rules.push((RuleInfo { when: predicate.written.clone(), ..info }, predicate));
            }
        }
        for limit in file.limits.iter().filter(|limit| !used.contains(&limit.name)) {
            let message = format!("limit `{}` is used by no rule", limit.name);
            problems.add(None, Finding::at(Some(limit.position), message));
        }
        if !problems.is_empty() {
            return Err(problems.into_sorted());
        }
        let (infos, predicates): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
        match RulesPlan::new(&planner, statistics, &infos, &predicates) {
            Ok(plan) => {
                let rules = Self {
                    mode: file.mode,
                    infos: infos.into(),
                    plan: Arc::new(plan),
                    statistics: statistics.clone(),
                    version: String::new(),
                };
                Ok(rules.in_mode(file.mode))
            }
            Err(error) => {
                problems.add(None, Finding::at(None, reason(&error)));
                Err(problems.into_sorted())
            }
        }
    }

    /// What a file declares, checked by everything but its predicates: quick, and its problems are among those of
    /// [`Rules::parse`]. The rules' `when` is empty.
    ///
    /// # Errors
    /// All problems that were found, with their places.
    pub fn outline(file_name: &str, text: &str) -> Result<Vec<RuleInfo>, Vec<Problem>> {
        let mut problems = Problems::new(file_name);
        let file = file::read(text, &mut problems);
        if problems.is_empty() {
            Ok(file.rules.into_iter().filter_map(|rule| rule.info).collect())
        } else {
            Err(problems.into_sorted())
        }
    }

    /// The same rules in another mode.
    pub fn in_mode(self, mode: Mode) -> Self {
        let effective = format!("{mode:?} {} {:?}", self.statistics.version(), self.infos);
        let version = format!("{:012x}", XxHash64::oneshot(0, effective.as_bytes()) >> 16);
        Self { mode, version, ..self }
    }

    /// Whether matches act.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Short hash of the effective content: it differs when a rule, the mode or a statistic differs.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All rules, disabled ones too, in the order of the file.
    pub fn list(&self) -> &[RuleInfo] {
        &self.infos
    }

    /// The statistics that they were compiled for.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    pub(crate) fn plan(&self) -> &RulesPlan {
        &self.plan
    }
}

/// `lock`, `throttle`, ... as a rules file spells them.
pub(crate) fn action_name(action: Action) -> &'static str {
    match action {
        Action::Observe => "observe",
        Action::Notify => "notify",
        Action::Throttle { .. } => "throttle",
        Action::Lock { .. } => "lock",
    }
}

pub(crate) const ACTIONS: [&str; 4] = ["observe", "notify", "throttle", "lock"];

fn queued_mail(name: &str) -> Option<QueuedMail> {
    match name {
        "keep" => Some(QueuedMail::Keep),
        "hold" => Some(QueuedMail::Hold),
        "delete" => Some(QueuedMail::Delete),
        _ => None,
    }
}

fn allowed_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    list(names)
}
