//! Evidence that a locked account's password was changed: without, an unlock gives the account back to the thief.

use crate::config::{EvidenceSource, UnlockConfig};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_domain::{AccountState, Status as AccountStatus};
use tidegate_proto::v1;
use tidegate_runtime::error_line;
use tonic::Status;

/// Largest answer of the directory, in octets.
const MAX_ANSWER_OCTETS: usize = 64 << 10;
/// Largest file of password changes, in octets.
const MAX_FILE_OCTETS: u64 = 256 << 20;

/// Where the evidence comes from.
pub(crate) struct Evidence {
    config: UnlockConfig,
    client: Option<reqwest::Client>,
    /// What the file said when it was last read.
    file: Mutex<Option<ChangesFile>>,
}

/// When which account's password was changed last, as a file says.
#[derive(Debug)]
struct ChangesFile {
    modified: Option<SystemTime>,
    octets: u64,
    changed_ms: Arc<HashMap<String, i64>>,
}

/// Why the evidence cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    #[error("cannot read the password changes in {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the password changes in {} have more than {MAX_FILE_OCTETS} octets", path.display())]
    FileTooLarge { path: PathBuf },
    #[error("cannot set up the client of the directory")]
    Client(#[source] reqwest::Error),
    #[error("cannot read the directory's token in {}", path.display())]
    Token { path: PathBuf, source: std::io::Error },
    #[error("cannot ask the directory")]
    Ask(#[source] reqwest::Error),
    #[error("the directory answers with status {0}")]
    Answer(u16),
    #[error("the directory's answer cannot be read: {0}")]
    Form(String),
}

impl Evidence {
    /// Evidence as `config` asks for.
    ///
    /// # Errors
    /// When the client of the directory cannot be set up.
    pub fn new(config: UnlockConfig) -> Result<Self, EvidenceError> {
        let client = match &config.directory {
            Some(directory) => {
                let timeout = Duration::from_millis(directory.timeout_ms);
                let client = reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none());
                Some(client.build().map_err(EvidenceError::Client)?)
            }
            None => None,
        };
        Ok(Self { config, client, file: Mutex::default() })
    }

    /// The evidence with which the account of `state` can be unlocked. A word of who `may_vouch` counts also where a
    /// file or a directory is to be asked.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when there is none, `UNAVAILABLE` when it cannot be had.
    pub async fn of(
        &self,
        state: &AccountState,
        given: v1::UnlockEvidence,
        may_vouch: bool,
    ) -> Result<v1::UnlockEvidence, Status> {
        let AccountStatus::Locked(lock) = &state.status else { return Ok(given) };
        let account = state.account.as_str();
        let gave_word = !given.note.trim().is_empty();
        let (place, changed_ms) = match self.config.evidence {
            EvidenceSource::None => return Ok(given),
            EvidenceSource::Word => match given.password_changed_ms {
                Some(changed_ms) => ("the request", Some(changed_ms)),
                None if gave_word => return Ok(given),
                None => {
                    return Err(Status::failed_precondition(format!(
                        "{account}: say when the password was changed (unlock.evidence.password_changed_ms), or why the \
                         account is safe (unlock.evidence.note)"
                    )));
                }
            },
            EvidenceSource::File | EvidenceSource::Directory if may_vouch && gave_word => return Ok(given),
            EvidenceSource::File => {
                ("the file of password changes", self.recorded(account).map_err(|error| unavailable(&error))?)
            }
            EvidenceSource::Directory => {
                ("the directory", self.ask(account).await.map_err(|error| unavailable(&error))?)
            }
        };
        match changed_ms {
            Some(changed_ms) if changed_ms > lock.since_ms => {
                Ok(v1::UnlockEvidence { password_changed_ms: Some(changed_ms), ..given })
            }
            Some(changed_ms) => Err(Status::failed_precondition(format!(
                "{account}: {place} says that the password was changed at {}, before the lock began at {}; have it \
                 changed first",
                time(changed_ms),
                time(lock.since_ms)
            ))),
            None => Err(Status::failed_precondition(format!(
                "{account}: {place} knows of no change of the password; have it changed first"
            ))),
        }
    }

    fn recorded(&self, account: &str) -> Result<Option<i64>, EvidenceError> {
        let Some(path) = &self.config.file else { return Ok(None) };
        let failed = |source| EvidenceError::File { path: path.clone(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.len() > MAX_FILE_OCTETS {
            return Err(EvidenceError::FileTooLarge { path: path.clone() });
        }
        let mut file = self.file.lock();
        let known = file.as_ref().filter(|known| {
            known.octets == metadata.len() && known.modified.is_some() && known.modified == metadata.modified().ok()
        });
        if let Some(known) = known {
            return Ok(known.changed_ms.get(account).copied());
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let changed_ms = Arc::new(changes(path, &text));
        let found = changed_ms.get(account).copied();
        *file = Some(ChangesFile { modified: metadata.modified().ok(), octets: metadata.len(), changed_ms });
        Ok(found)
    }

    async fn ask(&self, account: &str) -> Result<Option<i64>, EvidenceError> {
        let (Some(client), Some(directory)) = (&self.client, &self.config.directory) else { return Ok(None) };
        let named: String = url::form_urlencoded::byte_serialize(account.as_bytes()).collect();
        let mut request = client.get(directory.url.replace("{account}", &named));
        if let Some(path) = &directory.token_file {
            let failed = |source| EvidenceError::Token { path: path.clone(), source };
            request = request.bearer_auth(std::fs::read_to_string(path).map_err(failed)?.trim());
        }
        let mut answer = request.send().await.map_err(EvidenceError::Ask)?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            other => return Err(EvidenceError::Answer(other)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(EvidenceError::Ask)? {
            if body.len() + chunk.len() > MAX_ANSWER_OCTETS {
                return Err(EvidenceError::Form(format!("it has more than {MAX_ANSWER_OCTETS} octets")));
            }
            body.extend_from_slice(&chunk);
        }
        from_answer(&body).map_err(EvidenceError::Form)
    }
}

/// `{"password_changed": "2026-11-25T10:00:00Z"}`, a number of milliseconds since 1970 UTC, or `null`.
fn from_answer(body: &[u8]) -> Result<Option<i64>, String> {
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    match value.get("password_changed") {
        Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) => {
            parse_time(text).map(Some).ok_or_else(|| format!("password_changed is {text:?}, which is no time"))
        }
        Some(serde_json::Value::Number(number)) => {
            number.as_i64().map(Some).ok_or_else(|| format!("password_changed is {number}, which is no time"))
        }
        _ => Err("it has no password_changed".to_owned()),
    }
}

/// Lines of `account,time`; the newest of an account counts. Lines that are none are left out, and told once.
fn changes(path: &Path, text: &str) -> HashMap<String, i64> {
    let mut changed = HashMap::new();
    let mut wrong = 0_usize;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let found =
            line.split_once([',', '\t']).and_then(|(account, at)| Some((account.trim(), parse_time(at.trim())?)));
        match found {
            Some((account, at_ms)) => {
                let newest = changed.entry(account.to_lowercase()).or_insert(at_ms);
                *newest = at_ms.max(*newest);
            }
            None => wrong += 1,
        }
    }
    if wrong > 0 {
        let file = path.display();
        tracing::warn!(%file, wrong, "lines of the password changes are not of the form account,time and were left out");
    }
    changed
}

fn parse_time(text: &str) -> Option<i64> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok();
    }
    text.parse().ok()
}

