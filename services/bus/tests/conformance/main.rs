//! What every log must do, tried on each of them.

#![allow(clippy::unwrap_used, missing_docs)]

mod cases;
mod embedded;
mod kafka;
mod lab;
mod owners;
mod retention;

/// Makes a test of each case for a log.
macro_rules! conform {
    ($lab:ty) => {
        crate::conform!($lab, cases:
            reads_in_the_order_of_each_partition, keys_have_the_same_partition_in_all_topics,
            values_and_tombstones_come_back, the_step_that_a_record_comes_from_comes_back, a_waiting_reader_wakes_promptly, reads_on_from_where_it_was,
            finds_offsets_by_time, ten_thousand_records_go_through, refuses_what_it_could_not_keep,
            refuses_partitions_that_are_not_there, a_dropped_next_loses_nothing, waits_without_records);
        crate::conform!($lab, owners:
            commits_records_and_positions_together, fences_the_owner_before, groups_do_not_fence_each_other,
            positions_survive_a_restart, the_log_stays_the_same_after_a_restart, an_owner_refuses_keys_of_others,
            commits_positions_alone);
        crate::conform!($lab, retention:
            an_empty_log_has_bounds, an_emptied_partition_goes_on_where_it_was, compaction_keeps_the_newest,
            a_position_past_the_end_begins_again);
    };
    ($lab:ty, $module:ident: $($case:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            crate::$module::$case(<$lab>::new().await).await;
        })*
    };
}
pub(crate) use conform;
