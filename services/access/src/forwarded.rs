//! For whom a call is made.

use std::net::SocketAddr;

/// The address of who is behind a call that another part of this process makes, e.g. a browser's behind the console's.
///
/// An extension of the request. A connection from outside cannot carry one, so that nobody can claim another's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardedPeer(pub SocketAddr);
