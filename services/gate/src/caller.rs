//! Who sends a request, as far as the connection and its credentials tell.

use crate::listener::Peer;
use tidegate_access::{Principal, Scope};
use tidegate_proto::v1;
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

    /// About whose accounts they may know: a mail host about none.
    pub fn scope(&self) -> Scope {
        match &self.principal {
            Principal::Person(person) => person.scope.clone(),
            Principal::Edge(_) | Principal::Enrolling(_) => Scope::domains(Vec::<String>::new()),
        }
    }

    /// What stands in the audit when they may call `method` and ask this, in words.
    pub fn record(&self, method: String, request: String) -> v1::AuditRecord {
        v1::AuditRecord {
            actor: self.principal.name().to_owned(),
            role: self.principal.role().to_owned(),
            peer: self.peer.clone(),
            method,
            request,
            allowed: true,
            ..v1::AuditRecord::default()
        }
    }
}
