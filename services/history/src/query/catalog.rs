//! What a query can name: the tables and views, as far as the asker may see their rows.

use super::functions;
use super::scan::scan;
use super::views::View;
use crate::lake::Lake;
use crate::tables::Table;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use datafusion::prelude::SessionContext;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::Scope;
use tokio::time::Instant;

/// How long a state that others may have changed is taken as new.
const FRESH: Duration = Duration::from_millis(500);
/// Name of the catalog.
pub(crate) const CATALOG: &str = "tidegate";
/// Name of the schema with tables and views.
pub(crate) const SCHEMA: &str = "history";

/// The catalog of one query.
#[derive(Debug)]
pub(crate) struct Catalog(Arc<History>);

/// The schema of one query. A table is read in one state, however often the query names it.
pub(crate) struct History {
    lake: Lake,
    scope: Scope,
    refreshed: Arc<Refreshed>,
    /// The query's own context, without this schema: views are planned in one that has it.
    context: SessionContext,
    opened: Mutex<BTreeMap<String, Arc<dyn TableProvider>>>,
}

/// When it was last looked what others have committed.
#[derive(Debug, Default)]
pub(crate) struct Refreshed([tokio::sync::Mutex<Option<Instant>>; 4]);

impl Catalog {
    /// For one query, whose `context` reads the files.
    pub fn new(lake: Lake, scope: Scope, refreshed: Arc<Refreshed>, context: SessionContext) -> Self {
        Self(Arc::new(History { lake, scope, refreshed, context, opened: Mutex::default() }))
    }

    /// The tables that are there for the asker, with what they are and what they tell.
    pub fn listed(scope: &Scope) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let is_all = scope.is_all();
        let tables = Table::ALL.into_iter().filter(move |table| is_all || *table != Table::Rejected);
        let tables = tables.map(|table| (table.name(), "TABLE", table.meaning()));
        tables.chain(View::ALL.into_iter().map(|view| (view.name, "VIEW", view.meaning)))
    }
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == SCHEMA).then(|| Arc::clone(&self.0) as Arc<dyn SchemaProvider>)
    }
}

#[async_trait]
impl SchemaProvider for History {
    fn table_names(&self) -> Vec<String> {
        Catalog::listed(&self.scope).map(|(name, ..)| name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if !self.table_exist(name) {
            return Ok(None);
        }
        if let Some(opened) = self.opened.lock().get(name) {
            return Ok(Some(Arc::clone(opened)));
        }
        let opened = match (Table::named(name), View::named(name)) {
            (Some(table), _) => self.open(table).await?,
            (None, Some(view)) => self.view(view).await?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Arc::clone(self.opened.lock().entry(name.to_owned()).or_insert(opened))))
    }

    fn table_exist(&self, name: &str) -> bool {
        Catalog::listed(&self.scope).any(|(listed, ..)| listed == name)
    }
}

impl History {
    /// The table in its newest state, with those rows that the asker may see.
    async fn open(&self, kind: Table) -> Result<Arc<dyn TableProvider>> {
        let table = self.lake.table(kind);
        let mut refreshed = self.refreshed.0[kind as usize].lock().await;
        if refreshed.is_none_or(|at| at.elapsed() > FRESH) {
            match table.refresh().await {
                Ok(_) => *refreshed = Some(Instant::now()),
                Err(error) => return Err(DataFusionError::External(Box::new(error))),
            }
        }
        drop(refreshed);
        let whole: Arc<dyn TableProvider> = Arc::new(scan(&self.context, table, &table.newest())?);
        let Some(domains) = self.scope.limited_to() else { return Ok(whole) };
        let domains: Vec<_> = domains.iter().map(|domain| lit(domain.as_str())).collect();
        let plan = LogicalPlanBuilder::scan(kind.name(), provider_as_source(whole), None)?
            .filter(col("domain").in_list(domains, false))?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    /// A view over the tables as this query sees them.
    async fn view(&self, view: &View) -> Result<Arc<dyn TableProvider>> {
        let context = SessionContext::new_with_config_rt(self.context.copied_config(), self.context.runtime_env());
        for function in functions::all() {
            context.register_udf(function);
        }
        for table in named_in(view.sql) {
            // A table of a view is opened as any other.
            if let Some(provider) = self.table(table.name()).await? {
                context.register_table(table.name(), provider)?;
            }
        }
        let plan = context.state().create_logical_plan(view.sql).await?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.sql.to_owned()))))
    }
}

/// Tables that a view's query names.
fn named_in(sql: &str) -> BTreeSet<Table> {
    let words: BTreeSet<&str> = sql.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).collect();
    Table::ALL.into_iter().filter(|table| words.contains(table.name())).collect()
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("scope", &self.scope).finish_non_exhaustive()
    }
}
