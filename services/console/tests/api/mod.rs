//! An API to look at pages with: it speaks the real protocol and keeps states in memory, but decides little. What the
//! real one decides is tested with the real one.

#![allow(dead_code, missing_docs, clippy::cast_possible_wrap, clippy::missing_panics_doc, clippy::unwrap_used)]

mod data;
mod service;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidegate_access::ForwardedPeer;
use tidegate_proto::v1;
use tidegate_proto::v1::admin_service_server::AdminServiceServer;
use tidegate_proto::v1::audit_service_server::AuditServiceServer;
use tokio::sync::broadcast;
use tonic::service::Routes;
use tonic::{Request, Status};

/// The API. A clone shares it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    accounts: Mutex<BTreeMap<String, v1::AccountState>>,
    audit: Mutex<Vec<v1::AuditRecord>>,
    settings: Mutex<Vec<v1::Setting>>,
    changes: broadcast::Sender<v1::AccountState>,
    records: broadcast::Sender<v1::AuditRecord>,
    revoked: Mutex<Vec<String>>,
    failing: Mutex<Option<Status>>,
    peers: Mutex<Vec<String>>,
    is_open: bool,
}

/// Who calls.
#[derive(Clone)]
struct Who {
    name: &'static str,
    role: &'static str,
    domains: Vec<String>,
}

impl Api {
    /// With plausible accounts. `is_open`: it asks for no credential.
    pub fn plausible(is_open: bool) -> Self {
        Self::with(data::accounts(200), data::audit(), is_open)
    }

    /// With no account.
    pub fn empty(is_open: bool) -> Self {
        Self::with(Vec::new(), Vec::new(), is_open)
    }

    fn with(accounts: Vec<v1::AccountState>, audit: Vec<v1::AuditRecord>, is_open: bool) -> Self {
        let accounts = accounts.into_iter().map(|state| (state.account.clone(), state)).collect();
        Self(Arc::new(Inner {
            accounts: Mutex::new(accounts),
            audit: Mutex::new(audit),
            settings: Mutex::new(data::settings()),
            changes: broadcast::channel(65_536).0,
            records: broadcast::channel(65_536).0,
            revoked: Mutex::default(),
            failing: Mutex::default(),
            peers: Mutex::default(),
            is_open,
        }))
    }

    /// What the console is given.
    pub fn routes(&self) -> Routes {
        Routes::new(AdminServiceServer::new(self.clone())).add_service(AuditServiceServer::new(self.clone()))
    }

    /// A state as a rule's lock makes it.
    pub fn locked(&self, account: &str) {
        self.put(data::locked(account, 1, data::now_ms()));
    }

    /// Takes a state over.
    pub fn put(&self, state: v1::AccountState) {
        self.0.accounts.lock().unwrap().insert(state.account.clone(), state.clone());
        let _ = self.0.changes.send(state);
    }

    /// The state of `account`.
    pub fn state(&self, account: &str) -> Option<v1::AccountState> {
        self.0.accounts.lock().unwrap().get(account).cloned()
    }

    /// The records of the audit.
    pub fn audited(&self) -> Vec<v1::AuditRecord> {
        self.0.audit.lock().unwrap().clone()
    }

    /// Takes a record over.
    pub fn record(&self, record: v1::AuditRecord) {
        self.0.audit.lock().unwrap().push(record.clone());
        let _ = self.0.records.send(record);
    }

    /// From now on this token is refused.
    pub fn revoke(&self, token: &str) {
        self.0.revoked.lock().unwrap().push(token.to_owned());
    }

    /// From now on every call but `WhoAmI` fails with this.
    pub fn fail(&self, status: Option<Status>) {
        *self.0.failing.lock().unwrap() = status;
    }

    /// From where calls came.
    pub fn peers(&self) -> Vec<String> {
        self.0.peers.lock().unwrap().clone()
    }

    /// Who calls, by one of four tokens.
    fn who<T>(&self, request: &Request<T>) -> Result<Who, Status> {
        let peer = request.extensions().get::<ForwardedPeer>().map(|peer| peer.0.ip().to_string());
        self.0.peers.lock().unwrap().extend(peer);
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if self.0.revoked.lock().unwrap().iter().any(|revoked| revoked == token) {
            return Err(Status::unauthenticated("the token is not known, or is revoked"));
        }
        let who = |name, role, domains: &[&str]| Who {
            name,
            role,
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        };
        match token {
            "admin" => Ok(who("amy", "admin", &[])),
            "operator" => Ok(who("olaf", "operator", &[])),
            "viewer" => Ok(who("vera", "viewer", &[])),
            "domain" => Ok(who("dora", "admin", &["example.org"])),
            "limited" => {
                Err(Status::resource_exhausted("too many failed attempts from your address; try again in 30 s"))
            }
            "" if self.0.is_open => Ok(who("", "admin", &[])),
            _ => Err(Status::unauthenticated("the token is not known, or is revoked")),
        }
    }

    /// The same for a method that needs one of `roles`.
    fn allowed<T>(&self, request: &Request<T>, roles: &[&str]) -> Result<Who, Status> {
        let who = self.who(request)?;
        if let Some(status) = self.0.failing.lock().unwrap().clone() {
            return Err(status);
        }
        if !roles.is_empty() && !roles.contains(&who.role) {
            return Err(Status::permission_denied(format!(
                "{} is {}; this needs the role {}",
                who.name,
                who.role,
                roles.join(" or ")
            )));
        }
        Ok(who)
    }
}

impl Who {
    fn sees(&self, account: &str) -> bool {
        self.domains.is_empty() || self.domains.iter().any(|domain| account.ends_with(&format!("@{domain}")))
    }
}

/// The kind of streams that answers are.
type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;
