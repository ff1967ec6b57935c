//! The methods.

use super::{Answers, Api, data};
use tidegate_proto::v1::admin_service_server::AdminService;
use tidegate_proto::v1::audit_service_server::AuditService;
#[allow(clippy::wildcard_imports)] // All of them are spoken of here.
use tidegate_proto::v1::*;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

const ACT: [&str; 2] = ["operator", "admin"];
const ADMINISTER: [&str; 1] = ["admin"];

fn fits(filter: &AccountFilter, state: &AccountState) -> bool {
    let by_rule =
        || state.lock.as_ref().and_then(|lock| lock.rule.as_ref()).is_some_and(|rule| rule.name == filter.rule);
    (filter.statuses.is_empty() || filter.statuses.contains(&state.status))
        && (filter.domains.is_empty()
            || filter.domains.iter().any(|domain| state.account.ends_with(&format!("@{domain}"))))
        && state.account.contains(&filter.contains)
        && (filter.rule.is_empty() || by_rule())
        && (!filter.exempted || !state.exemptions.is_empty())
}

impl Api {
    fn found(&self, who: &super::Who, filter: &AccountFilter) -> Vec<AccountState> {
        let accounts = self.0.accounts.lock().unwrap();
        accounts.values().filter(|state| who.sees(&state.account) && fits(filter, state)).cloned().collect()
    }

    fn act(
        &self,
        who: &super::Who,
        account: &str,
        reason: &str,
        method: &str,
        change: impl FnOnce(&mut AccountState),
    ) -> Result<AccountState, Status> {
        if !who.sees(account) {
            return Err(Status::not_found(format!("{account} is not known")));
        }
        if reason.is_empty() {
            return Err(Status::invalid_argument("reason is empty; allowed: why, in at most 1000 octets"));
        }
        let before = self.state(account);
        let mut state =
            before.clone().unwrap_or_else(|| AccountState { account: account.into(), ..Default::default() });
        change(&mut state);
        state.version += 1;
        state.changed_ms = data::now_ms();
        self.put(state.clone());
        self.record(AuditRecord {
            id: format!("{}", data::now_ms()),
            time_ms: data::now_ms(),
            actor: who.name.into(),
            role: who.role.into(),
            peer: "127.0.0.1".into(),
            method: format!("tidegate.v1.AdminService/{method}"),
            account: account.into(),
            reason: reason.into(),
            allowed: true,
            before,
            after: Some(state.clone()),
            ..AuditRecord::default()
        });
        Ok(state)
    }

    fn unlock(who: &super::Who, reason: &str, unlock: &UnlockCommand) -> impl FnOnce(&mut AccountState) + use<> {
        let milestone = Milestone {
            at_ms: data::now_ms(),
            change: Change::Unlocked.into(),
            actor: who.name.into(),
            reason: reason.into(),
            ..Milestone::default()
        };
        let probation_ms = unlock.probation_ms.unwrap_or_default();
        move |state| {
            state.status = AccountStatus::Active.into();
            state.lock = None;
            state.probation_until_ms = (probation_ms > 0).then(|| data::now_ms() + probation_ms);
            state.timeline.push(milestone);
        }
    }

    fn lock(who: &super::Who, reason: &str, lock: &LockCommand) -> impl FnOnce(&mut AccountState) + use<> {
        let (actor, reason, lock) = (who.name.to_owned(), reason.to_owned(), lock.clone());
        move |state| {
            state.status = AccountStatus::Locked.into();
            state.lock = Some(Lock {
                id: "L-ADMIN001".into(),
                actor: actor.clone(),
                reason: reason.clone(),
                since_ms: data::now_ms(),
                until_ms: lock.for_ms.map(|ms| data::now_ms() + ms),
                reply: lock.reply,
                queued_mail: lock.queued_mail,
                ..Lock::default()
            });
            state.timeline.push(Milestone {
                at_ms: data::now_ms(),
                change: Change::Locked.into(),
                actor,
                reason,
                ..Milestone::default()
            });
        }
    }
}

