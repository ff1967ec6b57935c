//! What can be set under `[access]`.

use crate::failures::FailureBounds;
use crate::jwt::JwtConfig;
use crate::people::People;
use crate::token_file::TokenFile;
use crate::watched_file::read;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tidegate_runtime::config::{Problems, Validate, key};
use tidegate_runtime::error_line;

/// How callers prove who they are. One section for control, console and history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// The trust domain that the names in certificates must have (`spiffe://TRUSTDOMAIN/...`); none: any that the
    /// authority has signed.
    pub trust_domain: Option<String>,
    /// TOML file with the people of user certificates, and what is revoked by name. Watched.
    pub people: Option<PathBuf>,
    /// TOML file with tokens, which `tidegate token` writes. Watched.
    pub tokens: Option<PathBuf>,
    /// JWTs of an OIDC provider; none: they are refused.
    pub jwt: Option<JwtConfig>,
    /// What happens to addresses whose credentials are refused again and again.
    pub failures: FailureBounds,
    /// Certificates for edges, given out by control; none: none are.
    pub enrolment: Option<EnrolmentConfig>,
}

/// How control gives out certificates for edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentConfig {
    /// PEM file with the certificate of the authority that signs, and those between it and the root, if there are any.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// How long a certificate counts, in days; no longer than the authority's own.
    #[serde(default = "default_lifetime_days")]
    pub lifetime_days: u32,
}

fn default_lifetime_days() -> u32 {
    90
}

impl Validate for AccessConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        if let Some(domain) = &self.trust_domain
            && !crate::certificate::is_trust_domain(domain)
        {
            let allowed = "allowed: lower-case letters, digits, dots, hyphens and underscores, e.g. example.org";
            problems.add(path, "trust_domain", format!("is {domain:?}; {allowed}"));
        }
        if self.people.is_none() && self.tokens.is_none() && self.jwt.is_none() {
            problems.add(path, "people", "is not set, nor tokens, nor jwt: nobody could prove who they are");
        }
        check_file(path, "people", self.people.as_deref(), |text| People::parse(text).map(drop), problems);
        // One that hosts enrol with is made when it is not there.
        let is_made = |file: &&Path| self.enrolment.is_some() && !file.exists();
        let tokens = self.tokens.as_deref().filter(|file| !is_made(file));
        check_file(path, "tokens", tokens, |text| TokenFile::parse(text).map(drop), problems);
        if let Some(jwt) = &self.jwt {
            jwt.validate(&key(path, "jwt"), problems);
        }
        self.failures.validate(&key(path, "failures"), problems);
        if let Some(enrolment) = &self.enrolment {
            let path = key(path, "enrolment");
            if self.trust_domain.is_none() {
                problems.add(&path, "certificate", "needs access.trust_domain, which the certificates' names bear");
            }
            if self.tokens.is_none() {
                problems.add(&path, "certificate", "needs access.tokens, the file with the tokens for enrolment");
            }
            problems.check_range(&path, "lifetime_days", enrolment.lifetime_days, 1..=3_650);
            if let Err(error) = enrolment.open() {
                problems.add(&path, "certificate", error_line(&error));
            }
        }
    }
}

fn check_file(
    path: &str,
    name: &str,
    file: Option<&Path>,
    parse: impl FnOnce(&str) -> Result<(), Vec<String>>,
    problems: &mut Problems,
) {
    let Some(file) = file else { return };
    match read(file) {
        Ok(text) => {
            for line in parse(&text).err().unwrap_or_default() {
                problems.add(path, name, format!("{}: {line}", file.display()));
            }
        }
        Err(error) => problems.add(path, name, format!("cannot read {}: {error}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn problems(config: &AccessConfig) -> String {
        let mut problems = Problems::default();
        config.validate("access", &mut problems);
        problems.to_string()
    }

    #[test]
    fn every_problem_is_told_with_its_key() {
        assert!(problems(&AccessConfig::default()).contains("access.people: is not set, nor tokens"));
        let folder = TempDir::new().unwrap();
        let people = folder.path().join("people.toml");
        std::fs::write(&people, "[[person]]\nname = ''\nrole = 'viewer'\n").unwrap();
        let config = AccessConfig {
            trust_domain: Some("Not One/".into()),
            people: Some(people),
            tokens: Some(folder.path().join("none.toml")),
            ..AccessConfig::default()
        };
        let text = problems(&config);
        assert!(text.contains("access.trust_domain: is \"Not One/\""), "{text}");
        assert!(text.contains("access.people: ") && text.contains("people.toml: person 1"), "{text}");
        assert!(text.contains("access.tokens: cannot read "), "{text}");
    }

    #[test]
    fn a_file_that_hosts_enrol_with_need_not_be_there() {
        let folder = TempDir::new().unwrap();
        let enrolment = EnrolmentConfig { certificate: "none".into(), key: "none".into(), lifetime_days: 90 };
        let tokens = Some(folder.path().join("tokens.toml"));
        let config = AccessConfig { tokens, enrolment: Some(enrolment), ..AccessConfig::default() };
        assert!(!problems(&config).contains("access.tokens"), "{}", problems(&config));
        assert!(problems(&AccessConfig { enrolment: None, ..config }).contains("access.tokens: cannot read "));
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<AccessConfig>("persons = 'x'").unwrap_err().to_string().contains("unknown field"));
    }
}
