//! Rules: SQL predicates over the statistics of an account, and what is asked for when one holds.

mod document;
mod file;
mod gate;
mod overrides;
mod plan;
mod predicate;
mod variants;

pub(crate) use gate::{Counter, Gates, Room};
pub use overrides::Limits;
pub(crate) use plan::{AccountColumn, Comparison, CompiledRule, RulesPlan, SecondStep, StepPlan};
pub use variants::RuleSettings;
pub(crate) use variants::{Variant, Variants};

use crate::problem::{Finding, Problem, Problems, list};
use crate::sql::plan::{Planner, reason};
use crate::statistics::Statistics;
use predicate::Columns;
use std::sync::Arc;
use tidegate_domain::{Account, Action, QueuedMail};
use twox_hash::XxHash64;
use variants::{Definition, Maker, Source, Trouble};

/// The rules that ship with Tidegate, in the file format of [`Rules::parse`].
pub const DEFAULT_RULES: &str = include_str!("../../defaults/rules.toml");

/// A rule set, compiled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rules {
    mode: Mode,
    infos: Arc<[RuleInfo]>,
    definition: Arc<Definition>,
    /// What of the settings is in force.
    settings: Arc<RuleSettings>,
    variants: Arc<Variants>,
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
    /// Whether an administrator switched it off, whatever the file says.
    pub switched_off: bool,
    /// The account domains that it is limited to; empty means all.
    pub domains: Vec<String>,
}

impl RuleInfo {
    /// Whether the rule concerns an account: it is limited to no domains, or to its.
    pub(crate) fn concerns(&self, account: &Account) -> bool {
        self.domains.is_empty()
            || account.domain().is_some_and(|domain| self.domains.iter().any(|allowed| allowed == domain))
    }
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
    /// predicates use as `$name`), `[[rule]]` tables, and other limits for some: `[[limits_for]]` with `domains`,
    /// `accounts` and `limits`, and `[probation]`, for accounts that were unlocked lately, with `limits` or a `factor`
    /// for those that `tighten` names (default all).
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
        let (mut infos, mut sources): (Vec<RuleInfo>, Vec<Source>) = (Vec::new(), Vec::new());
        for rule in file.rules {
            let Some(when) = rule.when else { continue };
            match predicate::plan(&planner, &columns, &when, &file.limits, &mut used) {
                Ok(predicate) => {
                    let Some(info) = rule.info else { continue };
                    sources.push(Source { when, enabled: info.enabled, predicate: Arc::new(predicate) });
                    infos.push(RuleInfo { when: sources[sources.len() - 1].predicate.written.clone(), ..info });
                }
                Err(findings) => findings.into_iter().for_each(|finding| problems.add(Some(&rule.subject), finding)),
            }
        }
        for limit in file.limits.iter().filter(|limit| !used.contains(&limit.name)) {
            let message = format!("limit `{}` is used by no rule", limit.name);
            problems.add(None, Finding::at(Some(limit.position), message));
        }
        if !problems.is_empty() {
            return Err(problems.into_sorted());
        }
        let definition = Definition { rules: sources, limits: file.limits, overrides: file.overrides };
        let maker = Maker { planner: &planner, columns: &columns, statistics, infos: &infos, definition: &definition };
        match maker.make(&RuleSettings::default()) {
            Ok((variants, troubles)) if troubles.is_empty() => {
                let rules = Self {
                    mode: file.mode,
                    infos: infos.into(),
                    definition: Arc::new(definition),
                    settings: Arc::default(),
                    variants: Arc::new(variants),
                    statistics: statistics.clone(),
                    version: String::new(),
                };
                Ok(rules.in_mode(file.mode))
            }
            Ok((_, troubles)) => {
                for Trouble { subject, message, position } in troubles {
                    problems.add(Some(&subject), Finding::at(position, message));
                }
                Err(problems.into_sorted())
            }
            Err(message) => {
                problems.add(None, Finding::at(None, message));
                Err(problems.into_sorted())
            }
        }
    }

    /// The same rules with what administrators set, in place of what they had set before; and what of it is left out,
    /// a line each. It takes some milliseconds for each set of limits, so it is not for a loop that others wait for.
    pub fn with_settings(&self, settings: RuleSettings) -> (Self, Vec<String>) {
        let mut infos = self.infos.to_vec();
        for (info, rule) in infos.iter_mut().zip(&self.definition.rules) {
            info.switched_off = settings.switched_off.contains(&info.name);
            info.enabled = rule.enabled && !info.switched_off;
        }
        let known = |name: &&String| infos.iter().any(|info| info.name == **name);
        let mut problems: Vec<String> = settings
            .switched_off
            .iter()
            .filter(|name| !known(name))
            .map(|name| format!("settings: rule `{name}` is switched off, and there is none of this name"))
            .collect();
        let planner = Planner::new();
        let made = Columns::new(&self.statistics).map_err(|error| reason(&error)).and_then(|columns| {
            let (statistics, definition) = (&self.statistics, self.definition.as_ref());
            Maker { planner: &planner, columns: &columns, statistics, infos: &infos, definition }.make(&settings)
        });
        match made {
            Ok((variants, troubles)) => {
                problems.extend(troubles.into_iter().map(|trouble| {
                    let Trouble { subject, message, .. } = trouble;
                    format!("settings: {subject}: {message}: left out")
                }));
                let rules = Self {
                    infos: infos.into(),
                    settings: Arc::new(settings),
                    variants: Arc::new(variants),
                    ..self.clone()
                };
                (rules.in_mode(self.mode), problems)
            }
            Err(message) => (self.clone(), vec![format!("settings: the rules could not be planned again: {message}")]),
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
        let (overrides, settings) = (self.definition.overrides.written(), &self.settings.limits_for);
        let effective = format!("{mode:?} {} {:?} {overrides} {settings:?}", self.statistics.version(), self.infos);
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

    /// The file's `[limits]`.
    pub fn limits(&self) -> Limits {
        self.definition.limits.iter().map(|limit| (limit.name.clone(), limit.value)).collect()
    }

    pub(crate) fn variants(&self) -> &Variants {
        &self.variants
    }

    /// With the file's own limits.
    pub(crate) fn plan(&self) -> &RulesPlan {
        self.variants.plan(0)
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
