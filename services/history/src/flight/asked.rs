//! Who asks, whether they may, and the audit of it.

use crate::query::Asker;
use tidegate_access::{Access, Need};
use tidegate_gate::{Audit, Caller, as_bearer};
use tidegate_proto::v1;
use tonic::{Request, Status};

/// The longest statement that stands in the audit is as long as any text there; a longer one is cut.
const QUERY: &str = "arrow.flight.protocol.FlightService/Query";

/// Lets callers in, or not.
#[derive(Clone)]
pub(crate) struct Desk {
    audit: Audit,
}

/// A request that was let in.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Who asks, and whose rows they may see.
    pub asker: Asker,
    record: v1::AuditRecord,
}

impl Desk {
    /// Writes to `audit`.
    pub fn new(audit: Audit) -> Self {
        Self { audit }
    }

    /// Lets an analyst in.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, which stands in the audit then.
    pub async fn admit<T>(&self, request: &Request<T>, what: &str) -> Result<Asked, Status> {
        self.admit_to(request, QUERY, Need::Analyse, what).await
    }

    /// Lets in who meets `need`.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, which stands in the audit then.
    pub async fn admit_to<T>(
        &self,
        request: &Request<T>,
        method: &str,
        need: Need,
        what: &str,
    ) -> Result<Asked, Status> {
        let caller = Caller::of(request)?;
        let record = caller.record(method.to_owned(), what.to_owned());
        let asked = Asked { asker: Asker { name: record.actor.clone(), scope: caller.scope() }, record };
        if caller.principal.meets(need) {
            return Ok(asked);
        }
        let role = caller.principal.role();
        Err(self.deny(asked, format!("this needs {}; you are {role}", need.describe())).await)
    }

    /// Refuses what was let in; that stands in the audit.
    pub async fn deny(&self, asked: Asked, why: String) -> Status {
        let mut record = asked.record;
        record.allowed = false;
        record.result.clone_from(&why);
        // Nothing is done anyway; that the record is lacking is logged and counted.
        let _ = self.audit.write(record).await;
        Status::permission_denied(why)
    }

    /// Notes what came of a question: in words, and empty when it was answered.
    pub async fn answered(&self, asked: Asked, result: String) {
        self.audit.note(v1::AuditRecord { result, ..asked.record }).await;
    }

    /// Writes what is about to be done to an account.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it is not known to be written: then it must not be done.
    pub async fn write(&self, asked: &Asked, account: &str, reason: &str) -> Result<(), Status> {
        let record = v1::AuditRecord { account: account.to_owned(), reason: reason.to_owned(), ..asked.record.clone() };
        self.audit.write(record).await
    }
}

impl Asked {
    /// The same, about this statement.
    pub fn about(mut self, statement: &str) -> Self {
        statement.clone_into(&mut self.record.request);
        self
    }
}

/// The token that a client goes on with after a handshake: the one that it showed, also as the password of a name.
pub(crate) fn shown_token<T>(request: &Request<T>, access: &Access) -> String {
    let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match as_bearer(header).split_once(' ') {
        Some((kind, token)) if kind.eq_ignore_ascii_case("bearer") => token.trim().to_owned(),
        // Where nobody is asked, any will do.
        _ if access.is_off() => "loopback".to_owned(),
        _ => String::new(),
    }
}
