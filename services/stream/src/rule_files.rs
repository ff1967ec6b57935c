//! Statistics and rules from files, watched for changes.

use crate::config::{RuleMode, StreamConfig};
use std::path::{Path, PathBuf};
use tidegate_detect::{DEFAULT_RULES, DEFAULT_STATISTICS, Mode, Problem, Rules, Source, Statistics};

/// The files that say what is counted and what is decided.
#[derive(Debug)]
pub struct RuleFiles {
    rules_path: Option<PathBuf>,
    mode: Option<Mode>,
    statistics: Statistics,
    /// What the rules file held when it was last looked at, so that a change is seen whatever its time stamp says.
    last_text: String,
}

/// Everything that is wrong with the statistics and rules files, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct RuleFileError(Vec<String>);

impl RuleFiles {
    /// Reads and checks both files, or the shipped ones.
    ///
    /// # Errors
    /// All problems of both.
    pub fn load(config: &StreamConfig) -> Result<(Self, Rules), RuleFileError> {
        let statistics_name = name(config.statistics.as_deref(), "the shipped statistics.sql");
        let rules_name = name(config.rules.as_deref(), "the shipped rules.toml");
        let statistics_text = read(config.statistics.as_deref(), DEFAULT_STATISTICS);
        let rules_text = read(config.rules.as_deref(), DEFAULT_RULES);
        let (statistics_text, rules_text) = match (statistics_text, rules_text) {
            (Ok(statistics), Ok(rules)) => (statistics, rules),
            (statistics, rules) => {
                let unreadable = [statistics.err(), rules.err()].into_iter().flatten();
                return Err(RuleFileError(unreadable.flat_map(|error| error.0).collect()));
            }
        };
        let statistics = Source { name: &statistics_name, text: &statistics_text };
        let rules = Source { name: &rules_name, text: &rules_text };
        let (statistics, rules) = tidegate_detect::parse_files(statistics, rules).map_err(|found| problems(&found))?;
        let mode = config.mode.map(|mode| match mode {
            RuleMode::Observe => Mode::Observe,
            RuleMode::Enforce => Mode::Enforce,
        });
        let files = Self { rules_path: config.rules.clone(), mode, statistics, last_text: rules_text };
        let rules = files.with_mode(rules);
        Ok((files, rules))
    }

    /// Looks whether the rules file has changed, and gives what it says now.
    ///
    /// # Errors
    /// When it cannot be read or has problems: the rules in force stay. It is told once for each change.
    pub fn poll(&mut self) -> Result<Option<Rules>, RuleFileError> {
        if self.rules_path.is_none() {
            return Ok(None);
        }
        let text = read(self.rules_path.as_deref(), DEFAULT_RULES)?;
        if text == self.last_text {
            return Ok(None);
        }
        self.last_text = text;
        let name = name(self.rules_path.as_deref(), "the shipped rules.toml");
        let rules = Rules::parse(&name, &self.last_text, &self.statistics).map_err(|found| problems(&found))?;
        Ok(Some(self.with_mode(rules)))
    }

    /// The statistics that the rules are compiled for. A change of their file needs a restart.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    fn with_mode(&self, rules: Rules) -> Rules {
        match self.mode {
            Some(mode) => rules.in_mode(mode),
            None => rules,
        }
    }
}

fn name(path: Option<&Path>, shipped: &str) -> String {
    path.map_or_else(|| shipped.to_owned(), |path| path.display().to_string())
}

fn read(path: Option<&Path>, shipped: &str) -> Result<String, RuleFileError> {
    let Some(path) = path else { return Ok(shipped.to_owned()) };
    std::fs::read_to_string(path)
        .map_err(|error| RuleFileError(vec![format!("cannot read {}: {error}", path.display())]))
}

fn problems(found: &[Problem]) -> RuleFileError {
    RuleFileError(found.iter().map(ToString::to_string).collect())
}

impl RuleFileError {
    /// One line for each problem.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}
