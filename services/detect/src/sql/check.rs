//! What SQL may be used: every unknown name and every construct that is not allowed is found, each with its place.

use super::text::Origin;
use crate::problem::{Finding, list, suggestion};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, ObjectNamePart, Spanned, UnaryOperator, Value,
};

/// The names that an expression may use.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub columns: Vec<&'a str>,
    /// The columns, said shortly.
    pub allowed_columns: String,
    /// Aggregate functions; empty where none is allowed.
    pub aggregates: &'a [&'a str],
    pub functions: &'a [&'a str],
}

/// Everything in `expr` that is not allowed.
pub(crate) fn check(expr: &Expr, scope: &Scope, origin: Origin) -> Vec<Finding> {
    let mut checker = Checker { scope, origin, findings: Vec::new() };
    checker.expr(expr, scope.aggregates.is_empty());
    checker.findings
}

/// A name as DataFusion reads it: lower case unless it is quoted.
pub(crate) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

struct Checker<'a> {
    scope: &'a Scope<'a>,
    origin: Origin,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    /// `row` says whether columns stand for one row: in a predicate, or within an aggregate's arguments.
    fn expr(&mut self, expr: &Expr, row: bool) {
        match expr {
            Expr::Identifier(ident) => self.column(ident, row),
            Expr::Value(value) => {
                let allowed = matches!(
                    value.value,
                    Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null
                );
                if !allowed {
                    self.refuse(expr, "numbers, 'texts', true, false, null");
                }
            }
            Expr::Nested(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::Minus | UnaryOperator::Plus, expr: inner }
            | Expr::Ceil { expr: inner, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) }
            | Expr::Floor { expr: inner, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.expr(inner, row);
            }
            Expr::BinaryOp { left, op, right } => {
                if !is_allowed(op) {
                    self.refuse(expr, "+ - * / % = <> < <= > >= AND OR NOT");
                }
                self.expr(left, row);
                self.expr(right, row);
            }
            Expr::Between { expr, low, high, .. } => {
                for part in [expr, low, high] {
                    self.expr(part, row);
                }
            }
            Expr::InList { expr, list, .. } => {
                self.expr(expr, row);
                for item in list {
                    self.expr(item, row);
                }
            }
            Expr::Like { any: false, expr, pattern, escape_char: None, .. }
            | Expr::ILike { any: false, expr, pattern, escape_char: None, .. } => {
                self.expr(expr, row);
                self.expr(pattern, row);
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                operand.iter().chain(else_result).for_each(|part| self.expr(part, row));
                for when in conditions {
                    self.expr(&when.condition, row);
                    self.expr(&when.result, row);
                }
            }
            Expr::Function(function) => self.function(function, row),
            _ => self.refuse(expr, "columns, numbers, texts, operators, CASE, IN, BETWEEN, LIKE, IS NULL, functions"),
        }
    }

    fn column(&mut self, ident: &Ident, row: bool) {
        let name = normal(ident);
        let place = self.origin.place(ident.span.start);
        if !self.scope.columns.contains(&name.as_str()) {
            let hint = suggestion(&name, self.scope.columns.iter().copied());
            let finding = Finding::at(place, format!("unknown column `{name}`{hint}"));
            self.findings.push(finding.allowing(&self.scope.allowed_columns));
        } else if !row {
            let message = format!("column `{name}` stands outside an aggregate function, e.g. max({name})");
            self.findings.push(Finding::at(place, message).allowing(list(self.scope.aggregates.iter().copied())));
        }
    }

    fn function(&mut self, function: &Function, row: bool) {
        let place = self.origin.place(function.name.span().start);
        let name = match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => normal(ident),
            _ => function.name.to_string(),
        };
        let aggregate = self.scope.aggregates.contains(&name.as_str());
        if !aggregate && !self.scope.functions.contains(&name.as_str()) {
            let names = || self.scope.aggregates.iter().chain(self.scope.functions).copied();
            let message = format!("unknown function `{name}`{}", suggestion(&name, names()));
            self.findings.push(Finding::at(place, message).allowing(list(names())));
            return;
        }
        if aggregate && row {
            let message = format!("aggregate function `{name}` stands within another one");
            self.findings.push(Finding::at(place, message).allowing("columns and scalar functions"));
        }
        let plain = function.over.is_none()
            && function.null_treatment.is_none()
            && function.within_group.is_empty()
            && matches!(function.parameters, FunctionArguments::None)
            && (aggregate || function.filter.is_none());
        let FunctionArguments::List(arguments) = &function.args else {
            return self.refuse_function(&name, function);
        };
        if !plain || arguments.duplicate_treatment.is_some() || !arguments.clauses.is_empty() {
            return self.refuse_function(&name, function);
        }
        for argument in &arguments.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => self.expr(argument, row || aggregate),
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if name == "count" => {}
                _ => self.refuse_function(&name, function),
            }
        }
        if let Some(filter) = &function.filter {
            self.expr(filter, true);
        }
    }

    fn refuse(&mut self, expr: &Expr, allowed: &str) {
        let place = self.origin.place(expr.span().start);
        self.findings.push(Finding::at(place, format!("`{expr}` is not allowed here")).allowing(allowed));
    }

    fn refuse_function(&mut self, name: &str, function: &Function) {
        let place = self.origin.place(function.name.span().start);
        let finding = Finding::at(place, format!("`{function}` is not allowed here"));
        self.findings.push(if self.scope.aggregates.contains(&name) {
            finding.allowing(format!("{name}(x), {name}(x) FILTER (WHERE ...); distinct(x) counts distinct values"))
        } else {
            finding.allowing(format!("{name}(x)"))
        });
    }
}

fn is_allowed(op: &BinaryOperator) -> bool {
    use BinaryOperator::{And, Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or, Plus};
    matches!(op, Plus | Minus | Multiply | Divide | Modulo | Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or)
}
