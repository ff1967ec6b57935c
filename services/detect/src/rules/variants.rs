//! Variants of a rule set: the same rules with other limits, for domains, for accounts, and for those on probation.

use super::RuleInfo;
use super::file::{Limit, When};
use super::overrides::{Limits, Overrides};
use super::plan::RulesPlan;
use super::predicate::{self, Columns, Predicate};
use crate::problem::{Position, suggestion};
use crate::sql::plan::{Planner, reason};
use crate::statistics::Statistics;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_domain::Account;

/// Most different sets of limits, besides the file's own and those of probation.
pub(super) const MAX_SETS: usize = 256;

/// What administrators set at run time about rules.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleSettings {
    /// Rules that are not evaluated, whatever their file says.
    pub switched_off: BTreeSet<String>,
    /// Other limits, by domain or account. They go over the file's, an account's over its domain's.
    pub limits_for: BTreeMap<String, Limits>,
}

/// What rules are made of, so that they can be made again with other limits.
#[derive(Debug)]
pub(super) struct Definition {
    pub rules: Vec<Source>,
    pub limits: Vec<Limit>,
    pub overrides: Overrides,
}

/// One rule, as its file has it.
#[derive(Debug)]
pub(super) struct Source {
    pub when: When,
    pub predicate: Arc<Predicate>,
    pub enabled: bool,
}

/// One of the variants; 0 has the file's own limits.
pub(crate) type Variant = u16;

/// All variants of a rule set.
#[derive(Debug)]
pub(crate) struct Variants {
    plans: Vec<RulesPlan>,
    /// By domain or account.
    by_subject: HashMap<String, Variant>,
    /// For each variant the one of an account on probation; empty when that makes no difference.
    on_probation: Vec<Variant>,
}

/// Why some limits are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub subject: String,
    pub message: String,
    /// Where the limits stand, if it is in the rules file.
    pub position: Option<Position>,
}

/// Makes the variants of some rules.
pub(super) struct Maker<'a> {
    pub planner: &'a Planner,
    pub columns: &'a Columns,
    pub statistics: &'a Statistics,
    pub infos: &'a [RuleInfo],
    pub definition: &'a Definition,
}

impl Variants {
    /// Whether all accounts are judged alike.
    pub fn is_one(&self) -> bool {
        self.by_subject.is_empty() && self.on_probation.is_empty()
    }

    /// Whether it matters that an account is on probation.
    pub fn has_probation(&self) -> bool {
        !self.on_probation.is_empty()
    }

    /// The variant of an account.
    pub fn of(&self, account: &Account, on_probation: bool) -> Variant {
        let named = |subject: &str| self.by_subject.get(subject).copied();
        let variant = named(account.as_str()).or_else(|| named(account.domain()?)).unwrap_or(0);
        if on_probation { self.on_probation.get(usize::from(variant)).copied().unwrap_or(variant) } else { variant }
    }

    /// A variant's rules.
    pub fn plan(&self, variant: Variant) -> &RulesPlan {
        &self.plans[usize::from(variant)]
    }
}

