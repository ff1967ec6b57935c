//! `AdminService`: lists and inspects accounts, and takes actions on them.

mod actions;
mod check;
mod describe;
mod filter;
mod inspect;
mod list;
mod many;
mod overview;
mod rules;
mod settings;
mod watch;

use crate::admission::{Admission, Call};
use crate::config::ControlConfig;
use crate::edge_registry::EdgeRegistry;
use crate::event_rate::EventRate;
use crate::methods;
use crate::metrics::Metrics;
use crate::tails::Tails;
use crate::unlock_evidence::Evidence;
use crate::view::View;
use actions::Asked;
use std::sync::Arc;
use tidegate_access::Principal;
use tidegate_bus::Bus;
use tidegate_domain::AccountForm;
use tidegate_proto::v1;
use tidegate_proto::v1::command::Kind;
use tidegate_runtime::traces::Tracer;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub(crate) use filter::Filter;

/// Serves administrators. A clone is the same service.
#[derive(Clone)]
pub(crate) struct AdminApi {
    view: Arc<View>,
    tails: Arc<Tails>,
    registry: Arc<EdgeRegistry>,
    bus: Arc<dyn Bus>,
    admission: Admission,
    evidence: Arc<Evidence>,
    event_rate: Arc<EventRate>,
    config: Arc<ControlConfig>,
    form: Arc<AccountForm>,
    metrics: Metrics,
    tracer: Tracer,
    /// One permit for each watch.
    watchers: Arc<Semaphore>,
    /// One permit for each request that acts on many accounts.
    many: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// What the service is made of.
pub(crate) struct Parts {
    /// What is known of accounts, rules and settings.
    pub view: Arc<View>,
    /// The newest audit records, notifications and inspections.
    pub tails: Arc<Tails>,
    /// The edges.
    pub registry: Arc<EdgeRegistry>,
    /// Where commands and settings are written.
    pub bus: Arc<dyn Bus>,
    /// Who is let in.
    pub admission: Admission,
    /// What an unlock needs.
    pub evidence: Arc<Evidence>,
    /// How many events come.
    pub event_rate: Arc<EventRate>,
    /// The settings.
    pub config: Arc<ControlConfig>,
    /// What is counted.
    pub metrics: Metrics,
    /// Takes a step for each command.
    pub tracer: Tracer,
    /// One permit for each watch.
    pub watchers: Arc<Semaphore>,
    /// Ends streams.
    pub shutdown: CancellationToken,
}

/// Most requests that act on many accounts at a time.
const MAX_MANY: usize = 4;

impl AdminApi {
    /// The service, made of `parts`.
    pub fn new(parts: Parts) -> Self {
        let Parts { view, tails, registry, bus, admission, evidence, event_rate, config, .. } = parts;
        let Parts { metrics, tracer, watchers, shutdown, .. } = parts;
        Self {
            form: Arc::new(config.account_form()),
            watchers,
            many: Arc::new(Semaphore::new(MAX_MANY)),
            view,
            tails,
            registry,
            bus,
            admission,
            evidence,
            event_rate,
            config,
            metrics,
            tracer,
            shutdown,
        }
    }
}

#[tonic::async_trait]
impl v1::admin_service_server::AdminService for AdminApi {
    async fn list_accounts(
        &self,
        request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        let asked = describe::filter(request.get_ref().filter.as_ref());
        let call = self.admission.admit(&request, methods::LIST_ACCOUNTS, "", asked).await?;
        let answer = self.list(&call, request.into_inner()).await;
        self.admission.looked(call, answer).await.map(Response::new)
    }

    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let account = request.get_ref().account.clone();
        let call = self.admission.admit(&request, methods::GET_ACCOUNT, &account, "").await?;
        let answer = self.get(&call, request.get_ref());
        self.admission.looked(call, answer).await.map(Response::new)
    }

    type WatchAccountsStream = ReceiverStream<Result<v1::WatchAccountsResponse, Status>>;

    async fn watch_accounts(
        &self,
        request: Request<v1::WatchAccountsRequest>,
    ) -> Result<Response<Self::WatchAccountsStream>, Status> {
        let asked = describe::filter(request.get_ref().filter.as_ref());
        let call = self.admission.admit(&request, methods::WATCH_ACCOUNTS, "", asked).await?;
        let answer = self.watch(&call, request.into_inner());
        self.admission.looked(call, answer).await.map(Response::new)
    }

