//! Who sends a request, as far as the connection and its credentials tell.

use crate::listener::Peer;
use tidegate_access::Principal;
use tonic::{Request, Status};

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The network address.
    pub peer: String,
}

impl Caller {
    /// The caller of `request`.
    ///
    /// # Errors
    /// `INTERNAL` when nobody has looked at its credentials: then it must not be let in.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string());
        let Some(principal) = request.extensions().get::<Principal>().cloned() else {
            return Err(Status::internal("nobody has looked at the credentials of this call"));
        };
        Ok(Self { principal, peer })
    }
}
