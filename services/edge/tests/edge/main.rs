//! The edge against real sockets: what a mail server sends on one side, a control on the other.

#![allow(clippy::unwrap_used, missing_docs)]

mod control;
mod lab;
mod mta;
mod outage;
mod program;
mod protocols;
mod states;
