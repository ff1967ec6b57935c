//! One predicate: from its text to a checked and simplified expression, split into conjuncts.

use super::file::{Limit, When};
use crate::problem::{Finding, list, suggestion};
use crate::sql::check::{Scope, check};
use crate::sql::plan::{FUNCTIONS, Planner, TEXT_FUNCTIONS, reason};
use crate::sql::text::{self, Origin};
use crate::statistics::{Statistics, written};
use crate::window::{WINDOWS, Window};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};
use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use hashbrown::HashMap;
use std::sync::Arc;

/// Columns of the account itself, besides its statistics.
pub(super) const ACCOUNT_COLUMNS: [&str; 3] = ["account", "account_domain", "account_kind"];

/// The columns that predicates may use.
pub(super) struct Columns {
    names: Vec<String>,
    allowed: String,
    ranges: HashMap<String, (f64, f64)>,
    schema: DFSchema,
    /// A row to try predicates on.
    sample: RecordBatch,
}

/// A predicate that has passed all checks.
#[derive(Debug)]
pub(super) struct Predicate {
    /// It holds when all of these do.
    pub conjuncts: Vec<Expr>,
    /// As it reads with limits filled in.
    pub written: String,
    /// Names of the limits that it uses.
    pub limits: Vec<String>,
}

impl Columns {
    pub fn new(statistics: &Statistics) -> Result<Self> {
        let plan = statistics.plan();
        let mut names = Vec::new();
        let mut ranges = HashMap::new();
        for (info, statistic) in plan.infos.iter().zip(&plan.statistics) {
            for window in WINDOWS {
                let name = column_name(&info.name, window);
                ranges.insert(name.clone(), statistic.range);
                names.push(name);
            }
        }
        let number = |name: &String| Field::new(name, DataType::Float64, true);
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let fields: Vec<_> = names.iter().map(number).chain(ACCOUNT_COLUMNS.map(text)).collect();
        names.extend(ACCOUNT_COLUMNS.map(str::to_owned));
        let schema = DFSchema::try_from(Schema::new(fields))?;
        let sample = schema.fields().iter().map(|field| match field.data_type() {
            DataType::Float64 => Arc::new(Float64Array::from(vec![1.0])) as ArrayRef,
            _ => Arc::new(StringArray::from(vec!["jo@example.org"])),
        });
        let sample = RecordBatch::try_new(Arc::clone(schema.inner()), sample.collect())?;
        let statistics = list(plan.infos.iter().map(|info| info.name.as_str()));
        let allowed = format!(
            "<statistic>_<window> with the windows {} and the statistics {statistics}; besides, {}",
            list(WINDOWS.map(Window::name)),
            list(ACCOUNT_COLUMNS)
        );
        Ok(Self { names, allowed, ranges, schema, sample })
    }

    pub fn schema(&self) -> &DFSchema {
        &self.schema
    }
}

pub(super) fn column_name(statistic: &str, window: Window) -> String {
    format!("{statistic}_{}", window.name())
}

/// Plans a predicate. Names of limits that it uses are added to `used`.
pub(super) fn plan(
    planner: &Planner,
    columns: &Columns,
    when: &When,
    limits: &[Limit],
    used: &mut Vec<String>,
) -> Result<Predicate, Vec<Finding>> {
    let origin = when.origin;
    let mut findings = Vec::new();
    let tokens = text::tokens(&when.text, origin).map_err(|finding| vec![finding])?;
    let known = used.len();
    let tokens = fill_in(tokens, limits, used, origin, &mut findings);
    let begin = |finding: Finding| Finding { position: finding.position.or(Some(origin.start)), ..finding };
    let expr = match text::parse(&tokens, origin) {
        Ok(expr) => expr,
        Err(finding) => {
            findings.push(begin(finding));
            return Err(findings);
        }
    };
    let scope = Scope {
        columns: columns.names.iter().map(String::as_str).collect(),
        allowed_columns: columns.allowed.clone(),
        aggregates: &[],
        functions: &[FUNCTIONS.as_slice(), TEXT_FUNCTIONS.as_slice()].concat(),
    };
    // Some expressions have no place of their own.
    findings.extend(check(&expr, &scope, origin).into_iter().map(begin));
    if !findings.is_empty() {
        return Err(findings);
    }
    let start = origin.place(expr.span().start).unwrap_or(origin.start);
    let refuse = |message: String| vec![Finding::at(Some(start), message)];
    let allowed = "numbers compared with numbers, texts with texts; AND, OR, NOT between comparisons";
    let failed = |error: DataFusionError| vec![Finding::at(Some(start), reason(&error)).allowing(allowed)];
    let logical = planner.logical(expr, columns.schema()).map_err(failed)?;
    let data_type = logical.get_type(columns.schema()).map_err(failed)?;
    if data_type != DataType::Boolean {
        let finding = Finding::at(Some(start), format!("a predicate is true or false, this is of type {data_type}"));
        return Err(vec![finding.allowing("a comparison, e.g. messages_15m >= 60")]);
    }
    let simple = planner.simplified(logical, columns.schema()).map_err(failed)?;
    if let Expr::Literal(value, _) = &simple {
        let always = *value == ScalarValue::Boolean(Some(true));
        return Err(refuse(format!("it {} holds", if always { "always" } else { "never" })));
    }
    // What type coercion has put in may fail for some values, e.g. a text that is to be a number.
    let physical = planner.physical(&simple, columns.schema()).map_err(failed)?;
    physical.evaluate(&columns.sample).map_err(failed)?;
    let conjuncts = split_conjunction_owned(simple);
    if let Some(column) = contradiction(&conjuncts, &columns.ranges) {
        return Err(refuse(format!("it never holds: no value of `{column}` meets all its conditions")));
    }
    Ok(Predicate { conjuncts, written: written(&tokens), limits: used[known..].to_vec() })
}

