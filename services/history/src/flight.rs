//! Arrow Flight SQL over the history, read-only.

mod abilities;
mod asked;
mod erasing;
mod handle;
mod metadata;
mod prepared;
mod service;
mod statements;

pub(crate) use asked::Desk;
pub(crate) use prepared::{PreparedStatements, RunningQueries};
pub(crate) use service::FlightApi;
pub(crate) use statements::Statements;
