//! Statistics and rules from files, watched for changes.

use crate::config::{RuleMode, StreamConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use tidegate_detect::{DEFAULT_RULES, DEFAULT_STATISTICS, Mode, Problem, Rules, Statistics};

/// The files that say what is counted and what is decided.
#[derive(Debug)]
pub struct RuleFiles {
    rules_path: Option<PathBuf>,
    mode: Option<Mode>,
    statistics: Statistics,
    /// What the rules file held when it was last looked at, so that a change is seen whatever its time stamp says.
    last_text: String,
}

/// Everything that is wrong with a statistics or rules file.
#[derive(Debug)]
pub enum RuleFileError {
    /// A file could not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has problems.
    Problems(Vec<Problem>),
}

impl RuleFiles {
    /// Reads and checks both files, or the shipped ones.
    ///
    /// # Errors
    /// All problems of the statistics, or else all of the rules.
    pub fn load(config: &StreamConfig) -> Result<(Self, Rules), RuleFileError> {
        let (name, text) = match &config.statistics {
            Some(path) => (path.display().to_string(), read(path)?),
            None => ("the shipped statistics.sql".to_owned(), DEFAULT_STATISTICS.to_owned()),
        };
        let statistics = Statistics::parse(&name, &text).map_err(RuleFileError::Problems)?;
        let mode = config.mode.map(|mode| match mode {
            RuleMode::Observe => Mode::Observe,
            RuleMode::Enforce => Mode::Enforce,
        });
        let mut files = Self { rules_path: config.rules.clone(), mode, statistics, last_text: String::new() };
        files.last_text = files.read_rules()?;
        let rules = files.parse()?;
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
        let text = self.read_rules()?;
        if text == self.last_text {
            return Ok(None);
        }
        self.last_text = text;
        self.parse().map(Some)
    }

    /// The statistics that the rules are compiled for. A change of their file needs a restart.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    fn read_rules(&self) -> Result<String, RuleFileError> {
        match &self.rules_path {
            Some(path) => read(path),
            None => Ok(DEFAULT_RULES.to_owned()),
        }
    }

    fn parse(&self) -> Result<Rules, RuleFileError> {
        let name = match &self.rules_path {
            Some(path) => path.display().to_string(),
            None => "the shipped rules.toml".to_owned(),
        };
        let rules = Rules::parse(&name, &self.last_text, &self.statistics).map_err(RuleFileError::Problems)?;
        Ok(match self.mode {
            Some(mode) => rules.in_mode(mode),
            None => rules,
        })
    }
}

fn read(path: &Path) -> Result<String, RuleFileError> {
    std::fs::read_to_string(path).map_err(|source| RuleFileError::Read { path: path.to_owned(), source })
}

impl RuleFileError {
    /// One line for each problem.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Read { path, source } => vec![format!("cannot read {}: {source}", path.display())],
            Self::Problems(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for RuleFileError {}
