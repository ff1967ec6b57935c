//! The notification service over an embedded log, with mail servers and webhook receivers that fail on demand.
#![allow(clippy::unwrap_used, missing_docs)]

mod digests;
mod hooks;
mod hostile;
mod lab;
mod languages;
mod lifecycle;
mod mail_server;
mod outages;
mod repeats;
mod webhooks;
