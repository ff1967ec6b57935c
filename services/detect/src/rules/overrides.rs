//! Other limits than `[limits]`: for some domains and accounts, and for accounts on probation.

use super::document::Table;
use super::file::Limit;
use crate::problem::{Finding, Position, Problems, list, suggestion};
use std::collections::BTreeMap;
use tidegate_domain::Account;
use toml::de::DeValue;

/// Numbers that predicates use as `$name`, by name.
pub type Limits = BTreeMap<String, f64>;

/// What a rules file says besides `[limits]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    /// By domain or account, and where it stands.
    pub limits_for: BTreeMap<String, (Limits, Position)>,
    pub probation: Option<Probation>,
}

/// How accounts are judged for a time after an unlock.
#[derive(Debug, Clone)]
pub(super) struct Probation {
    /// These numbers.
    limits: Limits,
    /// The others of `tighten` times this.
    factor: f64,
    tighten: Vec<String>,
    pub position: Position,
}

impl Overrides {
    /// What they say, without places: the same for files that mean the same.
    pub fn written(&self) -> String {
        let limits_for = self.limits_for.iter().map(|(subject, (limits, _))| format!("{subject:?} {limits:?} "));
        let probation = self.probation.as_ref();
        let probation = probation.map(|one| format!("{:?} {} {:?}", one.limits, one.factor, one.tighten));
        limits_for.chain(probation).collect()
    }
}

impl Probation {
    /// The limits of an account on probation whose limits are `usual` otherwise. A number of the file tightens, in the
    /// direction in which it differs from `base`, the file's own: it never loosens what is tighter already.
    pub fn tightened(&self, usual: &Limits, base: &Limits) -> Limits {
        let mut limits = usual.clone();
        for name in &self.tighten {
            limits.entry(name.clone()).and_modify(|limit| *limit *= self.factor);
        }
        for (name, number) in &self.limits {
            let (Some(usual), Some(base)) = (usual.get(name), base.get(name)) else { continue };
            let tighter = if number <= base { number.min(*usual) } else { number.max(*usual) };
            limits.insert(name.clone(), tighter);
        }
        limits
    }
}

/// Reads `[[limits_for]]` and `[probation]`.
pub(super) fn read(top: &Table, known: &[Limit], problems: &mut Problems) -> Overrides {
    let mut overrides = Overrides::default();
    if let Some(tables) = top.tables("limits_for", "[[limits_for]]", problems) {
        for (number, table) in tables.into_iter().enumerate() {
            let table = Table { subject: Some(format!("limits_for {}", number + 1)), ..table };
            read_limits_for(&table, known, &mut overrides, problems);
        }
    }
    overrides.probation = top.table("probation", problems).and_then(|table| {
        let table = Table { subject: Some("probation".to_owned()), ..table };
        read_probation(&table, known, problems)
    });
    overrides
}

fn read_limits_for(table: &Table, known: &[Limit], overrides: &mut Overrides, problems: &mut Problems) {
    table.only(&["domains", "accounts", "limits"], problems);
    let limits = read_limits(table, known, problems);
    let domains = table.texts("domains", problems).unwrap_or_default();
    for domain in domains.iter().filter(|domain| domain.is_empty() || domain.contains(['@', '*', ' '])) {
        let message = format!("`{domain}` in `domains` is not a domain");
        table.report(problems, Finding::at(Some(table.place_of("domains")), message).allowing("e.g. example.org"));
    }
    let accounts = table.texts("accounts", problems).unwrap_or_default();
    for (account, error) in accounts.iter().filter_map(|account| Some((account, Account::parse(account).err()?))) {
        let message = format!("`{account}` in `accounts`: {error}");
        table.report(problems, Finding::at(Some(table.place_of("accounts")), message).allowing("e.g. jo@example.org"));
    }
    let place = table.place_of("");
    if domains.is_empty() && accounts.is_empty() {
        let finding = Finding::at(Some(place), "it is for nobody");
        table.report(problems, finding.allowing("`domains = [...]`, `accounts = [...]`"));
    }
    if table.value("limits").is_none() {
        table.report(problems, Finding::at(Some(place), "`limits` is missing").allowing("limits = { name = number }"));
    }
    let domains = domains.into_iter().map(|domain| domain.trim_end_matches('.').to_lowercase());
    for subject in domains.chain(accounts.into_iter().map(str::to_owned)) {
        let again = overrides.limits_for.insert(subject.clone(), (limits.clone(), place)).is_some();
        if again {
            table.report(problems, Finding::at(Some(place), format!("`{subject}` has limits of its own already")));
        }
    }
}

