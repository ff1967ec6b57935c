//! Who sends a request, as far as the connection and its credentials tell.

use tidegate_access::{Person, Principal};
use tonic::{Request, Status};

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
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
        let peer = request.remote_addr().map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let principal = request.extensions().get::<Principal>().cloned();
        Ok(Self { principal: principal.unwrap_or_else(|| Principal::Person(Person::on_loopback())), peer })
    }
}
