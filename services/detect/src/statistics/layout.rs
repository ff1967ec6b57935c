//! How the states of aggregates stand in a row, and how rows of other statistics are made to fit.

use super::StatisticsPlan;
use crate::aggregate;
use crate::engine::LoadError;
use crate::event::EventBatchBuilder;
use crate::row::{Encoder, StateType, cells, join};
use arrow::array::{ArrayRef, BooleanArray};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use tidegate_domain::{Account, Submission};

/// The state of one aggregate in the rows of panes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateState {
    /// The aggregate as DataFusion writes it, e.g. `count(*) FILTER (WHERE spam)`. Its meaning never changes: a new
    /// version of a function has a new name.
    pub name: String,
    /// Types of its columns, with spaces between: `int`, `uint`, `float`, `bool` or `bytes`.
    pub state: String,
}

/// Turns rows of one layout into rows of some statistics.
pub(crate) struct Fit<'a> {
    plan: &'a StatisticsPlan,
    types: Vec<StateType>,
    /// For each column of the statistics, the column that was written; none: it begins empty.
    from: Vec<Option<usize>>,
    /// A row for no events.
    empty: Box<[u8]>,
    is_same: bool,
    started_empty: Vec<String>,
    dropped: Vec<String>,
}

impl StatisticsPlan {
    /// What a pane's row is made of, in order.
    pub fn layout(&self) -> Vec<AggregateState> {
        let state = |columns: std::ops::Range<usize>| {
            self.state[columns].iter().map(|column| column.name()).collect::<Vec<_>>().join(" ")
        };
        let aggregates = self.aggregates.iter();
        aggregates.map(|one| AggregateState { name: one.name.clone(), state: state(one.state.clone()) }).collect()
    }

    /// The row of a pane in which nothing happened. DataFusion takes a group that it was told of for one that has a
    /// value, unless a filter leaves nothing of it.
    fn empty_row(&self) -> Result<Box<[u8]>> {
        let mut builder = EventBatchBuilder::new();
        builder.push(&Account::client_address([192, 0, 2, 1].into()), 0, 0, &Submission::default(), false);
        let sample = builder.finish()?;
        let nothing = BooleanArray::from(vec![false]);
        let mut states: Vec<ArrayRef> = Vec::with_capacity(self.state.len());
        for aggregate in &self.aggregates {
            let argument = |input: &usize| self.inputs[*input].evaluate(sample.columns())?.into_array(1);
            let arguments = aggregate.arguments.iter().map(argument).collect::<Result<Vec<_>>>()?;
            let mut accumulator = aggregate.function.create_groups_accumulator()?;
            accumulator.update_batch(&arguments, &[0], Some(&nothing), 1)?;
            states.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(Encoder::new(&states)?.row(0))
    }
}

impl<'a> Fit<'a> {
    pub fn new(plan: &'a StatisticsPlan, written: &[AggregateState]) -> Result<Self, LoadError> {
        let own = plan.layout();
        let mut types = Vec::new();
        let mut columns = Vec::new();
        for aggregate in written {
            let first = types.len();
            for name in aggregate.state.split(' ').filter(|name| !name.is_empty()) {
                let known = StateType::named(name).ok_or_else(|| LoadError::Layout {
                    aggregate: aggregate.name.clone(),
                    state: aggregate.state.clone(),
                })?;
                types.push(known);
            }
            columns.push(first..types.len());
        }
        let mut from = Vec::with_capacity(plan.state.len());
        let mut started_empty = Vec::new();
        for (aggregate, wanted) in plan.aggregates.iter().zip(&own) {
            if let Some(index) = written.iter().position(|known| known == wanted) {
                from.extend(columns[index].clone().map(Some));
            } else {
                started_empty.push(wanted.name.clone());
                from.extend(aggregate.state.clone().map(|_| None));
            }
        }
        let dropped = written.iter().filter(|known| !own.contains(known)).map(|known| known.name.clone()).collect();
        let empty = plan.empty_row().map_err(LoadError::DataFusion)?;
        Ok(Self { plan, types, from, empty, is_same: written == own, started_empty, dropped })
    }

    /// Aggregates that were not written.
    pub fn started_empty(&self) -> &[String] {
        &self.started_empty
    }

    /// Aggregates that were written and are not wanted.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// The row for these statistics; none when `row` is not of the written layout, or could not be merged.
    pub fn row(&self, row: &[u8]) -> Option<Box<[u8]>> {
        let written = cells(row, &self.types)?;
        let fitted = if self.is_same {
            written
        } else {
            let empty = cells(&self.empty, &self.plan.state)?;
            self.from.iter().zip(empty).map(|(from, empty)| from.map_or(empty, |column| written[column])).collect()
        };
        for aggregate in self.plan.aggregates.iter().filter(|aggregate| aggregate.digest) {
            let name = aggregate.function.fun().name();
            let digests = fitted[aggregate.state.clone()].iter().filter_map(|cell| cell.octets(StateType::Bytes));
            if !digests.into_iter().all(|digest| aggregate::is_digest(name, digest)) {
                return None;
            }
        }
        if self.is_same { Some(row.into()) } else { Some(join(&fitted)) }
    }
}
