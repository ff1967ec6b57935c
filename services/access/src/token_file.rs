//! The file of tokens: what is kept of each, and how it is rewritten.

use crate::certificate::is_name_part;
use crate::people::scope;
use crate::token::{SecretHash, Token};
use crate::token_text::time;
use crate::watched_file::read;
use crate::{AccessError, Role, Scope};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most tokens in a file.
pub(crate) const MAX_TOKENS: usize = 10_000;
/// How long tokens for enrolment are kept after their end, to see who had one.
const STALE_AFTER_MS: i64 = 30 * 86_400_000;

/// The tokens of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFile(pub(crate) BTreeMap<String, TokenRecord>);

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// What names it, and is no secret.
    pub id: String,
    /// Who uses it: the name that stands in the audit.
    pub name: String,
    /// What it is good for.
    pub grant: Grant,
    /// When it was made: milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// Until when it counts: milliseconds since 1970 UTC; none: it has no end.
    pub expires_ms: Option<i64>,
    /// When it was revoked: milliseconds since 1970 UTC.
    pub revoked_ms: Option<i64>,
    /// When it was used up, one that counts once: milliseconds since 1970 UTC.
    pub used_ms: Option<i64>,
    /// The SHA-256 of its secret.
    pub hash: SecretHash,
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// A person, or a program that acts for one.
    Person {
        /// What they may do.
        role: Role,
        /// About whose accounts.
        scope: Scope,
    },
    /// The certificate of one edge, once.
    Enrol {
        /// Its site.
        site: String,
        /// Its name.
        node: String,
    },
}

/// A new token with which a mail host gets its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnrolment {
    /// The host's site.
    pub site: String,
    /// The host's name.
    pub node: String,
    /// How long the token counts.
    pub lifetime: Duration,
}

