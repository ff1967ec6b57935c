//! The file of tokens as text: TOML.

use crate::Role;
use crate::certificate::is_name_part;
use crate::people::scope;
use crate::token::{SecretHash, is_id};
use crate::token_file::{Grant, MAX_TOKENS, TokenFile, TokenRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HEADER: &str = "\
# Tokens of Tidegate, written by `tidegate token`; the service sees a change within seconds. What is kept of a token is
# the SHA-256 of its secret: nobody can sign in with what stands here. Comments do not outlive the next change.
";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    token: Vec<Line>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domains: Option<Vec<String>>,
    /// `SITE/NODE`, instead of a role.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrols: Option<String>,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<String>,
    sha256: String,
}

impl TokenFile {
    /// Reads the file's text.
    ///
    /// # Errors
    /// All problems, a line each.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let file: FileText = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut problems = Vec::new();
        let mut tokens = BTreeMap::new();
        if file.token.len() > MAX_TOKENS {
            problems.push(format!("{} tokens; allowed: at most {MAX_TOKENS}", file.token.len()));
        }
        for (index, line) in (1..).zip(file.token) {
            let id = line.id.clone();
            match line.read() {
                Ok(token) => {
                    if tokens.insert(id.clone(), token).is_some() {
                        problems.push(format!("token {index}: the id {id:?} is there twice"));
                    }
                }
                Err(problem) => problems.push(format!("token {index} ({id:?}): {problem}")),
            }
        }
        if problems.is_empty() { Ok(Self(tokens)) } else { Err(problems) }
    }

    /// The file's text.
    pub(crate) fn to_text(&self) -> Result<String, toml::ser::Error> {
        let text = FileText { token: self.list().into_iter().map(Line::of).collect() };
        Ok(format!("{HEADER}\n{}", toml::to_string(&text)?))
    }
}

impl Line {
    fn of(token: &TokenRecord) -> Self {
        // Times come from this file, or were checked when the token was made.
        let text = |ms| time(ms).map(|time| humantime::format_rfc3339_seconds(time).to_string()).unwrap_or_default();
        let (role, domains, enrols) = match &token.grant {
            Grant::Person { role, scope } => {
                (Some(*role), scope.limited_to().map(|domains| domains.iter().cloned().collect()), None)
            }
            Grant::Enrol { site, node } => (None, None, Some(format!("{site}/{node}"))),
        };
        Self {
            id: token.id.clone(),
            name: token.name.clone(),
            role,
            domains,
            enrols,
            created: text(token.created_ms),
            expires: token.expires_ms.map(text),
            revoked: token.revoked_ms.map(text),
            used: token.used_ms.map(text),
            sha256: token.hash.to_hex(),
        }
    }

    fn read(self) -> Result<TokenRecord, String> {
        if !is_id(&self.id) {
            return Err("the id is not 12 hexadecimal digits".to_owned());
        }
        if !is_name_part(&self.name) {
            return Err(format!("the name is {:?}; allowed: 1 to 255 octets without /", self.name));
        }
        let ms = |name: &str, text: &str| {
            let time = humantime::parse_rfc3339(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let ms = time.and_then(|since| i64::try_from(since.as_millis()).ok());
            ms.ok_or_else(|| format!("{name} is {text:?}; allowed: a time like 2026-12-31T23:59:59Z"))
        };
        let grant = match (self.role, self.enrols) {
            (Some(role), None) => Grant::Person { role, scope: scope(self.domains)? },
            (None, Some(edge)) => {
                let named = edge.split_once('/').filter(|(site, node)| is_name_part(site) && is_name_part(node));
                let (site, node) = named.ok_or_else(|| format!("enrols is {edge:?}; allowed: SITE/NODE"))?;
                Grant::Enrol { site: site.to_owned(), node: node.to_owned() }
            }
            (None, None) => return Err("has neither a role nor enrols".to_owned()),
            (Some(_), Some(_)) => return Err("has a role and enrols; allowed: one of them".to_owned()),
        };
        Ok(TokenRecord {
            grant,
            created_ms: ms("created", &self.created)?,
            expires_ms: self.expires.as_deref().map(|text| ms("expires", text)).transpose()?,
            revoked_ms: self.revoked.as_deref().map(|text| ms("revoked", text)).transpose()?,
            used_ms: self.used.as_deref().map(|text| ms("used", text)).transpose()?,
            hash: SecretHash::from_hex(&self.sha256).ok_or("sha256 is not 64 lower-case hexadecimal digits")?,
            id: self.id,
            name: self.name,
        })
    }
}

/// None before 1970 or after the year 9999.
pub(crate) fn time(ms: i64) -> Option<SystemTime> {
    const END_OF_9999_S: u64 = 253_402_300_799;
    let since = Duration::from_millis(u64::try_from(ms).ok()?);
    (since.as_secs() <= END_OF_9999_S).then(|| UNIX_EPOCH + since)
}
