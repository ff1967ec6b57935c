//! A digest for each group, as DataFusion's accumulators.

use super::{Digest, hashes};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Float64Array};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use std::sync::Arc;

/// One digest for each of many groups.
#[derive(Debug)]
pub(super) struct DigestGroups<D> {
    groups: Vec<D>,
}

impl<D> Default for DigestGroups<D> {
    fn default() -> Self {
        Self { groups: Vec::new() }
    }
}

impl<D: Digest> GroupsAccumulator for DigestGroups<D> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, D::default);
        hashes::for_each(only(values)?, filter, |row, hash| self.groups[group_indices[row]].add(hash))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups.resize_with(total_num_groups, D::default);
        for (bytes, group) in states(only(values)?)?.iter().zip(group_indices) {
            if let Some(bytes) = bytes {
                self.groups[*group].merge(bytes)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        Ok(Arc::new(groups.iter().map(Digest::value).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![write(&emit_to.take_needed(&mut self.groups))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let column = only(values)?;
        let mut rows: Vec<D> = Vec::new();
        rows.resize_with(column.len(), D::default);
        hashes::for_each(column, filter, |row, hash| rows[row].add(hash))?;
        Ok(vec![write(&rows)])
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<D>()
    }
}

/// One digest, for callers that have no groups.
#[derive(Debug, Default)]
pub(super) struct DigestAccumulator<D> {
    digest: D,
}

impl<D: Digest> Accumulator for DigestAccumulator<D> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        hashes::for_each(only(values)?, None, |_, hash| self.digest.add(hash))
    }

    fn merge_batch(&mut self, states_of: &[ArrayRef]) -> Result<()> {
        states(only(states_of)?)?.iter().flatten().try_for_each(|bytes| self.digest.merge(bytes))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.digest.value()))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = Vec::new();
        self.digest.write(&mut bytes);
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.digest.heap_bytes()
    }
}

fn write<D: Digest>(groups: &[D]) -> ArrayRef {
    let mut column = BinaryBuilder::with_capacity(groups.len(), groups.len() * 8);
    let mut bytes = Vec::new();
    for digest in groups {
        bytes.clear();
        digest.write(&mut bytes);
        column.append_value(&bytes);
    }
    Arc::new(column.finish())
}

fn only(values: &[ArrayRef]) -> Result<&ArrayRef> {
    if let [column] = values { Ok(column) } else { exec_err!("one column was expected, there are {}", values.len()) }
}

fn states(column: &ArrayRef) -> Result<&BinaryArray> {
    if let Some(states) = column.as_binary_opt::<i32>() {
        Ok(states)
    } else {
        exec_err!("a digest's state is a binary column, not {}", column.data_type())
    }
}
