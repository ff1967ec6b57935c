//! Where users are reached, when it is not at the account itself.

use crate::config::is_language;
use lettre::Address;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Most lines of a contacts file that are taken.
const MAX_CONTACTS: usize = 2_000_000;

/// Addresses and languages of users, by account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contacts(HashMap<String, Contact>);

/// Where a user is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contact {
    pub address: String,
    pub language: Option<String>,
}

/// A contacts file that is watched.
#[derive(Debug)]
pub(crate) struct ContactsFile {
    path: Option<PathBuf>,
    changed: Option<SystemTime>,
    pub contacts: Contacts,
}

impl Contacts {
    /// Reads `account,address[,language]` lines; gives what was taken, and what is wrong with the rest.
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let (mut contacts, mut problems) = (HashMap::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || (number == 1 && line.starts_with("account,")) {
                continue;
            }
            if contacts.len() == MAX_CONTACTS {
                problems.push(format!("line {number}: more than {MAX_CONTACTS} contacts; the rest is left out"));
                break;
            }
            match contact(line) {
                Ok((account, contact)) => drop(contacts.insert(account, contact)),
                Err(problem) => problems.push(format!("line {number}: {problem}")),
            }
        }
        (Self(contacts), problems)
    }

    /// Where the user of `account` is reached: as the file says, or at the account itself, when it is an address.
    pub fn of(&self, account: &str) -> Option<Contact> {
        if let Some(contact) = self.0.get(account) {
            return Some(contact.clone());
        }
        let is_address = !account.contains(':') && account.parse::<Address>().is_ok();
        is_address.then(|| Contact { address: account.to_owned(), language: None })
    }

    pub fn language_of(&self, account: &str) -> Option<&str> {
        self.0.get(account)?.language.as_deref()
    }
}

/// One line. A field in double quotes may have commas in it; a quote is doubled.
fn contact(line: &str) -> Result<(String, Contact), String> {
    let fields = fields(line);
    let [account, address, rest @ ..] = fields.as_slice() else {
        return Err("has no comma; expected: account,address[,language]".to_owned());
    };
    if address.parse::<Address>().is_err() {
        return Err(format!("{address:?} is no mail address"));
    }
    let language = rest.first().filter(|language| !language.is_empty());
    if let Some(language) = language.filter(|language| !is_language(language)) {
        return Err(format!("{language:?} is no language tag, e.g. de or zh-Hans"));
    }
    Ok((account.clone(), Contact { address: address.clone(), language: language.cloned() }))
}

fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            other => field.push(other),
        }
    }
    fields.push(field.trim().to_owned());
    fields
}

impl ContactsFile {
    /// Nothing is read before [`ContactsFile::reload`].
    pub fn new(path: Option<&Path>) -> Self {
        Self { path: path.map(Path::to_owned), changed: None, contacts: Contacts::default() }
    }

    /// Reads the file when it has changed. What was read before stays when it cannot be read.
    pub fn reload(&mut self) {
        let Some(path) = &self.path else { return };
        let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if changed.is_some() && changed == self.changed {
            return;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let (contacts, problems) = Contacts::parse(&text);
                for problem in problems.iter().take(20) {
                    tracing::warn!(file = %path.display(), problem, "left a contact out");
                }
                tracing::info!(file = %path.display(), contacts = contacts.0.len(), left_out = problems.len(), "read the contacts");
                self.contacts = contacts;
                self.changed = changed;
            }
            Err(error) => tracing::warn!(file = %path.display(), %error, "cannot read the contacts; the old ones stay"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_goes_over_the_account_itself() {
        let text = "account,address,language\n# people\njo@example.org, jo@home.test ,de\n\"a,b@x.test\",ab@x.test\n";
        let (contacts, problems) = Contacts::parse(text);
        assert_eq!(problems, [""; 0]);
        let address = |account: &str| contacts.of(account).map(|contact| contact.address);
        assert_eq!(address("jo@example.org").as_deref(), Some("jo@home.test"));
        assert_eq!(contacts.language_of("jo@example.org"), Some("de"));
        assert_eq!(address("a,b@x.test").as_deref(), Some("ab@x.test"));
        assert_eq!(address("amy@example.org").as_deref(), Some("amy@example.org"));
        assert_eq!(address("local:www-data"), None);
        assert_eq!(address("jo"), None);
    }

    #[test]
    fn a_bad_line_is_told_and_spoils_nothing() {
        let (contacts, problems) =
            Contacts::parse("jo\njo@a.test,nobody\namy@a.test,amy@b.test,../x\nx@a.test,x@b.test\n");
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert_eq!(contacts.of("x@a.test").unwrap().address, "x@b.test");
        assert_eq!(contacts.of("amy@a.test").unwrap().address, "amy@a.test");
    }
}
