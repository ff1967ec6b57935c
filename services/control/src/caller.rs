//! Who sends a request, as far as the connection tells. The place for roles: today everybody who may connect may do
//! everything, and the actor is what the request says.

use tonic::Request;

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The network address.
    pub peer: String,
    /// The role that the credentials give; empty while there are none.
    pub role: String,
}

impl Caller {
    /// The caller of `request`.
    pub fn of<T>(request: &Request<T>) -> Self {
        let peer = request.remote_addr().map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        Self { peer, role: String::new() }
    }
}