/// What a new token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Who uses it: the name that stands in the audit.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The domains whose accounts they may know of; none: all.
    pub domains: Option<Vec<String>>,
    /// How long it counts; none: without end.
    pub lifetime: Option<Duration>,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or all of its problems.
    pub fn load(path: &Path) -> Result<Self, AccessError> {
        let text = read(path).map_err(|source| AccessError::Read { what: "tokens", path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| AccessError::Content { path: path.to_owned(), problems })
    }

    /// All tokens, the oldest first.
    pub fn list(&self) -> Vec<&TokenRecord> {
        let mut tokens: Vec<_> = self.0.values().collect();
        tokens.sort_by_key(|token| token.created_ms);
        tokens
    }

    /// The token with this id.
    pub fn get(&self, id: &str) -> Option<&TokenRecord> {
        self.0.get(id)
    }

    /// Makes a token and writes it to the file, which is made when it is not there. What the token is can be told now
    /// only: it is not kept.
    ///
    /// # Errors
    /// When the file cannot be read or written, or has problems: then it is left as it is.
    pub fn create(path: &Path, new: NewToken, now_ms: i64) -> Result<(Token, TokenRecord), AccessError> {
        let invalid = |problem: String| AccessError::NewToken { problem };
        if !is_name_part(&new.name) {
            return Err(invalid(format!("the name is {:?}; allowed: 1 to 255 octets without /", new.name)));
        }
        let grant = Grant::Person { role: new.role, scope: scope(new.domains).map_err(invalid)? };
        Self::add(path, new.name, grant, new.lifetime, now_ms)
    }

    /// Makes a token with which one mail host gets its certificate, once, and writes it to the file likewise. Older ones
    /// whose time was over a month ago are removed.
    ///
    /// # Errors
    /// As for [`TokenFile::create`].
    pub fn create_enrolment(path: &Path, new: NewEnrolment, now_ms: i64) -> Result<(Token, TokenRecord), AccessError> {
        let NewEnrolment { site, node, lifetime } = new;
        if let Some(part) = [&site, &node].into_iter().find(|part| !is_name_part(part)) {
            let problem = format!("{part:?} is no name of a site or node; allowed: 1 to 255 octets without /");
            return Err(AccessError::NewToken { problem });
        }
        Self::add(path, node.clone(), Grant::Enrol { site, node }, Some(lifetime), now_ms)
    }

    /// Makes an empty file where there is none, and finds out whether it can be changed at all.
    ///
    /// # Errors
    /// When the file cannot be read or written, or has problems: then it is left as it is.
    pub fn make_sure(path: &Path) -> Result<(), AccessError> {
        rewrite(path, |_| Ok(()))
    }

    fn add(
        path: &Path,
        name: String,
        grant: Grant,
        lifetime: Option<Duration>,
        now_ms: i64,
    ) -> Result<(Token, TokenRecord), AccessError> {
        let invalid = |problem: String| AccessError::NewToken { problem };
        let lifetime_ms = lifetime.map(|lifetime| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
        let created_ms = whole_seconds(now_ms);
        let token = Token::random();
        let record = TokenRecord {
            id: token.id().to_owned(),
            name,
            grant,
            created_ms,
            expires_ms: lifetime_ms.map(|lifetime_ms| whole_seconds(created_ms.saturating_add(lifetime_ms))),
            revoked_ms: None,
            used_ms: None,
            hash: token.hash(),
        };
        if record.expires_ms.is_some_and(|expires_ms| time(expires_ms).is_none() || expires_ms <= created_ms) {
            return Err(invalid("it would expire at once, or after the year 9999".to_owned()));
        }
        rewrite(path, |file| {
            file.0.retain(|_, token| !token.is_stale(now_ms));
            if file.0.len() >= MAX_TOKENS {
                return Err(invalid(format!("the file has {MAX_TOKENS} tokens, which is the most allowed")));
            }
            // Ids are as good as never drawn twice; a token of another would be lost if one was.
            if file.0.insert(record.id.clone(), record.clone()).is_some() {
                return Err(invalid("its random id is taken; try again".to_owned()));
            }
            Ok(())
        })?;
        Ok((token, record))
    }

    /// Revokes the token with this id. One that was revoked already stays revoked since then.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read or written, or has problems: then it is left as it is.
    pub fn revoke(path: &Path, id: &str, now_ms: i64) -> Result<TokenRecord, AccessError> {
        let mut revoked = None;
        rewrite(path, |file| {
            let unknown = || AccessError::NoToken { path: path.to_owned(), id: id.to_owned() };
            let token = file.0.get_mut(id).ok_or_else(unknown)?;
            token.revoked_ms.get_or_insert(whole_seconds(now_ms));
            revoked = Some(token.clone());
            Ok(())
        })?;
        revoked.ok_or_else(|| AccessError::NoToken { path: path.to_owned(), id: id.to_owned() })
    }

    /// Uses up the enrolment token with this id.
    ///
    /// # Errors
    /// When it does not count, or not any more; or the file cannot be read or written, or has problems: then nobody has
    /// used it.
    pub fn use_up(path: &Path, id: &str, now_ms: i64) -> Result<TokenRecord, AccessError> {
        let mut used = None;
        rewrite(path, |file| {
            let unknown = || AccessError::NoToken { path: path.to_owned(), id: id.to_owned() };
            let token = file.0.get_mut(id).ok_or_else(unknown)?;
            let why = match token {
                TokenRecord { grant: Grant::Person { .. }, .. } => Some("is not for enrolment"),
                TokenRecord { used_ms: Some(_), .. } => Some("was used already"),
                TokenRecord { revoked_ms: Some(_), .. } => Some("is revoked"),
                _ if token.is_expired(now_ms) => Some("is expired"),
                _ => None,
            };
            if let Some(why) = why {
                return Err(AccessError::SpentToken { id: id.to_owned(), why });
            }
            token.used_ms = Some(whole_seconds(now_ms));
            used = Some(token.clone());
            Ok(())
        })?;
        used.ok_or_else(|| AccessError::NoToken { path: path.to_owned(), id: id.to_owned() })
    }
}

impl TokenRecord {
    /// Whether it counts at `now_ms`.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.revoked_ms.is_none() && self.used_ms.is_none() && !self.is_expired(now_ms)
    }

    /// Whether nobody asks for it any more: one for enrolment, which ended long ago.
    fn is_stale(&self, now_ms: i64) -> bool {
        let is_old = self.expires_ms.is_some_and(|expires_ms| expires_ms.saturating_add(STALE_AFTER_MS) <= now_ms);
        is_old && matches!(self.grant, Grant::Enrol { .. })
    }

    /// Whether its time is over at `now_ms`.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

/// Reads the file, changes it, and puts the new one in its place, whole or not at all. Nobody else changes it meanwhile.
fn rewrite(path: &Path, change: impl FnOnce(&mut TokenFile) -> Result<(), AccessError>) -> Result<(), AccessError> {
    let failed = |source| AccessError::Write { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // The folder is locked rather than the file, which is another one afterwards.
    let lock = File::open(&folder).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut file = match TokenFile::load(path) {
        Err(AccessError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => TokenFile::default(),
        loaded => loaded?,
    };
    change(&mut file)?;
    let text = file.to_text().map_err(|error| failed(io::Error::other(error)))?;
    replace(path, &folder, &text).map_err(failed)
}

fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    // Left behind by one that was killed; nobody else is here.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    // It stays the service's, also when root changes it.
    if let Ok(old) = fs::metadata(path) {
        let own = file.metadata()?;
        if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

fn whole_seconds(ms: i64) -> i64 {
    ms - ms.rem_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tempfile::TempDir;

    const NOW_MS: i64 = 1_795_000_000_500;

    fn new(name: &str) -> NewToken {
        let domains = Some(vec!["Example.org".to_owned()]);
        NewToken { name: name.into(), role: Role::Operator, domains, lifetime: Some(Duration::from_mins(1)) }
    }

    #[test]
    fn a_file_is_made_where_there_is_none_and_else_left_as_it_is() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        TokenFile::make_sure(&path).unwrap();
        assert!(TokenFile::load(&path).unwrap().list().is_empty());
        TokenFile::create(&path, new("jo"), NOW_MS).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        TokenFile::make_sure(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::write(&path, "no tokens").unwrap();
        assert!(TokenFile::make_sure(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "no tokens");
        assert!(matches!(
            TokenFile::make_sure(&folder.path().join("none/tokens.toml")),
            Err(AccessError::Write { .. })
        ));
    }

    #[test]
    fn tokens_are_made_listed_and_revoked() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        let (token, record) = TokenFile::create(&path, new("jo"), NOW_MS).unwrap();
        let everything = NewToken { domains: None, lifetime: None, ..new("mo") };
        TokenFile::create(&path, everything, NOW_MS + 2_000).unwrap();
        let file = TokenFile::load(&path).unwrap();
        let listed = file.list();
        assert_eq!((listed.len(), listed[0]), (2, &record));
        assert_eq!(record.grant, Grant::Person { role: Role::Operator, scope: Scope::domains(["example.org"]) });
        assert_eq!(record.expires_ms, Some(1_795_000_060_000));
        assert!(record.is_valid(NOW_MS) && !record.is_valid(1_795_000_060_000));
        assert!(file.get(token.id()).unwrap().hash.matches(&token.hash()));
        let Grant::Person { scope, .. } = &listed[1].grant else { panic!("{listed:?}") };
        assert!(scope.is_all() && listed[1].expires_ms.is_none());

        let revoked = TokenFile::revoke(&path, token.id(), NOW_MS + 5_000).unwrap();
        assert_eq!(revoked.revoked_ms, Some(1_795_000_005_000));
        TokenFile::revoke(&path, token.id(), NOW_MS + 9_000).unwrap();
        assert_eq!(TokenFile::load(&path).unwrap().get(token.id()), Some(&revoked), "since the first time");
        assert!(!revoked.is_valid(NOW_MS));
        let error = TokenFile::revoke(&path, "0123456789ab", NOW_MS).unwrap_err();
        assert!(matches!(error, AccessError::NoToken { .. }), "{error}");
    }

    #[test]
    fn a_token_for_enrolment_is_used_up_once() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        let create = |node: &str, now_ms| {
            let (site, node) = ("ams".to_owned(), node.to_owned());
            TokenFile::create_enrolment(&path, NewEnrolment { site, node, lifetime: Duration::from_mins(1) }, now_ms)
        };
        let (token, record) = create("mx1", NOW_MS).unwrap();
        assert_eq!(record.grant, Grant::Enrol { site: "ams".into(), node: "mx1".into() });
        assert_eq!(TokenFile::load(&path).unwrap().get(token.id()), Some(&record));
        let told = |id: &str, now_ms| TokenFile::use_up(&path, id, now_ms).unwrap_err().to_string();
        let (late, _) = create("mx2", NOW_MS).unwrap();
        assert!(told(late.id(), NOW_MS + 60_000).ends_with("is expired"));
        let used = TokenFile::use_up(&path, token.id(), NOW_MS + 1_000).unwrap();
        assert!(record.is_valid(NOW_MS) && !used.is_valid(NOW_MS));
        assert!(told(token.id(), NOW_MS + 1_000).ends_with("was used already"));
        let (revoked, _) = create("mx3", NOW_MS).unwrap();
        TokenFile::revoke(&path, revoked.id(), NOW_MS).unwrap();
        assert!(told(revoked.id(), NOW_MS).ends_with("is revoked"));
        let (person, _) = TokenFile::create(&path, new("jo"), NOW_MS).unwrap();
        assert!(told(person.id(), NOW_MS).ends_with("is not for enrolment"));
        assert!(told("0123456789ab", NOW_MS).contains("has no token"));
        for wrong in ["", "a/b"] {
            assert!(create(wrong, NOW_MS).unwrap_err().to_string().contains("no name of a site or node"), "{wrong}");
        }
        // A month later nobody asks for those of today; people's stay.
        create("mx4", NOW_MS + STALE_AFTER_MS + 61_000).unwrap();
        let names: Vec<String> =
            TokenFile::load(&path).unwrap().list().iter().map(|token| token.name.clone()).collect();
        assert_eq!(names, ["jo", "mx4"]);
    }

    #[test]
    fn of_two_who_use_a_token_at_once_one_is_refused() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        let new = NewEnrolment { site: "ams".into(), node: "mx1".into(), lifetime: Duration::from_mins(1) };
        let (token, _) = TokenFile::create_enrolment(&path, new, NOW_MS).unwrap();
        let used = std::thread::scope(|scope| {
            let each: Vec<_> =
                (0..8).map(|_| scope.spawn(|| TokenFile::use_up(&path, token.id(), NOW_MS).is_ok())).collect();
            each.into_iter().map(|thread| thread.join().unwrap()).filter(|used| *used).count()
        });
        assert_eq!(used, 1);
    }

    #[test]
    fn the_file_is_for_its_owner_only_and_holds_no_secret() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (token, _) = TokenFile::create(&path, new("jo"), NOW_MS).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (text, secret) = (fs::read_to_string(&path).unwrap(), token.reveal());
        // The secret itself can have an underscore, too.
        let secret = secret.rsplit_once(&format!("{}_", token.id())).unwrap().1;
        assert!(text.contains(token.id()) && secret.len() > 40 && !text.contains(secret), "{text}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_file_that_is_not_understood_is_told_of_and_left_alone() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        TokenFile::create(&path, new("jo"), NOW_MS).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (text, told) in [
            (format!("{good}colour = 'red'\n"), "unknown field `colour`"),
            (good.replace("created = \"2026", "created = \"yesterday 2026"), "a time like"),
            (good.replace("role = \"operator\"", "role = \"root\""), "unknown variant"),
            (good.replace("id = \"", "id = \"x"), "the id is not"),
            (good.replace("sha256 = \"", "sha256 = \"0"), "sha256 is not"),
            (format!("{good}\n{}", good.split("\n\n").last().unwrap()), "is there twice"),
        ] {
            fs::write(&path, &text).unwrap();
            let error = TokenFile::create(&path, new("mo"), NOW_MS).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_no_token_can_be_is_refused() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        for wrong in [
            NewToken { name: String::new(), ..new("x") },
            NewToken { name: "a\nb".into(), ..new("x") },
            NewToken { domains: Some(Vec::new()), ..new("x") },
            NewToken { lifetime: Some(Duration::ZERO), ..new("x") },
            NewToken { lifetime: Some(Duration::MAX), ..new("x") },
        ] {
            assert!(matches!(TokenFile::create(&path, wrong, NOW_MS), Err(AccessError::NewToken { .. })));
        }
        assert!(!path.exists());
        let nowhere = folder.path().join("none/tokens.toml");
        assert!(matches!(TokenFile::create(&nowhere, new("jo"), NOW_MS), Err(AccessError::Write { .. })));
    }

    #[test]
    fn tokens_made_at_the_same_time_are_all_there() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokens.toml");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| TokenFile::create(&path, new("jo"), NOW_MS).unwrap());
            }
        });
        assert_eq!(TokenFile::load(&path).unwrap().list().len(), 8);
    }
}
