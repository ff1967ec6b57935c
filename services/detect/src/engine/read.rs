//! Reading: what the panes of an account add up to in each window.

use super::bands::visit;
use super::store::{Id, Store};
use super::update::Merging;
use crate::statistics::StatisticsPlan;
use crate::window::{WINDOWS, Window};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Float64Type, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::reassign_expr_columns;
use std::sync::Arc;

/// Which statistics to read in which windows; made once.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlan {
    /// Indices of the aggregates that are needed, rising.
    aggregates: Vec<usize>,
    /// For each statistic, its value over the results of `aggregates`.
    values: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    /// For each statistic, its value when there are no events.
    empty: Vec<Option<f64>>,
    /// Shortest first.
    windows: Vec<Window>,
}

/// The number of a group that has no panes.
const NONE: usize = usize::MAX;

/// An account as of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AsOf {
    pub id: Id,
    pub slot: u32,
}

/// Which panes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Panes {
    /// Those that are fine enough for their window.
    Exact,
    /// All that overlap it: as of the past, fine ones may have been merged since.
    AlsoCoarse,
}

/// What [`ReadPlan::read`] found.
pub(crate) struct Values {
    /// For each statistic, its values window by window, and in each for all points.
    columns: Vec<Float64Array>,
    points: usize,
}

impl ReadPlan {
    /// Reads the statistics with the given indices.
    pub fn new(plan: &StatisticsPlan, statistics: &[usize], mut windows: Vec<Window>) -> Result<Self> {
        windows.sort_unstable();
        windows.dedup();
        let mut aggregates: Vec<usize> =
            statistics.iter().flat_map(|index| plan.statistics[*index].aggregates.iter().copied()).collect();
        aggregates.sort_unstable();
        aggregates.dedup();
        let field = |index: &usize| {
            let aggregate = &plan.aggregates[*index];
            Field::new(&aggregate.name, aggregate.function.field().data_type().clone(), true)
        };
        let schema = Arc::new(Schema::new(aggregates.iter().map(field).collect::<Vec<_>>()));
        let value = |index: &usize| reassign_expr_columns(Arc::clone(&plan.statistics[*index].value), &schema);
        let values: Vec<Arc<dyn PhysicalExpr>> = statistics.iter().map(value).collect::<Result<_>>()?;
        let nothing = |index: &usize| plan.aggregates[*index].function.create_accumulator()?.evaluate()?.to_array();
        let nothing = aggregates.iter().map(nothing).collect::<Result<Vec<_>>>()?;
        let empty = evaluate(&values, &schema, nothing, 1)?;
        let empty = empty.iter().map(|column| column.is_valid(0).then(|| column.value(0))).collect();
        Ok(Self { aggregates, values, schema, empty, windows })
    }

    /// The windows, shortest first.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Reads all windows at once, in two steps. Windows end together, so they are nested: first the panes of each
    /// account that the shortest window counts are merged, those that only the next one counts, and so on (bands);
    /// then each window merges the bands that it is made of. A pane is merged once, not once for each window.
    pub fn read(&self, store: &Store, plan: &StatisticsPlan, points: &[AsOf]) -> Result<Values> {
        self.read_panes(store, plan, points, Panes::Exact)
    }

    /// The value of a statistic (given by its place in the plan) when there are no events.
    pub fn empty_value(&self, statistic: usize) -> Option<f64> {
        self.empty.get(statistic).copied().flatten()
    }

    /// The same with a choice of panes.
    pub fn read_panes(&self, store: &Store, plan: &StatisticsPlan, points: &[AsOf], panes: Panes) -> Result<Values> {
        if self.values.is_empty() || points.is_empty() {
            let columns = self.values.iter().map(|_| Float64Array::from(Vec::<f64>::new())).collect();
            return Ok(Values { columns, points: 0 });
        }
        // Groups are numbered window by window, in each for all points. DataFusion must see only those that have a
        // row, so they get dense numbers besides.
        let groups = self.windows.len() * points.len();
        let wanted = |index: usize| self.aggregates.binary_search(&index).is_ok();
        let mut bands = Merging::new(plan, wanted);
        let mut band_of = vec![NONE; groups];
        let mut band_count = 0;
        for (index, point) in points.iter().enumerate() {
            let mut add = |window: usize, row| {
                let band = &mut band_of[window * points.len() + index];
                if *band == NONE {
                    *band = band_count;
                    band_count += 1;
                }
                bands.push(row, *band)
            };
            match panes {
                Panes::Exact => visit(store, *point, |window, row| {
                    // The shortest of this plan's windows that is as long.
                    self.windows.iter().position(|own| *own >= WINDOWS[window]).map_or(Ok(()), |own| add(own, row))
                })?,
                Panes::AlsoCoarse => {
                    for pane in store.panes_of(point.id) {
                        let window = self.windows.iter().position(|own| pane.key.overlaps(*own, point.slot));
                        window.map_or(Ok(()), |own| add(own, &pane.row))?;
                    }
                }
            }
        }
        let bands = bands.into_accumulators(band_count)?;
        // Each band, and the windows that count it.
        let (mut rows, mut windows) = (Vec::new(), Vec::new());
        let mut window_of = vec![NONE; groups];
        let mut window_count = 0;
        for (first, band) in band_of.into_iter().enumerate().filter(|(_, band)| *band != NONE) {
            for group in (first..groups).step_by(points.len()) {
                if window_of[group] == NONE {
                    window_of[group] = window_count;
                    window_count += 1;
                }
                rows.push(band as u32);
                windows.push(window_of[group]);
            }
        }
        let rows = UInt32Array::from(rows);
        let mut results = Vec::with_capacity(self.aggregates.len());
        for (index, mut band) in self.aggregates.iter().zip(bands) {
            let states = band.state(EmitTo::All)?;
            let states = states.iter().map(|state| Ok(take(state, &rows, None)?)).collect::<Result<Vec<ArrayRef>>>()?;
            let mut whole = plan.aggregates[*index].function.create_groups_accumulator()?;
            whole.merge_batch(&states, &windows, window_count)?;
            results.push(whole.evaluate(EmitTo::All)?);
        }
        let dense = evaluate(&self.values, &self.schema, results, window_count)?;
        let place = |(column, empty): (&Float64Array, &Option<f64>)| {
            let value = |dense: &usize| match *dense {
                NONE => *empty,
                dense => column.is_valid(dense).then(|| column.value(dense)),
            };
            window_of.iter().map(value).collect()
        };
        Ok(Values { columns: dense.iter().zip(&self.empty).map(place).collect(), points: points.len() })
    }
}

/// Statistics over the results of aggregates.
fn evaluate(
    values: &[Arc<dyn PhysicalExpr>],
    schema: &SchemaRef,
    results: Vec<ArrayRef>,
    rows: usize,
) -> Result<Vec<Float64Array>> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let results = RecordBatch::try_new_with_options(Arc::clone(schema), results, &options)?;
    let value = |value: &Arc<dyn PhysicalExpr>| {
        Ok(value.evaluate(&results)?.into_array(rows)?.as_primitive::<Float64Type>().clone())
    };
    values.iter().map(value).collect()
}

impl Values {
    /// One statistic in one window (given by their places in the plan), for all points.
    pub fn column(&self, statistic: usize, window: usize) -> Float64Array {
        self.columns[statistic].slice(window * self.points, self.points)
    }

    /// One value, none when it is NULL.
    pub fn value(&self, statistic: usize, window: usize, point: usize) -> Option<f64> {
        let column = self.columns.get(statistic)?;
        let index = window * self.points + point;
        (index < column.len() && column.is_valid(index)).then(|| column.value(index))
    }
}
