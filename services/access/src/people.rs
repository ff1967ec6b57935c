//! The file of people: whom user certificates stand for, and which names are revoked.

use crate::certificate::{CertificateName, is_name_part};
use crate::{Role, Scope};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

/// Most people, and most revoked names.
const MAX_ENTRIES: usize = 10_000;

/// Whom user certificates stand for, and which names are revoked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct People {
    people: BTreeMap<String, (Role, Scope)>,
    revoked: HashSet<Revoked>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Revoked {
    /// None stands for any.
    Edge {
        site: Option<String>,
        node: Option<String>,
    },
    User(String),
    Jwt(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    person: Vec<PersonLine>,
    #[serde(default)]
    revoked: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonLine {
    name: String,
    role: Role,
    domains: Option<Vec<String>>,
}

impl People {
    /// Reads the file's text.
    ///
    /// # Errors
    /// All problems, a line each.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let file: File = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut problems = Vec::new();
        let mut people = BTreeMap::new();
        for (index, PersonLine { name, role, domains }) in (1..).zip(file.person) {
            if !is_name_part(&name) {
                problems.push(format!("person {index}: the name is {name:?}; allowed: 1 to 255 octets without /"));
            }
            match scope(domains) {
                Ok(scope) => {
                    if people.insert(name.clone(), (role, scope)).is_some() {
                        problems.push(format!("person {index}: {name:?} is there twice"));
                    }
                }
                Err(problem) => problems.push(format!("person {index}: {problem}")),
            }
        }
        let mut revoked = HashSet::new();
        for entry in file.revoked {
            match Revoked::parse(&entry) {
                Some(entry) => drop(revoked.insert(entry)),
                None => problems.push(format!(
                    "revoked: {entry:?}; allowed: edge/SITE/NODE (* for any site or any node), user/NAME, jwt/NAME"
                )),
            }
        }
        for (what, count) in [("person", people.len()), ("revoked", revoked.len())] {
            if count > MAX_ENTRIES {
                problems.push(format!("{what}: {count} entries; allowed: at most {MAX_ENTRIES}"));
            }
        }
        if problems.is_empty() { Ok(Self { people, revoked }) } else { Err(problems) }
    }

    /// What the person called `name` may do, and about whom.
    pub fn get(&self, name: &str) -> Option<&(Role, Scope)> {
        self.people.get(name)
    }

    /// Whether certificates with this name are refused.
    pub fn is_revoked(&self, name: &CertificateName) -> bool {
        match name {
            CertificateName::Edge { site, node } => {
                let forms = [(Some(site), Some(node)), (Some(site), None), (None, Some(node)), (None, None)];
                forms.into_iter().any(|(site, node)| {
                    self.revoked.contains(&Revoked::Edge { site: site.cloned(), node: node.cloned() })
                })
            }
            CertificateName::User(name) => self.revoked.contains(&Revoked::User(name.clone())),
        }
    }

    /// Whether JWTs for this name are refused.
    pub fn is_jwt_revoked(&self, name: &str) -> bool {
        self.revoked.contains(&Revoked::Jwt(name.to_owned()))
    }
}

impl Revoked {
    fn parse(entry: &str) -> Option<Self> {
        let (kind, rest) = entry.split_once('/')?;
        let one = |part: &str| is_name_part(part).then(|| part.to_owned());
        let any = |part: &str| if part == "*" { Some(None) } else { one(part).map(Some) };
        match kind {
            "edge" => {
                let (site, node) = rest.split_once('/')?;
                Some(Self::Edge { site: any(site)?, node: any(node)? })
            }
            "user" => one(rest).map(Self::User),
            "jwt" => one(rest).map(Self::Jwt),
            _ => None,
        }
    }
}

/// The scope that a list of domains gives. Left out it is everything; an empty list is refused, since it could be meant
/// either way.
pub(crate) fn scope(domains: Option<Vec<String>>) -> Result<Scope, String> {
    let Some(domains) = domains else { return Ok(Scope::all()) };
    if domains.is_empty() {
        return Err("domains is empty; leave it out for all domains, or name some".to_owned());
    }
    let wrong = |domain: &&String| {
        domain.trim().is_empty() || domain.contains(|c: char| c == '@' || c == '*' || c == '/' || c.is_control())
    };
    match domains.iter().find(wrong) {
        Some(domain) => Err(format!("domains has {domain:?}; allowed: a domain, e.g. example.org")),
        None => Ok(Scope::domains(domains)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(site: &str, node: &str) -> CertificateName {
        CertificateName::Edge { site: site.into(), node: node.into() }
    }

    #[test]
    fn people_have_roles_and_domains() {
        let text = "[[person]]\nname = 'jo'\nrole = 'admin'\n[[person]]\nname = 'mo'\nrole = 'operator'\n\
                    domains = ['Example.org']\n";
        let people = People::parse(text).unwrap();
        assert_eq!(people.get("jo"), Some(&(Role::Admin, Scope::all())));
        assert_eq!(people.get("mo"), Some(&(Role::Operator, Scope::domains(["example.org"]))));
        assert_eq!(people.get("no"), None);
    }

    #[test]
    fn names_are_revoked_one_by_one_or_by_site_or_node() {
        let people =
            People::parse("revoked = ['edge/ams/mx1', 'edge/*/mx2', 'edge/fra/*', 'user/jo', 'jwt/jo']").unwrap();
        for (name, revoked) in [
            (edge("ams", "mx1"), true),
            (edge("lon", "mx1"), false),
            (edge("lon", "mx2"), true),
            (edge("fra", "mx9"), true),
            (edge("ams", "mx3"), false),
            (CertificateName::User("jo".into()), true),
            (CertificateName::User("mo".into()), false),
        ] {
            assert_eq!(people.is_revoked(&name), revoked, "{name}");
        }
        assert!(people.is_jwt_revoked("jo") && !people.is_jwt_revoked("mo"));
    }

    #[test]
    fn every_problem_is_told() {
        let text = "revoked = ['edge/ams', 'edge/a/b/c', 'user/', 'mx1']\n[[person]]\nname = 'jo'\nrole = 'viewer'\n\
                    domains = []\n[[person]]\nname = 'a/b'\nrole = 'viewer'\n[[person]]\nname = 'mo'\nrole = 'viewer'\n\
                    [[person]]\nname = 'mo'\nrole = 'viewer'\ndomains = ['*']\n[[person]]\nname = 'mo'\nrole = 'admin'";
        let problems = People::parse(text).unwrap_err();
        assert_eq!(problems.len(), 8, "{problems:#?}");
        assert!(People::parse("[[person]]\nname = 'jo'\nrole = 'root'").unwrap_err()[0].contains("unknown variant"));
        assert!(People::parse("[[person]]\nname = 'jo'\nrole = 'admin'\ndomain = ['x']").is_err());
    }
}