fn time(ms: i64) -> String {
    u64::try_from(ms).map_or_else(
        |_| ms.to_string(),
        |ms| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
    )
}

fn unavailable(error: &EvidenceError) -> Status {
    Status::unavailable(format!(
        "it cannot be told whether the password was changed, so nothing was done: {}",
        error_line(error)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::{Account, Cause, Lock, QueuedMail};

    fn locked_since(since_ms: i64) -> AccountState {
        let lock = Lock {
            id: "L-1".into(),
            cause: Cause::Admin { actor: "amy".into() },
            reason: String::new(),
            evidence: Vec::new(),
            clients: Vec::new(),
            subjects: Vec::new(),
            since_ms,
            until_ms: None,
            reply: String::new(),
            queued_mail: QueuedMail::Keep,
        };
        let account = Account::parse("jo@example.org").unwrap();
        AccountState { status: AccountStatus::Locked(lock), ..AccountState::new(account) }
    }

    fn given(password_changed_ms: Option<i64>, note: &str) -> v1::UnlockEvidence {
        v1::UnlockEvidence { password_changed_ms, note: note.into() }
    }

    #[tokio::test]
    async fn an_operators_word_or_a_change_after_the_lock_is_asked_for() {
        let evidence = Evidence::new(UnlockConfig::default()).unwrap();
        let of = async |since_ms, given| {
            evidence.of(&locked_since(since_ms), given, false).await.map_err(|s| s.message().to_owned())
        };
        assert!(of(5, given(None, " ")).await.unwrap_err().contains("say when the password was changed"));
        assert_eq!(of(5, given(None, "called back")).await.unwrap().note, "called back");
        assert_eq!(of(5, given(Some(6), "")).await.unwrap().password_changed_ms, Some(6));
        let early = of(5_000, given(Some(4_000), "called back")).await.unwrap_err();
        assert!(
            early.contains("was changed at 1970-01-01T00:00:04Z, before the lock began at 1970-01-01T00:00:05Z"),
            "{early}"
        );
        let active = AccountState::new(Account::parse("jo@example.org").unwrap());
        assert!(evidence.of(&active, given(None, ""), false).await.is_ok(), "it is refused for another reason");
    }

    #[tokio::test]
    async fn a_file_of_changes_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changes.csv");
        let config =
            UnlockConfig { evidence: EvidenceSource::File, file: Some(path.clone()), ..UnlockConfig::default() };
        let evidence = Evidence::new(config).unwrap();
        let of = async |note: &str, vouch| evidence.of(&locked_since(5_000), given(Some(9_000), note), vouch).await;
        assert_eq!(of("", false).await.unwrap_err().code(), tonic::Code::Unavailable);
        std::fs::write(&path, "# comment\nJo@example.org,1970-01-01T00:00:04Z\nnonsense\n").unwrap();
        let early = of("", false).await.unwrap_err();
        assert!(early.message().contains("the file of password changes says"), "{early}");
        std::fs::write(&path, "jo@example.org\t4000\njo@example.org,7000\njo@example.org,6000\n").unwrap();
        assert_eq!(of("", false).await.unwrap().password_changed_ms, Some(7_000));
        std::fs::write(&path, "al@example.org,7000\n").unwrap();
        assert!(of("my word", false).await.unwrap_err().message().contains("knows of no change"));
        assert_eq!(of("my word", true).await.unwrap().note, "my word");
    }

    #[test]
    fn the_directorys_answer_is_a_time_or_none() {
        assert_eq!(from_answer(br#"{"password_changed": "1970-01-01T00:00:04Z"}"#).unwrap(), Some(4_000));
        assert_eq!(from_answer(br#"{"password_changed": 4000, "more": 1}"#).unwrap(), Some(4_000));
        assert_eq!(from_answer(br#"{"password_changed": null}"#).unwrap(), None);
        for wrong in ["", "{}", "[]", r#"{"password_changed": "soon"}"#, r#"{"password_changed": 1.5}"#] {
            assert!(from_answer(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
