//! The administrator's commands: clients of the admin API.

pub mod accounts;
mod actions;
pub mod audit;
mod bulk;
pub mod certificate;
pub mod connect;
pub mod edges;
mod filter;
pub mod format;
pub mod notify;
pub mod overview;
pub mod rules;
pub mod settings;
mod show;
pub mod token;
pub mod topics;
