//! `AuditService`: reads the audit, as far as the caller may know of it.

use crate::admission::{Admission, Call};
use crate::methods::{self, METHODS};
use crate::metrics::Metrics;
use crate::paging::page_size;
use crate::tails::{Key, Tails};
use std::sync::Arc;
use tidegate_access::Scope;
use tidegate_domain::{Account, AccountForm};
use tidegate_proto::v1;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Messages that wait for the connection to take them.
const OUTGOING: usize = 64;
/// Longest text in a filter, in octets.
const MAX_TEXT_OCTETS: usize = 320;

/// Reads the audit. A clone is the same service.
#[derive(Clone)]
pub(crate) struct AuditApi {
    /// The newest records.
    pub tails: Arc<Tails>,
    /// Who is let in.
    pub admission: Admission,
    /// How accounts are spelt.
    pub form: Arc<AccountForm>,
    /// What is counted.
    pub metrics: Metrics,
    /// One permit for each watch.
    pub watchers: Arc<Semaphore>,
    /// Ends streams.
    pub shutdown: CancellationToken,
}

/// Which records are meant, and may be seen.
struct Filter {
    asked: v1::AuditFilter,
    scope: Scope,
}

#[tonic::async_trait]
impl v1::audit_service_server::AuditService for AuditApi {
    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let asked = describe(request.get_ref().filter.as_ref());
        let call = self.admission.admit(&request, methods::LIST_AUDIT, "", asked).await?;
        let answer = self.list(&call, request.into_inner());
        self.admission.looked(call, answer).await.map(Response::new)
    }

    type WatchAuditStream = ReceiverStream<Result<v1::WatchAuditResponse, Status>>;

    async fn watch_audit(
        &self,
        request: Request<v1::WatchAuditRequest>,
    ) -> Result<Response<Self::WatchAuditStream>, Status> {
        let asked = describe(request.get_ref().filter.as_ref());
        let call = self.admission.admit(&request, methods::WATCH_AUDIT, "", asked).await?;
        let answer = self.watch(&call, request.into_inner());
        self.admission.looked(call, answer).await.map(Response::new)
    }
}

impl AuditApi {
    fn list(&self, call: &Call, request: v1::ListAuditRequest) -> Result<v1::ListAuditResponse, Status> {
        let filter = self.filter(call, request.filter)?;
        let most = page_size(request.page_size)?;
        let before = if request.page_token.is_empty() { None } else { Some(from_token(&request.page_token)?) };
        let mut found = self.tails.audit.newest(before.as_ref(), most + 1, |record| filter.matches(record));
        let more = found.len() > most;
        found.truncate(most);
        let next_page_token = match found.last() {
            Some((key, _)) if more => format!("{}:{}", key.0, key.1),
            _ => String::new(),
        };
        Ok(v1::ListAuditResponse {
            records: found.into_iter().map(|(_, record)| (*record).clone()).collect(),
            next_page_token,
            // When the oldest one was written tells who is limited to domains nothing of others.
            oldest_ms: self.tails.audit.oldest_ms(),
        })
    }

    fn watch(
        &self,
        call: &Call,
        request: v1::WatchAuditRequest,
    ) -> Result<ReceiverStream<Result<v1::WatchAuditResponse, Status>>, Status> {
        let filter = self.filter(call, request.filter)?;
        let Ok(permit) = Arc::clone(&self.watchers).try_acquire_owned() else {
            self.metrics.watchers_refused.inc();
            return Err(Status::resource_exhausted("as many watches are open as are allowed; close one"));
        };
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        let mut added = self.tails.audit.added();
        let (shutdown, metrics) = (self.shutdown.clone(), self.metrics.clone());
        tokio::spawn(async move {
            let _permit = permit;
            loop {
                let record = tokio::select! {
                    () = outgoing.closed() => return,
                    () = shutdown.cancelled() => Err(Status::unavailable("control is ending; watch anew")),
                    added = added.recv() => match added {
                        Ok(record) => Ok(record),
                        Err(RecvError::Lagged(_)) => {
                            metrics.watchers_behind.inc();
                            Err(Status::resource_exhausted("the watch fell behind and missed records; list, and watch anew"))
                        }
                        Err(RecvError::Closed) => Err(Status::unavailable("control is ending; watch anew")),
                    },
                };
                let ended = record.is_err();
                let said = match record {
                    Ok(record) if !filter.matches(&record) => continue,
                    Ok(record) => Ok(v1::WatchAuditResponse { record: Some((*record).clone()) }),
                    Err(status) => Err(status),
                };
                if outgoing.send(said).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(stream))
    }

    fn filter(&self, call: &Call, filter: Option<v1::AuditFilter>) -> Result<Filter, Status> {
        let mut asked = filter.unwrap_or_default();
        for (field, text) in [("actor", &asked.actor), ("account", &asked.account), ("method", &asked.method)] {
            if text.len() > MAX_TEXT_OCTETS {
                let octets = text.len();
                return Err(Status::invalid_argument(format!(
                    "filter.{field} has {octets} octets; allowed: at most 320"
                )));
            }
        }
        if !asked.account.is_empty()
            && let Ok(account) = Account::login(&asked.account, &self.form)
        {
            account.as_str().clone_into(&mut asked.account);
        }
        Ok(Filter { asked, scope: call.scope.clone() })
    }
}

impl Filter {
    fn matches(&self, record: &v1::AuditRecord) -> bool {
        let Self { asked, scope } = self;
        // Records about no account, or about many, are for those who may see all.
        (scope.is_all() || Account::parse(&record.account).is_ok_and(|account| scope.has(&account)))
            && (asked.actor.is_empty() || asked.actor == record.actor)
            && (asked.account.is_empty() || asked.account == record.account)
            && (asked.method.is_empty() || record.method.to_lowercase().contains(&asked.method.to_lowercase()))
            && (!asked.denied || !record.allowed)
            && asked.since_ms.is_none_or(|since_ms| record.time_ms >= since_ms)
            && asked.until_ms.is_none_or(|until_ms| record.time_ms < until_ms)
            && (!asked.actions || acts(&record.method))
    }
}

/// Whether a method changes something. What is not known here might.
fn acts(method: &str) -> bool {
    METHODS.iter().find(|known| known.full_name() == method).is_none_or(|known| known.acts)
}

fn from_token(token: &str) -> Result<Key, Status> {
    token
        .split_once(':')
        .and_then(|(time_ms, id)| Some((time_ms.parse().ok()?, id.to_owned())))
        .ok_or_else(|| Status::invalid_argument("page_token is none; allowed: next_page_token of an answer, or empty"))
}

fn describe(filter: Option<&v1::AuditFilter>) -> String {
    let Some(filter) = filter else { return String::new() };
    let texts = [("actor", &filter.actor), ("account", &filter.account), ("method", &filter.method)];
    let mut parts: Vec<String> = texts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name} {value:?}"))
        .collect();
    parts.extend(filter.denied.then(|| "denied".to_owned()));
    parts.extend(filter.actions.then(|| "actions".to_owned()));
    parts.extend(filter.since_ms.map(|ms| format!("since {ms}")));
    parts.extend(filter.until_ms.map(|ms| format!("until {ms}")));
    parts.join(", ")
}
