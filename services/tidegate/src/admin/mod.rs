//! The administrator's commands: clients of the admin API.

pub mod accounts;
mod actions;
mod connect;
pub mod edges;
pub mod format;
pub mod notify;
pub mod rules;
mod show;
