//! What the end-to-end tests need of our own programs: build and find them ([`programs`]), let one run ([`process`]) or
//! run to its end ([`command`]), and ask it how it is ([`http`], [`metrics`]); a real [`browser`] that looks at its pages. Between them a
//! network that can fail ([`proxy`]). The real parts beside them, and waiting for conditions, are in `xtask`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::float_cmp))]

pub mod analyst;
pub mod browser;
pub mod census;
pub mod chart;
pub mod collector;
pub mod command;
pub mod correspondence;
pub mod debian;
pub mod faults;
pub mod hijack;
pub mod hostile;
pub mod http;
pub mod installation;
pub mod ledger;
pub mod mail;
pub mod manifests;
pub mod metrics;
pub mod pod_files;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod random;
pub mod secured;
pub mod terminal;
pub mod topics;
pub mod trial;