#[tonic::async_trait]
impl AdminService for Api {
    type WatchAccountsStream = Answers<WatchAccountsResponse>;
    type ActOnManyStream = Answers<ActOnManyResponse>;

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let who = self.who(&request)?;
        let credential = if who.name.is_empty() { "loopback" } else { "token" };
        Ok(Response::new(WhoAmIResponse {
            name: who.name.into(),
            role: who.role.into(),
            domains: who.domains,
            credential: credential.into(),
            expires_ms: None,
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let who = self.allowed(&request, &[])?;
        let request = request.into_inner();
        let mut found = self.found(&who, &request.filter.unwrap_or_default());
        if request.order == i32::from(AccountOrder::Changed) {
            found.sort_by_key(|state| std::cmp::Reverse(state.changed_ms));
        }
        let from: usize = match request.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| Status::invalid_argument("page_token is not from an answer before"))?,
        };
        let size = if request.page_size == 0 { 100 } else { request.page_size as usize };
        let total = found.len() as u64;
        let next = from + size;
        let next_page_token = if next < found.len() { next.to_string() } else { String::new() };
        let accounts = found.into_iter().skip(from).take(size).collect();
        Ok(Response::new(ListAccountsResponse { accounts, next_page_token, total }))
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<GetAccountResponse>, Status> {
        let who = self.allowed(&request, &[])?;
        let account = request.into_inner().account;
        if account.is_empty() || account.contains(' ') {
            return Err(Status::invalid_argument(format!(
                "account: account {account:?} contains white space or a control character"
            )));
        }
        if !who.sees(&account) {
            return Err(Status::not_found(format!("{account} is not known")));
        }
        let state = self.state(&account).unwrap_or_else(|| AccountState { account, ..Default::default() });
        let edges = data::edges().into_iter().map(|edge| EdgeApplied {
            node: edge.node,
            site: edge.site,
            in_force: edge.connected,
            applied_ms: edge.connected.then_some(state.changed_ms + 6),
        });
        let edges = edges.collect();
        Ok(Response::new(GetAccountResponse { state: Some(state), edges }))
    }

    async fn watch_accounts(
        &self,
        request: Request<WatchAccountsRequest>,
    ) -> Result<Response<Self::WatchAccountsStream>, Status> {
        let who = self.allowed(&request, &[])?;
        let filter = request.into_inner().filter.unwrap_or_default();
        let changes = BroadcastStream::new(self.0.changes.subscribe()).filter_map(move |change| match change {
            Ok(state) if who.sees(&state.account) && fits(&filter, &state) => {
                Some(Ok(WatchAccountsResponse { kind: Some(watch_accounts_response::Kind::State(state)) }))
            }
            Ok(_) => None,
            Err(_) => Some(Err(Status::data_loss("the watch fell behind"))),
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn lock_account(
        &self,
        request: Request<LockAccountRequest>,
    ) -> Result<Response<LockAccountResponse>, Status> {
        let who = self.allowed(&request, &ACT)?;
        let request = request.into_inner();
        let lock = Self::lock(&who, &request.reason, &request.lock.unwrap_or_default());
        let state = self.act(&who, &request.account, &request.reason, "LockAccount", lock)?;
        Ok(Response::new(LockAccountResponse { state: Some(state), applied: true, command_id: "c".into() }))
    }

    async fn unlock_account(
        &self,
        request: Request<UnlockAccountRequest>,
    ) -> Result<Response<UnlockAccountResponse>, Status> {
        let who = self.allowed(&request, &ACT)?;
        let request = request.into_inner();
        let unlock = request.unlock.unwrap_or_default();
        if unlock.evidence.is_none() {
            return Err(Status::invalid_argument(
                "unlock.evidence is not set; allowed: when the password was changed, or a note",
            ));
        }
        let unlock = Self::unlock(&who, &request.reason, &unlock);
        let state = self.act(&who, &request.account, &request.reason, "UnlockAccount", unlock)?;
        Ok(Response::new(UnlockAccountResponse { state: Some(state), applied: true, command_id: "c".into() }))
    }

    async fn exempt_account(
        &self,
        request: Request<ExemptAccountRequest>,
    ) -> Result<Response<ExemptAccountResponse>, Status> {
        let who = self.allowed(&request, &ACT)?;
        let request = request.into_inner();
        let exempt = request.exempt.unwrap_or_default();
        let exemption = Exemption {
            rules: exempt.rules,
            until_ms: exempt.until_ms,
            actor: who.name.into(),
            reason: request.reason.clone(),
        };
        let state = self
            .act(&who, &request.account, &request.reason, "ExemptAccount", |state| state.exemptions.push(exemption))?;
        Ok(Response::new(ExemptAccountResponse { state: Some(state), applied: true, command_id: "c".into() }))
    }

    async fn clear_account(
        &self,
        request: Request<ClearAccountRequest>,
    ) -> Result<Response<ClearAccountResponse>, Status> {
        let who = self.allowed(&request, &ACT)?;
        let request = request.into_inner();
        // The state is never seen in time here.
        let state = self.act(&who, &request.account, &request.reason, "ClearAccount", |_| {})?;
        Ok(Response::new(ClearAccountResponse { state: Some(state), applied: false, command_id: "c".into() }))
    }

    async fn list_edges(&self, request: Request<ListEdgesRequest>) -> Result<Response<ListEdgesResponse>, Status> {
        let who = self.allowed(&request, &[])?;
        if !who.domains.is_empty() {
            return Err(Status::permission_denied("edges are not of your domains"));
        }
        Ok(Response::new(ListEdgesResponse { edges: data::edges() }))
    }

    async fn list_rules(&self, request: Request<ListRulesRequest>) -> Result<Response<ListRulesResponse>, Status> {
        self.allowed(&request, &[])?;
        Ok(Response::new(ListRulesResponse { rule_sets: data::rule_sets(&self.0.settings.lock().unwrap()) }))
    }

    async fn get_overview(
        &self,
        request: Request<GetOverviewRequest>,
    ) -> Result<Response<GetOverviewResponse>, Status> {
        let who = self.allowed(&request, &[])?;
        let found = self.found(&who, &AccountFilter::default());
        let count =
            |status: AccountStatus| found.iter().filter(|state| state.status == i32::from(status)).count() as u64;
        let today_ms = data::now_ms() / data::DAY_MS * data::DAY_MS;
        let all = who.domains.is_empty();
        let locks_per_day = (0..30_u64).map(|day| DayCount {
            day_ms: today_ms - (29 - day as i64) * data::DAY_MS,
            count: if day == 17 { 41 } else { data::mixed(day * 11) % 9 },
        });
        Ok(Response::new(GetOverviewResponse {
            locked: count(AccountStatus::Locked),
            throttled: count(AccountStatus::Throttled),
            on_probation: found.iter().filter(|state| state.probation_until_ms.is_some()).count() as u64,
            events_per_second: all.then_some(1_284.6),
            locks_per_day: locks_per_day.collect(),
            edges_connected: all.then_some(2),
            edges_gone: all.then_some(1),
            stalest_edge_ms: all.then_some(900),
            over_limits: 23,
        }))
    }

    async fn inspect_account(
        &self,
        request: Request<InspectAccountRequest>,
    ) -> Result<Response<InspectAccountResponse>, Status> {
        self.allowed(&request, &[])?;
        let request = request.into_inner();
        Ok(Response::new(InspectAccountResponse {
            inspection: Some(data::inspection(&request.account, request.points)),
        }))
    }

    async fn act_on_many(&self, request: Request<ActOnManyRequest>) -> Result<Response<Self::ActOnManyStream>, Status> {
        let who = self.allowed(&request, &ACT)?;
        let request = request.into_inner();
        let accounts = if request.accounts.is_empty() {
            self.found(&who, &request.filter.clone().unwrap_or_default())
                .into_iter()
                .map(|state| state.account)
                .collect()
        } else {
            request.accounts.clone()
        };
        let total = accounts.len() as u64;
        if request.reason.is_empty() {
            return Err(Status::invalid_argument("reason is empty; allowed: why, in at most 1000 octets"));
        }
        if request.expected_count.is_some_and(|expected| expected != total) {
            return Err(Status::failed_precondition(format!("{total} accounts are meant by now; nothing was done")));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let api = self.clone();
        tokio::spawn(async move {
            let (mut done, mut refused) = (0, 0);
            for step in accounts.chunks(25) {
                let mut outcomes = Vec::new();
                for account in step {
                    let before = api.state(account).unwrap_or_default().status;
                    let (after, why) = match &request.kind {
                        Some(act_on_many_request::Kind::Lock(_)) if before == 3 => (before, "it is locked already"),
                        Some(act_on_many_request::Kind::Lock(_)) => (3, ""),
                        _ if before <= 1 => (before, "it is not locked"),
                        _ => (1, ""),
                    };
                    if why.is_empty() {
                        done += 1;
                    } else {
                        refused += 1;
                    }
                    if why.is_empty() && !request.dry_run {
                        let _ = match &request.kind {
                            Some(act_on_many_request::Kind::Lock(lock)) => api.act(
                                &who,
                                account,
                                &request.reason,
                                "ActOnMany",
                                Self::lock(&who, &request.reason, lock),
                            ),
                            Some(act_on_many_request::Kind::Unlock(unlock)) => api.act(
                                &who,
                                account,
                                &request.reason,
                                "ActOnMany",
                                Self::unlock(&who, &request.reason, unlock),
                            ),
                            None => return,
                        };
                    }
                    outcomes.push(ManyOutcome { account: account.clone(), before, after, refused: why.into() });
                }
                if sender.send(Ok(ActOnManyResponse { total, done, refused, outcomes, finished: false })).await.is_err()
                {
                    return;
                }
            }
            let _ =
                sender.send(Ok(ActOnManyResponse { total, done, refused, outcomes: Vec::new(), finished: true })).await;
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn switch_rule(&self, request: Request<SwitchRuleRequest>) -> Result<Response<SwitchRuleResponse>, Status> {
        let who = self.allowed(&request, &ADMINISTER)?;
        let request = request.into_inner();
        let mut settings = self.0.settings.lock().unwrap();
        let key = format!("rule/{}", request.rule);
        settings.retain(|setting| setting.key != key);
        settings.push(Setting {
            key,
            actor: who.name.into(),
            reason: request.reason,
            set_ms: data::now_ms(),
            kind: Some(setting::Kind::RuleSwitch(RuleSwitch { rule: request.rule, off: request.off })),
        });
        Ok(Response::new(SwitchRuleResponse { applied: true }))
    }

    async fn exempt_domain(
        &self,
        request: Request<ExemptDomainRequest>,
    ) -> Result<Response<ExemptDomainResponse>, Status> {
        let who = self.allowed(&request, &ADMINISTER)?;
        let request = request.into_inner();
        let exemption = request.exemption.unwrap_or_default();
        let mut settings = self.0.settings.lock().unwrap();
        let key = format!("exemption/{}", exemption.domain);
        settings.retain(|setting| setting.key != key);
        if !request.remove {
            settings.push(Setting {
                key,
                actor: who.name.into(),
                reason: request.reason,
                set_ms: data::now_ms(),
                kind: Some(setting::Kind::DomainExemption(exemption)),
            });
        }
        Ok(Response::new(ExemptDomainResponse {}))
    }

    async fn set_limits(&self, request: Request<SetLimitsRequest>) -> Result<Response<SetLimitsResponse>, Status> {
        let who = self.allowed(&request, &ADMINISTER)?;
        let request = request.into_inner();
        let limits = request.limits.unwrap_or_default();
        let mut settings = self.0.settings.lock().unwrap();
        let key = format!("limits/{}", limits.subject);
        settings.retain(|setting| setting.key != key);
        if !limits.limits.is_empty() {
            settings.push(Setting {
                key,
                actor: who.name.into(),
                reason: request.reason,
                set_ms: data::now_ms(),
                kind: Some(setting::Kind::Limits(limits)),
            });
        }
        Ok(Response::new(SetLimitsResponse {}))
    }

    async fn list_settings(
        &self,
        request: Request<ListSettingsRequest>,
    ) -> Result<Response<ListSettingsResponse>, Status> {
        self.allowed(&request, &ADMINISTER)?;
        Ok(Response::new(ListSettingsResponse { settings: self.0.settings.lock().unwrap().clone() }))
    }

    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        self.allowed(&request, &[])?;
        Ok(Response::new(ListNotificationsResponse {
            notifications: data::notifications(&request.into_inner().account),
        }))
    }
}

#[tonic::async_trait]
impl AuditService for Api {
    type WatchAuditStream = Answers<WatchAuditResponse>;

    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Result<Response<ListAuditResponse>, Status> {
        let who = self.allowed(&request, &ADMINISTER)?;
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default();
        let fits = |record: &&AuditRecord| {
            let is_look = record.method.contains("/List") || record.method.contains("/Get");
            (filter.actor.is_empty() || record.actor == filter.actor)
                && (filter.account.is_empty() || record.account == filter.account)
                && record.method.contains(&filter.method)
                && (!filter.denied || !record.allowed)
                && (!filter.actions || !is_look)
                && filter.since_ms.is_none_or(|since_ms| record.time_ms >= since_ms)
                && filter.until_ms.is_none_or(|until_ms| record.time_ms < until_ms)
                && (who.domains.is_empty() || who.sees(&record.account))
        };
        let records: Vec<_> = self.audited();
        let records = records.iter().rev().filter(fits).take(request.page_size as usize).cloned().collect();
        Ok(Response::new(ListAuditResponse {
            records,
            next_page_token: String::new(),
            oldest_ms: Some(data::now_ms() - 30 * data::DAY_MS),
        }))
    }

    async fn watch_audit(
        &self,
        request: Request<WatchAuditRequest>,
    ) -> Result<Response<Self::WatchAuditStream>, Status> {
        self.allowed(&request, &ADMINISTER)?;
        let records = BroadcastStream::new(self.0.records.subscribe()).map(|record| match record {
            Ok(record) => Ok(WatchAuditResponse { record: Some(record) }),
            Err(_) => Err(Status::data_loss("the watch fell behind")),
        });
        Ok(Response::new(Box::pin(records)))
    }
}
