//! Who may do what: certificates, tokens and JWTs to people and edges, with roles and domains.
//!
//! A credential names a [`Principal`]. A method says what it [`Need`]s. A person's [`Scope`] says about which domains'
//! accounts; who is limited to domains is told nothing of others, not even whether they exist.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod forwarded;
mod principal;
mod role;
mod scope;

pub use forwarded::ForwardedPeer;
pub use principal::{Credential, Edge, Person, Principal};
pub use role::{Need, Role};
pub use scope::Scope;
