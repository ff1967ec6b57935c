//! What is too old goes, day by day; what is no longer named by a table is deleted from the store.

use super::merge::removes;
use crate::lake::{Committed, LakeError, LakeTable, load};
use chrono::{DateTime, TimeDelta};
use deltalake::checkpoints::cleanup_metadata;
use deltalake::operations::vacuum::VacuumMode;
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;
use std::sync::Arc;
use std::time::Duration;

/// A day in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Takes out all files of days before `oldest` (in the log's form). Gives how many.
pub(super) async fn forget_before(
    table: &Arc<LakeTable>,
    state: &mut DeltaTableState,
    oldest: &str,
) -> Result<(usize, Committed), LakeError> {
    let actions = removes(state, table, true, |file| file.date.as_str() < oldest).await?;
    let count = actions.len();
    if count == 0 {
        return Ok((0, Committed::Done));
    }
    let done = table.replace(state, actions, DeltaOperation::Delete { predicate: None }).await?;
    Ok((count, done))
}

/// Deletes files that no state of the table of the last `after` names, and what is too old in its log. Gives how many files
/// there were.
pub(super) async fn vacuum(table: &LakeTable, after: Duration) -> Result<usize, LakeError> {
    let failed = |source| table.failed("vacuuming", source);
    let (vacuumed, metrics) = load(table.log_store())
        .await
        .map_err(failed)?
        .vacuum()
        .with_mode(VacuumMode::Full)
        .with_retention_period(TimeDelta::from_std(after).unwrap_or(TimeDelta::MAX))
        .with_enforce_retention_duration(false)
        .await
        .map_err(failed)?;
    cleanup_metadata(&vacuumed, None).await.map_err(failed)?;
    Ok(metrics.files_deleted.len())
}

/// A day as the log writes it.
pub(super) fn date_text(now_ms: i64, days_ago: i64) -> String {
    let day = DateTime::from_timestamp_millis(now_ms.saturating_sub(days_ago.saturating_mul(DAY_MS)));
    day.unwrap_or_default().format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_so_that_they_sort() {
        assert_eq!(date_text(1_795_651_200_000, 0), "2026-11-26");
        assert_eq!(date_text(1_795_651_200_000, 400), "2025-10-22");
    }
}
