//! The file: locked for one owner, checked, and set aside when it is damaged.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::JournalError;
use crate::options::Options;
use crate::schema::{self, FileKind};
use crate::topics::Topic;

/// The file's name when a directory is opened.
const FILE_IN_DIRECTORY: &str = "journal.db";

/// How many damaged files are kept; the oldest go first.
const DAMAGED_FILES_KEPT: usize = 4;

/// The journal's file and those beside it.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) main: PathBuf,
}

/// A journal's file, open for writing, with what it says of itself.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) log_id: String,
    pub(crate) topics: Vec<Topic>,
    pub(crate) salvaged_records: u64,
}

/// Takes the lock, then opens the file, or, when it is damaged, sets it aside and begins its successor.
pub(crate) fn open(path: &Path, options: &Options) -> Result<(File, Files, Opened), JournalError> {
    let files = Files::locate(path)?;
    let lock = files.lock()?;
    files.finish_interrupted_salvage()?;
    match files.open_sound(options) {
        Err(JournalError::Damaged { .. }) => {}
        outcome => return outcome.map(|opened| (lock, files, opened)),
    }
    let salvaged_records = crate::salvage::into_new_file(&files, options)?;
    files.set_aside()?;
    files.finish_interrupted_salvage()?;
    let opened = files.open_sound(options)?;
    Ok((lock, files, Opened { salvaged_records, ..opened }))
}