    async fn lock_account(
        &self,
        request: Request<v1::LockAccountRequest>,
    ) -> Result<Response<v1::LockAccountResponse>, Status> {
        let (request, metadata) = split(request);
        let v1::LockAccountRequest { account, actor, reason, lock, wait_ms } = request;
        let lock = self.with_reply(lock.unwrap_or_default());
        let asked = describe::lock(&lock);
        let call = self.admission.admit(&metadata, methods::LOCK_ACCOUNT, &account, asked).await?;
        let asked = Asked { account, actor, reason, wait_ms, kind: Some(Kind::Lock(lock)) };
        let (state, applied, command_id) = self.act(call, asked).await?;
        Ok(Response::new(v1::LockAccountResponse { state, applied, command_id }))
    }

    async fn unlock_account(
        &self,
        request: Request<v1::UnlockAccountRequest>,
    ) -> Result<Response<v1::UnlockAccountResponse>, Status> {
        let (request, metadata) = split(request);
        let v1::UnlockAccountRequest { account, actor, reason, unlock, wait_ms } = request;
        let unlock = unlock.unwrap_or_default();
        let asked = describe::unlock(&unlock);
        let call = self.admission.admit(&metadata, methods::UNLOCK_ACCOUNT, &account, asked).await?;
        let asked = Asked { account, actor, reason, wait_ms, kind: Some(Kind::Unlock(unlock)) };
        let (state, applied, command_id) = self.act(call, asked).await?;
        Ok(Response::new(v1::UnlockAccountResponse { state, applied, command_id }))
    }

    async fn exempt_account(
        &self,
        request: Request<v1::ExemptAccountRequest>,
    ) -> Result<Response<v1::ExemptAccountResponse>, Status> {
        let (request, metadata) = split(request);
        let v1::ExemptAccountRequest { account, actor, reason, exempt, wait_ms } = request;
        let asked = exempt.as_ref().map(|exempt| describe::exemption(&exempt.rules, exempt.until_ms));
        let asked = asked.unwrap_or_default();
        let call = self.admission.admit(&metadata, methods::EXEMPT_ACCOUNT, &account, asked).await?;
        let asked = Asked { account, actor, reason, wait_ms, kind: exempt.map(Kind::Exempt) };
        let (state, applied, command_id) = self.act(call, asked).await?;
        Ok(Response::new(v1::ExemptAccountResponse { state, applied, command_id }))
    }

    async fn clear_account(
        &self,
        request: Request<v1::ClearAccountRequest>,
    ) -> Result<Response<v1::ClearAccountResponse>, Status> {
        let (request, metadata) = split(request);
        let v1::ClearAccountRequest { account, actor, reason, clear, wait_ms } = request;
        let asked = clear.map(describe::clear).unwrap_or_default();
        let call = self.admission.admit(&metadata, methods::CLEAR_ACCOUNT, &account, asked).await?;
        let asked = Asked { account, actor, reason, wait_ms, kind: clear.map(Kind::Clear) };
        let (state, applied, command_id) = self.act(call, asked).await?;
        Ok(Response::new(v1::ClearAccountResponse { state, applied, command_id }))
    }

    async fn list_edges(
        &self,
        request: Request<v1::ListEdgesRequest>,
    ) -> Result<Response<v1::ListEdgesResponse>, Status> {
        let call = self.admission.admit(&request, methods::LIST_EDGES, "", "").await?;
        let answer = Ok(v1::ListEdgesResponse { edges: self.registry.list() });
        self.admission.looked(call, answer).await.map(Response::new)
    }

    async fn list_rules(
        &self,
        request: Request<v1::ListRulesRequest>,
    ) -> Result<Response<v1::ListRulesResponse>, Status> {
        let call = self.admission.admit(&request, methods::LIST_RULES, "", "").await?;
        let answer = self.view.ensure_ready().map(|()| rules::answer(self.view.rule_sets(), &call.scope));
        self.admission.looked(call, answer).await.map(Response::new)
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let call = self.admission.admit(&request, methods::WHO_AM_I, "", "").await?;
        let answer = Ok(who(&call));
        self.admission.looked(call, answer).await.map(Response::new)
    }

