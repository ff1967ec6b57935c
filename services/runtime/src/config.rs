//! One TOML file into a typed configuration, with every problem reported at once.

use serde::de::DeserializeOwned;
use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration that can say what is wrong with it.
pub trait Validate {
    /// Adds every problem to `problems`, with keys below `path` (empty at the top).
    fn validate(&self, path: &str, problems: &mut Problems);
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, e.g. `control.listen`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or has keys or types that are not known.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, as the parser says, with the line.
        message: String,
    },
    /// The values cannot be.
    #[error("{}: {} in the configuration\n{problems}", path.display(), count(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Problems,
    },
}

/// Reads and checks the configuration in `path`.
///
/// # Errors
/// When it cannot be read, is not TOML of this shape, or its values cannot be: then all problems are told.
pub fn load<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &read(path)?)
}

/// Reads the configuration in `path`, lets `adjust` put in what comes from elsewhere, e.g. the environment, and checks it.
///
/// # Errors
/// As for [`load`].
pub fn load_adjusted<T: DeserializeOwned + Validate>(
    path: &Path,
    adjust: impl FnOnce(&mut T),
) -> Result<T, ConfigError> {
    let (config, problems) = parse_adjusted(path, &read(path)?, adjust)?;
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { path: path.to_owned(), problems }) }
}

/// Reads the configuration in `path` and gives it with its problems, for one who checks more than the values.
///
/// # Errors
/// When it cannot be read or is not TOML of this shape.
pub fn load_with_problems<T: DeserializeOwned + Validate>(path: &Path) -> Result<(T, Problems), ConfigError> {
    parse_with_problems(path, &read(path)?)
}

/// The same from text that was read already; `path` is what errors call it.
///
/// # Errors
/// As for [`load`], but for reading.
pub fn parse<T: DeserializeOwned + Validate>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let (config, problems) = parse_with_problems(path, text)?;
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { path: path.to_owned(), problems }) }
}

fn parse_with_problems<T: DeserializeOwned + Validate>(path: &Path, text: &str) -> Result<(T, Problems), ConfigError> {
    parse_adjusted(path, text, |_| {})
}

fn parse_adjusted<T: DeserializeOwned + Validate>(
    path: &Path,
    text: &str,
    adjust: impl FnOnce(&mut T),
) -> Result<(T, Problems), ConfigError> {
    let mut config: T = toml::from_str(text)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() })?;
    adjust(&mut config);
    let mut problems = Problems::default();
    config.validate("", &mut problems);
    Ok((config, problems))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// `path.key`, or just `key` at the top.
pub fn key(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Problems {
    /// Adds a problem with the key `path.name`.
    pub fn add(&mut self, path: &str, name: &str, message: impl Into<String>) {
        self.0.push(Problem { key: key(path, name), message: message.into() });
    }

    /// Adds a problem when `value` is not within `allowed` (inclusive).
    #[allow(clippy::needless_pass_by_value)] // Numbers, which are copied.
    pub fn check_range<T: PartialOrd + Copy + fmt::Display>(
        &mut self,
        path: &str,
        name: &str,
        value: T,
        allowed: std::ops::RangeInclusive<T>,
    ) {
        if !allowed.contains(&value) {
            self.add(path, name, format!("is {value}; allowed: {} to {}", allowed.start(), allowed.end()));
        }
    }

    /// Adds a problem when `value` is empty.
    pub fn check_set(&mut self, path: &str, name: &str, value: &str) {
        if value.trim().is_empty() {
            self.add(path, name, "must be set");
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "  {}: {}", problem.key, problem.message)?;
        }
        Ok(())
    }
}

fn count(problems: &Problems) -> String {
    match problems.0.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        port_count: u32,
    }

    impl Validate for Sample {
        fn validate(&self, path: &str, problems: &mut Problems) {
            problems.check_set(path, "name", &self.name);
            problems.check_range(path, "port_count", self.port_count, 1..=10);
        }
    }

    fn error(text: &str) -> String {
        parse::<Sample>(Path::new("sample.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn all_problems_are_told_at_once_with_what_is_allowed() {
        let text = error("name = ' '\nport_count = 77\n");
        assert_eq!(
            text,
            "sample.toml: 2 problems in the configuration\n  name: must be set\n  port_count: is 77; allowed: 1 to 10"
        );
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line() {
        let text = error("name = 'a'\nport_count = 1\nprot_count = 2\n");
        assert!(text.contains("line 3") && text.contains("unknown field `prot_count`"), "{text}");
    }

    #[test]
    fn what_comes_from_elsewhere_is_checked_too() {
        let adjusted = |name: &str| {
            let path = Path::new("sample.toml");
            parse_adjusted::<Sample>(path, "name = 'a'\nport_count = 1\n", |sample| name.clone_into(&mut sample.name))
        };
        let (sample, problems) = adjusted("b").unwrap();
        assert!(sample.name == "b" && problems.is_empty());
        assert_eq!(adjusted("").unwrap().1.to_string(), "  name: must be set");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load::<Sample>(Path::new("/nowhere/sample.toml")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/sample.toml"));
    }
}
