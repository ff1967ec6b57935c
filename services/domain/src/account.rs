//! The account: the authenticated login in canonical form.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Longest canonical account in octets: RFC 5321 allows 64 for a local part and 255 for a domain.
const MAX_OCTETS: usize = 320;
const LOCAL_PREFIX: &str = "local:";
const ADDRESS_PREFIX: &str = "address:";

/// The authenticated login (SASL user name) in canonical form, e.g. `jo@example.org`.
///
/// Mail without a login is never pooled under one empty account: its account is the local user
/// (`local:www-data`) or the client's address (`address:203.0.113.7`), marked so.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account(Arc<str>);

/// How a provider writes its logins, so that one person is always one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountForm {
    /// Realm appended to logins without a domain, e.g. `example.org`.
    pub default_realm: Option<String>,
    /// Whether `Jo@example.org` and `jo@example.org` are the same account (nearly everywhere they are).
    pub lower_case_local_part: bool,
}

/// What kind of sender an account names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountKind {
    /// An authenticated login.
    Login,
    /// A local user that submitted without a login (cron, PHP).
    LocalUser,
    /// A client address that is allowed to send without a login.
    ClientAddress,
}

/// Why a string is not an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Nothing was left after white space was cut off.
    #[error("an account's name is empty; give the login, e.g. jo@example.org")]
    Empty,
    /// Longer than any address can be.
    #[error("an account's name has {octets} octets; at most {MAX_OCTETS} are allowed")]
    TooLong {
        /// Octets found.
        octets: usize,
    },
    /// White space or a control character inside.
    #[error("account {name:?} contains white space or a control character")]
    Character {
        /// The name as it was given.
        name: String,
    },
    /// A login that looks like one of the marked forms.
    #[error("login {name:?} begins with a prefix that is kept for mail without a login")]
    Reserved {
        /// The name as it was given.
        name: String,
    },
}

impl Default for AccountForm {
    fn default() -> Self {
        Self { default_realm: None, lower_case_local_part: true }
    }
}

impl Account {
    /// The account of an authenticated login.
    ///
    /// # Errors
    /// When the login is empty, too long, has white space or control characters, or imitates a marked form.
    pub fn login(raw: &str, form: &AccountForm) -> Result<Self, AccountError> {
        let (local, domain) = split_login(check(raw)?);
        let realm = || form.default_realm.as_ref().map(|realm| realm.to_lowercase());
        let domain = domain.or_else(realm).filter(|domain| !domain.is_empty());
        let local = if form.lower_case_local_part { local.to_lowercase() } else { local.to_owned() };
        let name = match domain {
            Some(domain) => format!("{local}@{domain}"),
            None => local,
        };
        // Looked for after lower-casing, or `LOCAL:root` would pass for a local user.
        if name.starts_with(LOCAL_PREFIX) || name.starts_with(ADDRESS_PREFIX) {
            return Err(AccountError::Reserved { name: raw.to_owned() });
        }
        Ok(Self(check(&name)?.into()))
    }

    /// The account of a local user that submitted without a login.
    ///
    /// # Errors
    /// As for [`Account::login`].
    pub fn local_user(name: &str) -> Result<Self, AccountError> {
        Ok(Self(check(&format!("{LOCAL_PREFIX}{}", check(name)?))?.into()))
    }

    /// The account of a client address that may send without a login.
    pub fn client_address(address: IpAddr) -> Self {
        Self(format!("{ADDRESS_PREFIX}{}", address.to_canonical()).into())
    }

    /// Reads an account that is in canonical form already (from a topic, a command line, a file).
    ///
    /// # Errors
    /// When it could not have been produced by the other constructors.
    pub fn parse(canonical: &str) -> Result<Self, AccountError> {
        Ok(Self(check(canonical)?.into()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain of a login, if it has one.
    pub fn domain(&self) -> Option<&str> {
        match self.kind() {
            AccountKind::Login => self.0.rsplit_once('@').map(|(_, domain)| domain),
            AccountKind::LocalUser | AccountKind::ClientAddress => None,
        }
    }

    /// Whether it is a login, a local user or a client address.
    pub fn kind(&self) -> AccountKind {
        if self.0.starts_with(LOCAL_PREFIX) {
            AccountKind::LocalUser
        } else if self.0.starts_with(ADDRESS_PREFIX) {
            AccountKind::ClientAddress
        } else {
            AccountKind::Login
        }
    }
}

/// The local part and the domain in lower case; `jo@` and `jo@.` have none, like `jo`.
fn split_login(mut raw: &str) -> (&str, Option<String>) {
    while let Some((local, domain)) = raw.rsplit_once('@') {
        let domain = domain.trim_end_matches('.');
        if !domain.is_empty() {
            return (local, Some(domain.to_lowercase()));
        }
        raw = local;
    }
    (raw, None)
}

fn check(name: &str) -> Result<&str, AccountError> {
    let name = name.trim();
    if name.is_empty() {
        return Err(AccountError::Empty);
    }
    if name.len() > MAX_OCTETS {
        return Err(AccountError::TooLong { octets: name.len() });
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(AccountError::Character { name: name.to_owned() });
    }
    Ok(name)
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.0)
    }
}

impl std::borrow::Borrow<str> for Account {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(realm: Option<&str>) -> AccountForm {
        AccountForm { default_realm: realm.map(str::to_owned), lower_case_local_part: true }
    }

    #[test]
    fn one_person_is_one_account() {
        let with_realm = form(Some("Example.ORG"));
        for raw in ["Jo", "jo@EXAMPLE.org", " JO@example.org. ", "jo@", "Jo@."] {
            assert_eq!(Account::login(raw, &with_realm).unwrap().as_str(), "jo@example.org", "{raw}");
        }
        let keep = AccountForm { default_realm: None, lower_case_local_part: false };
        assert_eq!(Account::login("Jo@EXAMPLE.org", &keep).unwrap().as_str(), "Jo@example.org");
    }

    #[test]
    fn mail_without_a_login_is_marked() {
        let address = Account::client_address("::ffff:203.0.113.7".parse().unwrap());
        assert_eq!(address.as_str(), "address:203.0.113.7");
        assert_eq!(address.kind(), AccountKind::ClientAddress);
        assert_eq!(Account::local_user("www-data").unwrap().kind(), AccountKind::LocalUser);
        for imitation in ["local:root", "LOCAL:root", "Address:192.0.2.1"] {
            let refused = Account::login(imitation, &form(None));
            assert!(matches!(refused, Err(AccountError::Reserved { .. })), "{imitation}: {refused:?}");
        }
    }

    #[test]
    fn what_cannot_be_an_account_says_why() {
        assert_eq!(Account::login("  ", &form(None)), Err(AccountError::Empty));
        assert!(matches!(Account::login("a\0b@x", &form(None)), Err(AccountError::Character { .. })));
        assert_eq!(Account::login(&"a".repeat(400), &form(None)), Err(AccountError::TooLong { octets: 400 }));
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(
            raw in "(\\PC|[@.:Ll]|LOCAL:){0,40}",
            realm in prop::option::of(Just("example.org")),
        ) {
            if let Ok(account) = Account::login(&raw, &form(realm)) {
                let again = Account::login(account.as_str(), &form(realm));
                prop_assert_eq!(again, Ok(account.clone()));
                prop_assert_eq!(Account::parse(account.as_str()), Ok(account));
            }
        }
    }
}
