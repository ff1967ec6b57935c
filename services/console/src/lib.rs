//! The web console: pages over the admin API, with the same roles.
//!
//! [`Console`] is given the gRPC API, of the same process or over a channel, and calls it for each user with the token
//! that they signed in with. It decides no right itself: it only hides what the role cannot do. `README.md` beside this
//! crate says what it is built of, and why.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod app;
mod assets;
mod bulk;
mod clock;
mod config;
mod cookie;
mod failure;
mod fields;
mod gate;
mod layout;
mod live;
mod metrics;
mod pages;
mod plot;
mod server;
mod session;
mod sign_in;
mod visitor;
mod watch;
mod words;

pub use config::ConsoleConfig;
pub use server::{Console, ConsoleError};
