//! The control service as its clients see it: a real server on a free port, the real embedded log, generated clients.

#![allow(clippy::unwrap_used, missing_docs)]

mod actions;
mod credentials;
mod edges;
mod enrolment;
mod events;
mod harness;
mod jwts;
mod lists;
mod roles;
mod secured;
mod service;
mod watches;
