//! `AdminService`: lists and inspects accounts, and takes actions on them.

mod actions;
mod check;
mod filter;
mod list;
mod watch;

use crate::audit::Audit;
use crate::caller::Caller;
use crate::config::ControlConfig;
use crate::edge_registry::EdgeRegistry;
use crate::metrics::Metrics;
use crate::view::View;
use actions::{Asked, Method};
use std::sync::Arc;
use tidegate_bus::Bus;
use tidegate_domain::AccountForm;
use tidegate_proto::v1;
use tidegate_proto::v1::command::Kind;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Serves administrators. A clone is the same service.
#[derive(Clone)]
pub(crate) struct AdminApi {
    view: Arc<View>,
    registry: Arc<EdgeRegistry>,
    bus: Arc<dyn Bus>,
    audit: Audit,
    config: Arc<ControlConfig>,
    form: Arc<AccountForm>,
    metrics: Metrics,
    /// One permit for each watch.
    watchers: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl AdminApi {
    /// Reads from `view` and `registry`, writes commands and audit to `bus`.
    pub fn new(
        view: Arc<View>,
        registry: Arc<EdgeRegistry>,
        bus: Arc<dyn Bus>,
        config: Arc<ControlConfig>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            audit: Audit::new(Arc::clone(&bus), metrics.clone()),
            form: Arc::new(config.account_form()),
            watchers: Arc::new(Semaphore::new(config.max_watchers)),
            view,
            registry,
            bus,
            config,
            metrics,
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
        self.list(request.into_inner()).await.map(Response::new)
    }

    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        self.get(&request.into_inner()).map(Response::new)
    }

    type WatchAccountsStream = ReceiverStream<Result<v1::WatchAccountsResponse, Status>>;

    async fn watch_accounts(
        &self,
        request: Request<v1::WatchAccountsRequest>,
    ) -> Result<Response<Self::WatchAccountsStream>, Status> {
        self.watch(request.into_inner()).map(Response::new)
    }

    async fn lock_account(
        &self,
        request: Request<v1::LockAccountRequest>,
    ) -> Result<Response<v1::LockAccountResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::LockAccountRequest { account, actor, reason, lock, wait_ms } = request.into_inner();
        let mut lock = lock.unwrap_or_default();
        if lock.reply.trim().is_empty() {
            lock.reply.clone_from(&self.config.lock_reply);
        }
        let asked = Asked { method: Method::Lock, account, actor, reason, wait_ms, kind: Some(Kind::Lock(lock)) };
        let (state, applied, command_id) = self.act(caller, asked).await?;
        Ok(Response::new(v1::LockAccountResponse { state, applied, command_id }))
    }

    async fn unlock_account(
        &self,
        request: Request<v1::UnlockAccountRequest>,
    ) -> Result<Response<v1::UnlockAccountResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::UnlockAccountRequest { account, actor, reason, unlock, wait_ms } = request.into_inner();
        let kind = Some(Kind::Unlock(unlock.unwrap_or_default()));
        let asked = Asked { method: Method::Unlock, account, actor, reason, wait_ms, kind };
        let (state, applied, command_id) = self.act(caller, asked).await?;
        Ok(Response::new(v1::UnlockAccountResponse { state, applied, command_id }))
    }

    async fn exempt_account(
        &self,
        request: Request<v1::ExemptAccountRequest>,
    ) -> Result<Response<v1::ExemptAccountResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::ExemptAccountRequest { account, actor, reason, exempt, wait_ms } = request.into_inner();
        let kind = exempt.map(Kind::Exempt);
        let asked = Asked { method: Method::Exempt, account, actor, reason, wait_ms, kind };
        let (state, applied, command_id) = self.act(caller, asked).await?;
        Ok(Response::new(v1::ExemptAccountResponse { state, applied, command_id }))
    }

    async fn clear_account(
        &self,
        request: Request<v1::ClearAccountRequest>,
    ) -> Result<Response<v1::ClearAccountResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::ClearAccountRequest { account, actor, reason, clear, wait_ms } = request.into_inner();
        let kind = clear.map(Kind::Clear);
        let asked = Asked { method: Method::Clear, account, actor, reason, wait_ms, kind };
        let (state, applied, command_id) = self.act(caller, asked).await?;
        Ok(Response::new(v1::ClearAccountResponse { state, applied, command_id }))
    }

    async fn list_edges(
        &self,
        _request: Request<v1::ListEdgesRequest>,
    ) -> Result<Response<v1::ListEdgesResponse>, Status> {
        Ok(Response::new(v1::ListEdgesResponse { edges: self.registry.list() }))
    }

    async fn list_rules(
        &self,
        _request: Request<v1::ListRulesRequest>,
    ) -> Result<Response<v1::ListRulesResponse>, Status> {
        self.view.ensure_ready()?;
        Ok(Response::new(list::rules(self.view.rule_sets())))
    }

    async fn who_am_i(&self, _request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn get_overview(
        &self,
        _request: Request<v1::GetOverviewRequest>,
    ) -> Result<Response<v1::GetOverviewResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn inspect_account(
        &self,
        _request: Request<v1::InspectAccountRequest>,
    ) -> Result<Response<v1::InspectAccountResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn switch_rule(
        &self,
        _request: Request<v1::SwitchRuleRequest>,
    ) -> Result<Response<v1::SwitchRuleResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn exempt_domain(
        &self,
        _request: Request<v1::ExemptDomainRequest>,
    ) -> Result<Response<v1::ExemptDomainResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn set_limits(
        &self,
        _request: Request<v1::SetLimitsRequest>,
    ) -> Result<Response<v1::SetLimitsResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn list_settings(
        &self,
        _request: Request<v1::ListSettingsRequest>,
    ) -> Result<Response<v1::ListSettingsResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn list_notifications(
        &self,
        _request: Request<v1::ListNotificationsRequest>,
    ) -> Result<Response<v1::ListNotificationsResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    type ActOnManyStream = ReceiverStream<Result<v1::ActOnManyResponse, Status>>;

    async fn act_on_many(
        &self,
        _request: Request<v1::ActOnManyRequest>,
    ) -> Result<Response<Self::ActOnManyStream>, Status> {
        Err(Status::unimplemented("to come"))
    }
}
