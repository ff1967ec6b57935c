//! Numbers of events that no restart uses twice.
//!
//! A lane's first number is the time in microseconds since 1970; the next ones follow by one. So the numbers of a later
//! start are larger than those of an earlier one even when the state directory was lost (a host installed anew under
//! its old name), as long as fewer than a million events a second were numbered: otherwise the stream would take the
//! new host's events for repeats.
//!
//! Against a clock that was set back, `numbers.json` keeps the end of the block of numbers that was taken last, written
//! before the block is used, and the base of the spooled lane.

use crate::error::EdgeError;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

const FILE: &str = "numbers.json";
/// Numbers that are taken at a time.
const BLOCK: u64 = 10_000;
/// More than any spool ever had offsets.
const SPOOL_SPAN: u64 = 1 << 40;

/// Gives numbers.
#[derive(Debug)]
pub(crate) struct Numbers {
    file: PathBuf,
    kept: Kept,
    next_live: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Live numbers below this may have been used.
    live_end: u64,
    /// The spool that `spool_base` is for.
    spool_log_id: String,
    /// Number of the spool's offset 0.
    spool_base: u64,
}

impl Numbers {
    /// Reads what was kept in `directory`; `spool_log_id` tells which spool the offsets are of. A file that cannot be
    /// read is set aside; the clock does without it.
    pub fn open(directory: &Path, spool_log_id: &str, now_ms: i64) -> Result<Self, EdgeError> {
        let file = directory.join(FILE);
        let mut kept = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(file = %file.display(), error = error.to_string(), "damaged, set aside");
                let _ = std::fs::rename(&file, directory.join("numbers.json.damaged"));
                Kept::default()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(EdgeError::file("read", file)(error)),
        };
        let clock = u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000).max(1);
        if kept.spool_log_id != spool_log_id {
            let past = if kept.spool_base == 0 { 0 } else { kept.spool_base + SPOOL_SPAN };
            kept.spool_base = clock.max(past);
            spool_log_id.clone_into(&mut kept.spool_log_id);
        }
        let next_live = clock.max(kept.live_end);
        kept.live_end = next_live + BLOCK;
        let numbers = Self { file, kept, next_live };
        numbers.write().map_err(EdgeError::file("write", &numbers.file))?;
        Ok(numbers)
    }

    /// Number of the spool's offset 0.
    pub fn spool_base(&self) -> u64 {
        self.kept.spool_base
    }

    /// Live numbers up to `number` were used.
    pub fn used(&mut self, number: u64) {
        self.next_live = self.next_live.max(number.saturating_add(1));
    }

    /// The first of `count` live numbers. A file that cannot be written (a full disk) is no reason to stop: it is only
    /// needed when the clock is set back.
    pub async fn take(&mut self, count: u64) -> u64 {
        let first = self.next_live;
        self.next_live += count;
        if self.next_live > self.kept.live_end {
            self.kept.live_end = self.next_live + BLOCK;
            let copy = Self { file: self.file.clone(), kept: self.kept.clone(), next_live: 0 };
            let written = tokio::task::spawn_blocking(move || copy.write()).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(file = %self.file.display(), error = error.to_string(), "cannot be written");
            }
        }
        first
    }

    fn write(&self) -> std::io::Result<()> {
        let new = self.file.with_extension("json.new");
        let mut out = std::fs::File::create(&new)?;
        out.write_all(&serde_json::to_vec(&self.kept)?)?;
        out.sync_all()?;
        std::fs::rename(&new, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_restart_uses_a_number_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut last = 0;
        // The clock stands, goes on, and is set far back.
        for now_ms in [1_000, 1_000, 2_000, 5, -7] {
            let mut numbers = Numbers::open(path, "spool", now_ms).unwrap();
            for _ in 0..3 {
                let first = numbers.take(7_000).await;
                assert!(first > last, "{first} after {last}");
                last = first + 6_999;
            }
        }
        // The directory is lost; the clock is right.
        std::fs::remove_file(path.join(FILE)).unwrap();
        let now_ms = i64::try_from(last / 1_000).unwrap() + 1;
        assert!(Numbers::open(path, "spool", now_ms).unwrap().next_live > last);
    }

    #[test]
    fn a_spool_keeps_its_base_and_another_gets_a_higher_one() {
        let directory = tempfile::tempdir().unwrap();
        let base = |log_id, now_ms| Numbers::open(directory.path(), log_id, now_ms).unwrap().spool_base();
        assert_eq!(base("a", 5_000), 5_000_000);
        assert_eq!(base("a", 9_000), 5_000_000);
        assert_eq!(base("b", 10), 5_000_000 + SPOOL_SPAN);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{\"live_end\": 5").unwrap();
        assert_eq!(Numbers::open(directory.path(), "a", 3).unwrap().next_live, 3_000);
        assert!(directory.path().join("numbers.json.damaged").exists());
    }
}