impl Maker<'_> {
    /// The variants that file and settings ask for. What cannot be had is left out, and said.
    pub fn make(&self, settings: &RuleSettings) -> Result<(Variants, Vec<Trouble>), String> {
        let base = self.base();
        let mut troubles = Vec::new();
        let own: Vec<&Predicate> = self.definition.rules.iter().map(|rule| rule.predicate.as_ref()).collect();
        let own = RulesPlan::new(self.planner, self.statistics, self.infos, &own).map_err(|error| reason(&error))?;
        let mut plans = vec![own];
        let mut sets = Sets { known: HashMap::from([(key(&base), Ok(0))]), limits: vec![base.clone()] };
        let mut by_subject = HashMap::new();
        let subjects = effective(&self.definition.overrides, settings, &base, &mut troubles);
        for (subject, (limits, position)) in subjects {
            let mut tell = |message: String| {
                troubles.push(Trouble { subject: format!("limits for `{subject}`"), message, position });
            };
            if plans.len() > MAX_SETS && !sets.known.contains_key(&key(&limits)) {
                tell(format!("there are {MAX_SETS} different sets of limits already"));
            } else if let Some(variant) = self.variant(&limits, &mut sets, &mut plans, tell) {
                by_subject.insert(subject, variant);
            }
        }
        let mut on_probation = Vec::new();
        if let Some(probation) = &self.definition.overrides.probation {
            for (usual, limits) in (0..).zip(sets.limits.clone()) {
                let tell = |message: String| {
                    let position = Some(probation.position);
                    troubles.push(Trouble { subject: "probation".to_owned(), message, position });
                };
                let limits = probation.tightened(&limits, &base);
                on_probation.push(self.variant(&limits, &mut sets, &mut plans, tell).unwrap_or(usual));
            }
        }
        Ok((Variants { plans, by_subject, on_probation }, troubles))
    }

    fn base(&self) -> Limits {
        self.definition.limits.iter().map(|limit| (limit.name.clone(), limit.value)).collect()
    }

    /// The variant with these limits; none when its rules cannot be planned.
    fn variant(
        &self,
        limits: &Limits,
        sets: &mut Sets,
        plans: &mut Vec<RulesPlan>,
        tell: impl FnOnce(String),
    ) -> Option<Variant> {
        if let Some(known) = sets.known.get(&key(limits)) {
            return known.clone().map_err(tell).ok();
        }
        let variant = self.plan(limits).map(|plan| {
            plans.push(plan);
            sets.limits.push(limits.clone());
            // There are at most twice as many as sets are allowed.
            (plans.len() - 1) as Variant
        });
        sets.known.insert(key(limits), variant.clone());
        variant.map_err(tell).ok()
    }

    fn plan(&self, limits: &Limits) -> Result<RulesPlan, String> {
        let changed =
            |limit: &&Limit| limits.get(&limit.name).is_some_and(|value| value.to_bits() != limit.value.to_bits());
        let changed: Vec<&str> =
            self.definition.limits.iter().filter(changed).map(|limit| limit.name.as_str()).collect();
        let with =
            |limit: &Limit| Limit { value: limits.get(&limit.name).copied().unwrap_or(limit.value), ..limit.clone() };
        let numbers: Vec<Limit> = self.definition.limits.iter().map(with).collect();
        let predicate = |(info, rule): (&RuleInfo, &Source)| {
            if !rule.predicate.limits.iter().any(|name| changed.contains(&name.as_str())) {
                return Ok(Arc::clone(&rule.predicate));
            }
            let planned = predicate::plan(self.planner, self.columns, &rule.when, &numbers, &mut Vec::new());
            planned.map(Arc::new).map_err(|findings| {
                let message = findings.first().map_or("it cannot be planned", |finding| finding.message.as_str());
                format!("with them rule `{}`: {message}", info.name)
            })
        };
        let predicates: Vec<Arc<Predicate>> =
            self.infos.iter().zip(&self.definition.rules).map(predicate).collect::<Result<_, _>>()?;
        let predicates: Vec<&Predicate> = predicates.iter().map(Arc::as_ref).collect();
        RulesPlan::new(self.planner, self.statistics, self.infos, &predicates).map_err(|error| reason(&error))
    }
}

/// Sets of limits that were met.
struct Sets {
    /// Their variants, or why there can be none.
    known: HashMap<Vec<u64>, Result<Variant, String>>,
    /// By variant.
    limits: Vec<Limits>,
}

/// A set of limits, as what can be told apart. All sets have the same names.
fn key(limits: &Limits) -> Vec<u64> {
    limits.values().map(|value| value.to_bits()).collect()
}

/// The limits of each domain and account that has others than all.
fn effective(
    file: &Overrides,
    settings: &RuleSettings,
    base: &Limits,
    troubles: &mut Vec<Trouble>,
) -> BTreeMap<String, (Limits, Option<Position>)> {
    for (subject, limits) in &settings.limits_for {
        for name in limits.keys().filter(|name| !base.contains_key(*name)) {
            let message = format!("unknown limit `{name}`{}", suggestion(name, base.keys().map(String::as_str)));
            troubles.push(Trouble { subject: format!("limits for `{subject}`"), message, position: None });
        }
    }
    let with = |limits: &mut Limits, subject: &str| {
        let of_file = file.limits_for.get(subject).map(|(limits, _)| limits);
        for (name, value) in of_file.into_iter().chain(settings.limits_for.get(subject)).flatten() {
            limits.entry(name.clone()).and_modify(|limit| *limit = *value);
        }
    };
    let subjects: BTreeSet<&String> = file.limits_for.keys().chain(settings.limits_for.keys()).collect();
    let effective = subjects.into_iter().map(|subject| {
        let mut limits = base.clone();
        if let Some(domain) = Account::parse(subject).ok().as_ref().and_then(Account::domain) {
            with(&mut limits, domain);
        }
        with(&mut limits, subject);
        (subject.clone(), (limits, file.limits_for.get(subject).map(|(_, position)| *position)))
    });
    effective.collect()
}