fn read_probation(table: &Table, known: &[Limit], problems: &mut Problems) -> Option<Probation> {
    table.only(&["limits", "factor", "tighten"], problems);
    let limits = read_limits(table, known, problems);
    let position = table.place_of("");
    let factor = table.value("factor").map(|value| {
        let read = number(value.get_ref()).filter(|factor| *factor > 0.0 && *factor <= 1.0);
        if read.is_none() {
            let finding = Finding::at(Some(table.place_of("factor")), "`factor` is not a share");
            table.report(problems, finding.allowing("a number above 0, at most 1, e.g. 0.5"));
        }
        read.unwrap_or(1.0)
    });
    let named = table.texts("tighten", problems);
    for name in named.iter().flatten() {
        check_known(table, "tighten", name, known, problems);
    }
    if named.is_some() && factor.is_none() {
        let finding = Finding::at(Some(table.place_of("tighten")), "`tighten` means nothing without `factor`");
        table.report(problems, finding.allowing("`factor = 0.5` beside it"));
    }
    if factor.is_none() && limits.is_empty() {
        table.report(problems, Finding::at(Some(position), "it changes nothing").allowing("`factor`, `limits`"));
        return None;
    }
    let tighten = match named {
        Some(named) => named.into_iter().map(str::to_owned).collect(),
        None if factor.is_some() => known.iter().map(|limit| limit.name.clone()).collect(),
        None => Vec::new(),
    };
    Some(Probation { limits, factor: factor.unwrap_or(1.0), tighten, position })
}

/// The table `limits` in `table`; each name has to be one of `[limits]`.
fn read_limits(table: &Table, known: &[Limit], problems: &mut Problems) -> Limits {
    let mut limits = Limits::new();
    for (name, value) in table.table("limits", problems).iter().flat_map(|limits| limits.entries.iter()) {
        let name = name.get_ref().as_ref();
        check_known(table, "limits", name, known, problems);
        if let Some(value) = number(value.get_ref()) {
            limits.insert(name.to_owned(), value);
        } else {
            let message = format!("limit `{name}` is not a number that a predicate can use");
            let finding = Finding::at(Some(table.place_of("limits")), message);
            table.report(problems, finding.allowing("0 or more, e.g. 60 or 0.1"));
        }
    }
    limits
}

fn check_known(table: &Table, key: &str, name: &str, known: &[Limit], problems: &mut Problems) {
    let names = || known.iter().map(|limit| limit.name.as_str());
    if !names().any(|known| known == name) {
        let message = format!("unknown limit `{name}`{}", suggestion(name, names()));
        let finding = Finding::at(Some(table.place_of(key)), message);
        table.report(problems, finding.allowing(format!("names in [limits]: {}", list(names()))));
    }
}

/// A number that SQL can have: finite, and not negative.
pub(super) fn number(value: &DeValue) -> Option<f64> {
    let value: f64 = match value {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok()?,
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => return None,
    };
    (value.is_finite() && value >= 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(numbers: &[(&str, f64)]) -> Limits {
        numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    #[test]
    fn probation_tightens_and_never_loosens() {
        let probation = Probation {
            limits: limits(&[("alike", 0.3), ("spam", 2.0)]),
            factor: 0.5,
            tighten: vec!["burst".to_owned(), "spam".to_owned()],
            position: Position { line: 1, column: 1 },
        };
        // `size_cv <= $alike` holds more often when the number is higher.
        let base = limits(&[("alike", 0.1), ("burst", 60.0), ("other", 7.0), ("spam", 5.0)]);
        let expected = limits(&[("alike", 0.3), ("burst", 30.0), ("other", 7.0), ("spam", 2.0)]);
        assert_eq!(probation.tightened(&base, &base), expected);
        let tight = limits(&[("alike", 0.5), ("burst", 4.0), ("other", 9.0), ("spam", 1.0)]);
        let expected = limits(&[("alike", 0.5), ("burst", 2.0), ("other", 9.0), ("spam", 1.0)]);
        assert_eq!(probation.tightened(&tight, &base), expected);
    }
}