    async fn get_overview(
        &self,
        request: Request<v1::GetOverviewRequest>,
    ) -> Result<Response<v1::GetOverviewResponse>, Status> {
        let call = self.admission.admit(&request, methods::GET_OVERVIEW, "", "").await?;
        let answer = self.overview(&call).await;
        self.admission.looked(call, answer).await.map(Response::new)
    }

    async fn inspect_account(
        &self,
        request: Request<v1::InspectAccountRequest>,
    ) -> Result<Response<v1::InspectAccountResponse>, Status> {
        let account = request.get_ref().account.clone();
        let call = self.admission.admit(&request, methods::INSPECT_ACCOUNT, &account, "").await?;
        let answer = self.inspect(&call, request.get_ref()).await;
        self.admission.looked(call, answer).await.map(Response::new)
    }

    type ActOnManyStream = ReceiverStream<Result<v1::ActOnManyResponse, Status>>;

    async fn act_on_many(
        &self,
        request: Request<v1::ActOnManyRequest>,
    ) -> Result<Response<Self::ActOnManyStream>, Status> {
        let asked = describe::many(request.get_ref());
        let call = self.admission.admit(&request, methods::ACT_ON_MANY, "", asked).await?;
        self.many(call, request.into_inner()).await.map(Response::new)
    }

    async fn switch_rule(
        &self,
        request: Request<v1::SwitchRuleRequest>,
    ) -> Result<Response<v1::SwitchRuleResponse>, Status> {
        let asked = describe::switch(request.get_ref());
        let call = self.admission.admit(&request, methods::SWITCH_RULE, "", asked).await?;
        self.switch(call, request.into_inner()).await.map(Response::new)
    }

    async fn exempt_domain(
        &self,
        request: Request<v1::ExemptDomainRequest>,
    ) -> Result<Response<v1::ExemptDomainResponse>, Status> {
        let asked = describe::exempt_domain(request.get_ref());
        let call = self.admission.admit(&request, methods::EXEMPT_DOMAIN, "", asked).await?;
        self.exempt_all_of(call, request.into_inner()).await.map(Response::new)
    }

    async fn set_limits(
        &self,
        request: Request<v1::SetLimitsRequest>,
    ) -> Result<Response<v1::SetLimitsResponse>, Status> {
        let asked = describe::limits(request.get_ref());
        let call = self.admission.admit(&request, methods::SET_LIMITS, "", asked).await?;
        self.limit(call, request.into_inner()).await.map(Response::new)
    }

    async fn list_settings(
        &self,
        request: Request<v1::ListSettingsRequest>,
    ) -> Result<Response<v1::ListSettingsResponse>, Status> {
        let call = self.admission.admit(&request, methods::LIST_SETTINGS, "", "").await?;
        let answer = self.view.ensure_ready().map(|()| settings::visible(self.view.settings(), &call.scope));
        self.admission.looked(call, answer).await.map(Response::new)
    }

    async fn list_notifications(
        &self,
        request: Request<v1::ListNotificationsRequest>,
    ) -> Result<Response<v1::ListNotificationsResponse>, Status> {
        let account = request.get_ref().account.clone();
        let call = self.admission.admit(&request, methods::LIST_NOTIFICATIONS, &account, "").await?;
        let answer = self.notifications(&call, request.get_ref());
        self.admission.looked(call, answer).await.map(Response::new)
    }
}

/// The message, and a request that still has everything else.
fn split<T>(request: Request<T>) -> (T, Request<()>) {
    let (metadata, extensions, message) = request.into_parts();
    (message, Request::from_parts(metadata, extensions, ()))
}

fn who(call: &Call) -> v1::WhoAmIResponse {
    let domains = call.scope.limited_to().into_iter().flatten().cloned().collect();
    match &call.caller.principal {
        Principal::Person(person) => v1::WhoAmIResponse {
            name: person.name.clone(),
            role: person.role.as_str().to_owned(),
            domains,
            credential: person.credential.kind().to_owned(),
            expires_ms: person.expires_ms,
        },
        principal @ Principal::Enrolling(enrolling) => v1::WhoAmIResponse {
            name: principal.name().to_owned(),
            role: principal.role().to_owned(),
            domains,
            credential: "token".to_owned(),
            expires_ms: enrolling.expires_ms,
        },
        principal @ Principal::Edge(_) => v1::WhoAmIResponse {
            name: principal.name().to_owned(),
            role: principal.role().to_owned(),
            domains,
            credential: "certificate".to_owned(),
            expires_ms: None,
        },
    }
}
