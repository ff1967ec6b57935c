//! A table as a query reads it: one state of it, from beginning to end.

use crate::lake::LakeTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::table::state::DeltaTableState;
use std::sync::Arc;

/// The table as of `state`, for queries of `context`.
pub(crate) fn scan(
    context: &SessionContext,
    table: &LakeTable,
    state: &DeltaTableState,
) -> Result<DeltaScanNext, DataFusionError> {
    DeltaTable::new(Arc::clone(table.log_store())).update_datafusion_session(&context.state())?;
    // Days as days: a dictionary around them would be seen by every client.
    let config = DeltaScanConfig::new().with_wrap_partition_values(false);
    DeltaScanNext::new(state.snapshot().clone(), config)
}