impl Files {
    fn locate(path: &Path) -> Result<Self, JournalError> {
        let main = if path.is_dir() { path.join(FILE_IN_DIRECTORY) } else { path.to_owned() };
        let parent = main.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            fs::create_dir_all(parent).map_err(io_error("create the directory", parent))?;
        }
        Ok(Self { main })
    }

    /// The lock goes when the file is dropped, or its process ends, however it ends.
    fn lock(&self) -> Result<File, JournalError> {
        let path = self.beside(".lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(io_error("create", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse { path: self.main.clone() }),
            Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
        }
    }

    /// Opens the file and checks it; `Damaged` is for the caller to act on.
    fn open_sound(&self, options: &Options) -> Result<Opened, JournalError> {
        let sql = |source| JournalError::sql("open", &self.main, source);
        if !self.has_sound_start()? {
            return Err(sql(damage("the first bytes are not those of a SQLite file".to_owned())));
        }
        let mut connection = self.connect().map_err(sql)?;
        match schema::identify(&connection).map_err(|error| sql(missing_is_damage(error)))? {
            FileKind::Journal => {}
            FileKind::Foreign => return Err(JournalError::NotAJournal { path: self.main.clone() }),
            FileKind::Scrambled => return Err(sql(damage("the header is damaged".to_owned()))),
            FileKind::Newer(found) => {
                return Err(JournalError::NewerFormat { path: self.main.clone(), found, supported: schema::FORMAT });
            }
        }
        // What a damaged page says can be no text, no number, or no SQL at all.
        let damaged = |error| sql(missing_is_damage(error));
        schema::configure(&connection, options).map_err(damaged)?;
        let suspect = self.beside(".suspect");
        let whole = suspect.exists() || file_bytes(&self.main) <= options.check_up_to_bytes;
        if whole && let Some(finding) = schema::quick_check(&connection).map_err(damaged)? {
            return Err(sql(damage(finding)));
        }
        schema::upgrade(&mut connection).map_err(damaged)?;
        let log_id = schema::log_id(&connection).map_err(damaged)?;
        let topics = schema::load_topics(&connection).map_err(damaged)?;
        if let Some(finding) = schema::contradiction(&connection, &topics, whole).map_err(damaged)? {
            return Err(sql(damage(finding)));
        }
        remove_if_there(&suspect)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sql)?;
        Ok(Opened { connection, log_id, topics, salvaged_records: 0 })
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.main, flags)?;
        // Until it is known to be sound, nothing is written into it, not even its own log.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    }

    /// Looks at the magic string and the version numbers behind it: SQLite takes a wrong version for a
    /// file that may only be read, which cannot be told from missing permission later.
    fn has_sound_start(&self) -> Result<bool, JournalError> {
        let mut start = Vec::new();
        match File::open(&self.main) {
            Ok(file) => file.take(20).read_to_end(&mut start).map_err(io_error("read", &self.main))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(io_error("open", &self.main)(error)),
        };
        Ok(start.is_empty()
            || (start.len() == 20
                && start.starts_with(b"SQLite format 3\0")
                && start[18..].iter().all(|version| [1, 2].contains(version))))
    }

    /// A connection that cannot write.
    pub(crate) fn connect_read_only(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.main, flags)?;
        connection.set_prepared_statement_cache_capacity(128);
        Ok(connection)
    }

    /// Renames the file and its log to `<file>.damaged-<n>`, and drops the oldest of too many.
    fn set_aside(&self) -> Result<(), JournalError> {
        let kept = self.damaged_files();
        let number = kept.last().map_or(1, |(number, _)| number + 1);
        let target = self.beside(&format!(".damaged-{number}"));
        let log = self.beside("-wal");
        if log.exists() {
            fs::rename(&log, with_suffix(&target, "-wal")).map_err(io_error("set aside", &log))?;
        }
        fs::rename(&self.main, &target).map_err(io_error("set aside", &self.main))?;
        self.sync_directory()?;
        remove_if_there(&self.beside("-shm"))?;
        remove_if_there(&self.beside(".suspect"))?;
        for (_, old) in kept.iter().rev().skip(DAMAGED_FILES_KEPT - 1) {
            remove_if_there(old)?;
            remove_if_there(&with_suffix(old, "-wal"))?;
        }
        Ok(())
    }

    /// A salvaged file takes the journal's place once the damaged one is out of the way; a file that was
    /// not finished before that is dropped.
    fn finish_interrupted_salvage(&self) -> Result<(), JournalError> {
        let salvaged = self.salvage_path();
        if !salvaged.exists() {
            return Ok(());
        }
        if self.main.exists() {
            remove_if_there(&with_suffix(&salvaged, "-wal"))?;
            remove_if_there(&with_suffix(&salvaged, "-shm"))?;
            return remove_if_there(&salvaged);
        }
        fs::rename(&salvaged, &self.main).map_err(io_error("put in place", &salvaged))?;
        self.sync_directory()
    }

    /// Makes renames durable.
    fn sync_directory(&self) -> Result<(), JournalError> {
        let parent = self.main.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(io_error("sync the directory", parent))
    }

    pub(crate) fn salvage_path(&self) -> PathBuf {
        self.beside(".salvage")
    }

    /// The damaged files beside this one, in the order of their numbers.
    pub(crate) fn damaged_files(&self) -> Vec<(u64, PathBuf)> {
        let parent = self.main.parent().filter(|parent| !parent.as_os_str().is_empty());
        let Some(name) = self.main.file_name() else { return Vec::new() };
        let prefix = format!("{}.damaged-", name.to_string_lossy());
        let Ok(entries) = fs::read_dir(parent.unwrap_or(Path::new("."))) else { return Vec::new() };
        let mut found: Vec<(u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        found.sort();
        found
    }

    /// Has the next open check the file whole, whatever its size.
    pub(crate) fn mark_suspect(&self) {
        // If even this cannot be written, the next open may not check a large file: it is found again then.
        let _ = File::create(self.beside(".suspect"));
    }

    pub(crate) fn main_bytes(&self) -> u64 {
        file_bytes(&self.main)
    }

    pub(crate) fn wal_bytes(&self) -> u64 {
        file_bytes(&self.beside("-wal"))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        with_suffix(&self.main, suffix)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove_if_there(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { action, path, source }
}

/// A finding of ours, in the words of SQLite's error for it.
fn damage(finding: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(finding))
}

/// A journal in which a row or a table of the catalogue is missing, or of another type, is damaged.
fn missing_is_damage(error: rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, _) if code.code != rusqlite::ErrorCode::Unknown => error,
        other => damage(other.to_string()),
    }
}
