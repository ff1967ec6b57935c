//! Lets administrative requests in, or not, and writes the audit of both.

use crate::methods::Method;
use crate::metrics::{DeniedLabel, Metrics};
use tidegate_access::{Need, Principal, Scope};
use tidegate_domain::Account;
use tidegate_gate::Audit;
use tidegate_gate::Caller;
use tidegate_proto::v1;
use tonic::{Code, Request, Status};

/// Most domains that a refusal names.
const MAX_NAMED: usize = 5;

/// Lets requests in, or not.
#[derive(Clone)]
pub(crate) struct Admission {
    audit: Audit,
    metrics: Metrics,
}

/// A request that was let in.
pub(crate) struct Call {
    /// Who asks.
    pub caller: Caller,
    /// About whose accounts.
    pub scope: Scope,
    /// What will stand in the audit.
    pub record: v1::AuditRecord,
    /// Which method.
    pub method: Method,
}

impl Admission {
    /// Writes to `audit`.
    pub fn new(audit: Audit, metrics: Metrics) -> Self {
        Self { audit, metrics }
    }

    /// Checks that the caller of `request` may call `method` at all. `account` is the account that it names, as it is
    /// written there; empty: none. `asked` says in words what else is asked.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, which stands in the audit then.
    pub async fn admit<T>(
        &self,
        request: &Request<T>,
        method: Method,
        account: &str,
        asked: impl Into<String>,
    ) -> Result<Call, Status> {
        let caller = Caller::of(request)?;
        let scope = caller.scope();
        let record = caller.record(method.full_name(), asked.into());
        let record = v1::AuditRecord { account: account.to_owned(), ..record };
        let call = Call { caller, scope, record, method };
        let role = call.caller.principal.role();
        let status = if !call.caller.principal.meets(method.need) {
            Status::permission_denied(format!("{} needs {}; you are {role}", method.name, method.need.describe()))
        } else if method.for_all && !call.scope.is_all() {
            let name = method.name;
            Status::permission_denied(format!("{name} concerns all accounts; you are limited to {}", call.domains()))
        } else {
            return Ok(call);
        };
        Err(self.deny(call, status).await)
    }

    /// Ends a call that only looked: writes its audit record soon. Gives `answer` back.
    pub async fn looked<T>(&self, mut call: Call, answer: Result<T, Status>) -> Result<T, Status> {
        match answer {
            Err(status) if status.code() == Code::PermissionDenied => Err(self.deny(call, status).await),
            answer => {
                if let Err(status) = &answer {
                    status.message().clone_into(&mut call.record.result);
                }
                self.audit.note(call.record).await;
                answer
            }
        }
    }

    /// Notes in the audit that `call` is denied, and counts it.
    pub async fn deny(&self, mut call: Call, status: Status) -> Status {
        call.record.allowed = false;
        status.message().clone_into(&mut call.record.result);
        self.metrics.denied.get_or_create(&DeniedLabel { method: call.method.name }).inc();
        // Nothing is done anyway; that the record is lacking is logged and counted.
        let _ = self.audit.write(call.record).await;
        status
    }

    /// Where records go.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }
}

impl Call {
    /// Checks that the caller may know of `account`. Says the same whether it exists or not.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check(&self, account: &Account) -> Result<(), Status> {
        if self.scope.has(account) {
            return Ok(());
        }
        Err(Status::permission_denied(format!("you may see and change accounts of {} only", self.domains())))
    }

    /// Who asks: as the credentials say, or, where none are asked for, as the request says.
    pub fn actor(&self, said: &str) -> String {
        match &self.caller.principal {
            Principal::Person(person) if person.is_unproven() => said.to_owned(),
            principal => principal.name().to_owned(),
        }
    }

    /// Whether their word counts where evidence from elsewhere is asked for.
    pub fn may_vouch(&self) -> bool {
        self.scope.is_all() && self.caller.principal.meets(Need::Administer)
    }

    fn domains(&self) -> String {
        let Some(domains) = self.scope.limited_to() else { return "all domains".to_owned() };
        let named: Vec<&str> = domains.iter().take(MAX_NAMED).map(String::as_str).collect();
        match domains.len().saturating_sub(MAX_NAMED) {
            0 if named.is_empty() => "no domain".to_owned(),
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}