/// Puts numbers in the place of `$name`.
fn fill_in(
    tokens: Vec<TokenWithSpan>,
    limits: &[Limit],
    used: &mut Vec<String>,
    origin: Origin,
    findings: &mut Vec<Finding>,
) -> Vec<TokenWithSpan> {
    let mut fill_in = |token: TokenWithSpan| {
        let Token::Placeholder(placeholder) = &token.token else { return token };
        let name = placeholder.trim_start_matches(['$', ':', '?']);
        let number = if let Some(limit) = limits.iter().find(|limit| limit.name == name) {
            used.push(limit.name.clone());
            format!("{}", limit.value)
        } else {
            let names = || limits.iter().map(|limit| limit.name.as_str());
            let message = format!("unknown limit `{placeholder}`{}", suggestion(name, names()));
            let finding = Finding::at(origin.place(token.span.start), message);
            findings.push(finding.allowing(format!("names in [limits]: {}", list(names()))));
            "0".to_owned()
        };
        TokenWithSpan { token: Token::Number(number, false), ..token }
    };
    tokens.into_iter().map(&mut fill_in).collect()
}

/// A column whose conditions exclude each other, given the values that it can have at all.
fn contradiction(conjuncts: &[Expr], ranges: &HashMap<String, (f64, f64)>) -> Option<String> {
    let mut left: HashMap<String, Interval> = HashMap::new();
    for (column, op, value) in conjuncts.iter().filter_map(comparison) {
        let (low, high) = *ranges.get(&column)?;
        let interval = left.entry(column.clone()).or_insert(Interval { low, high, open_low: false, open_high: false });
        interval.narrow(op, value);
        if interval.is_empty() {
            return Some(column);
        }
    }
    None
}

/// `column op number`, if it is that.
pub(super) fn comparison(expr: &Expr) -> Option<(String, Operator, f64)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(ScalarValue::Float64(Some(value)), _)) => {
            Some((column.name.clone(), *op, *value))
        }
        (Expr::Literal(ScalarValue::Float64(Some(value)), _), Expr::Column(column)) => {
            Some((column.name.clone(), op.swap()?, *value))
        }
        _ => None,
    }
}

struct Interval {
    low: f64,
    high: f64,
    open_low: bool,
    open_high: bool,
}

impl Interval {
    fn narrow(&mut self, op: Operator, value: f64) {
        let at_least = |this: &mut Self, open: bool| {
            if value > this.low || value >= this.low && open {
                (this.low, this.open_low) = (value, open);
            }
        };
        let at_most = |this: &mut Self, open: bool| {
            if value < this.high || value <= this.high && open {
                (this.high, this.open_high) = (value, open);
            }
        };
        match op {
            Operator::Gt => at_least(self, true),
            Operator::GtEq => at_least(self, false),
            Operator::Lt => at_most(self, true),
            Operator::LtEq => at_most(self, false),
            Operator::Eq => {
                at_least(self, false);
                at_most(self, false);
            }
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.low > self.high || self.low >= self.high && (self.open_low || self.open_high)
    }
}

/// The conjunction of some expressions; none for no expression.
pub(super) fn all_of(conjuncts: impl IntoIterator<Item = Expr>) -> Option<Expr> {
    let mut conjuncts = conjuncts.into_iter();
    let first = conjuncts.next()?;
    Some(conjuncts.fold(first, Expr::and)).filter(|expr| *expr != lit(true))
}
