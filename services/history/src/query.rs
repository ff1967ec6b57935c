//! Queries over the tables: what can be named, who sees which rows, and what one query may cost.

mod catalog;
mod engine;
mod error;
mod functions;
mod interrupt;
mod memory;
mod placeholders;
mod plain;
mod running;
mod scan;
mod semi_join;
mod views;

pub(crate) use catalog::{CATALOG, Catalog, SCHEMA};
pub(crate) use engine::{Asker, Engine};
pub(crate) use error::QueryError;
pub(crate) use plain::{plain_rows, plain_schema};
pub(crate) use running::Rows;
pub(crate) use scan::scan;
pub use views::View;
