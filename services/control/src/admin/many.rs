//! Locks or unlocks many accounts, or says which they would be.

use super::actions::ASKED;
use super::check::{check_kind, invalid, parse_account, who_and_why};
use super::{AdminApi, Filter};
use crate::accounts::{Among, Order};
use crate::admission::Call;
use crate::command_message::command_message;
use crate::waiters::Waiter;
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{Place, Topic};
use tidegate_domain::{AccountState, Status as AccountStatus};
use tidegate_gate::append;
use tidegate_gate::new_id;
use tidegate_gate::now_ms;
use tidegate_proto::v1::act_on_many_request::Kind as AskedKind;
use tidegate_proto::v1::command::Kind;
use tidegate_proto::{state_to_proto, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How many accounts are acted on together.
const CHUNK: usize = 500;
/// How long the states of one chunk are waited for.
const CHUNK_WAIT: Duration = Duration::from_secs(30);
/// Messages that wait for the connection to take them.
const OUTGOING: usize = 16;
/// How many accounts' evidence is looked for at a time.
const EVIDENCE_AT_A_TIME: usize = 16;

type Outgoing = mpsc::Sender<Result<v1::ActOnManyResponse, Status>>;

/// The accounts that are meant, what is asked, who asks and why.
type Selected = (Vec<Arc<AccountState>>, Kind, String, String);

/// What is to be done, checked.
struct Plan {
    accounts: Vec<Planned>,
    actor: String,
    reason: String,
    dry_run: bool,
}

/// What is to be done with one account.
struct Planned {
    before: Arc<AccountState>,
    /// The command; or why there is none.
    kind: Result<Kind, String>,
}

/// A command that was written.
struct Written {
    before: Arc<AccountState>,
    record: v1::AuditRecord,
    waiter: Waiter<Arc<AccountState>>,
    place: Option<Place>,
}

impl AdminApi {
    /// Begins; the work goes on to its end also when the caller no longer listens.
    pub(super) async fn many(
        &self,
        mut call: Call,
        request: v1::ActOnManyRequest,
    ) -> Result<ReceiverStream<Result<v1::ActOnManyResponse, Status>>, Status> {
        let actor = call.actor(&request.actor);
        call.record.actor.clone_from(&actor);
        call.record.reason.clone_from(&request.reason);
        let checked = match self.view.ensure_ready() {
            Ok(()) => self.select(&call, &request, &actor).await,
            Err(status) => Err(status),
        };
        let (selected, kind, actor, reason) = match checked {
            Ok(checked) => checked,
            Err(status) => return Err(self.admission.deny(call, status).await),
        };
        let Ok(permit) = Arc::clone(&self.many).try_acquire_owned() else {
            let status =
                Status::resource_exhausted("other requests act on many accounts just now; try again in a moment");
            return Err(self.admission.deny(call, status).await);
        };
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        let api = self.clone();
        tokio::spawn(async move {
            let accounts = api.plan(selected, kind, call.may_vouch()).await;
            let plan = Plan { accounts, actor, reason, dry_run: request.dry_run };
            if let Err(status) = api.carry_out(call, plan, &outgoing).await {
                // Who no longer listens does not need it.
                let _ = outgoing.send(Err(status)).await;
            }
            drop(permit);
        });
        Ok(ReceiverStream::new(stream))
    }

    /// The accounts that are meant, and what is asked.
    async fn select(&self, call: &Call, request: &v1::ActOnManyRequest, actor: &str) -> Result<Selected, Status> {
        let (actor, reason) = who_and_why(actor, &request.reason)?;
        let kind = match request.kind.clone() {
            Some(AskedKind::Lock(lock)) => Kind::Lock(self.with_reply(lock)),
            Some(AskedKind::Unlock(unlock)) => Kind::Unlock(unlock),
            None => return Err(invalid("kind", "is not set", "lock or unlock")),
        };
        check_kind(&kind, now_ms())?;
        let selected = if request.accounts.is_empty() {
            self.by_filter(call, request, matches!(kind, Kind::Unlock(_))).await?
        } else {
            self.by_name(call, request)?
        };
        let most = self.config.max_accounts_at_once;
        if selected.len() > most {
            let count = selected.len();
            return Err(Status::invalid_argument(format!(
                "{count} accounts are meant; allowed: at most {most} at once"
            )));
        }
        if let Some(expected) = request.expected_count.filter(|expected| *expected != selected.len() as u64) {
            let count = selected.len();
            return Err(Status::failed_precondition(format!(
                "{count} accounts are meant, not {expected}: nothing was done; look at a dry run again"
            )));
        }
        Ok((selected, kind, actor, reason))
    }

    fn by_name(&self, call: &Call, request: &v1::ActOnManyRequest) -> Result<Vec<Arc<AccountState>>, Status> {
        if request.filter.is_some() || request.locked_since_ms.is_some() {
            return Err(invalid("accounts", "are named, and a filter is set", "one of both"));
        }
        if request.accounts.len() > self.config.max_accounts_at_once {
            let (has, most) = (request.accounts.len(), self.config.max_accounts_at_once);
            return Err(invalid("accounts", &format!("has {has} entries"), &format!("at most {most}")));
        }
        let mut selected = BTreeMap::new();
        for name in &request.accounts {
            let account = parse_account(name, &self.form)?;
            call.check(&account)?;
            let state = self.view.state_of(&account);
            selected.insert(account, state);
        }
        Ok(selected.into_values().collect())
    }

    async fn by_filter(
        &self,
        call: &Call,
        request: &v1::ActOnManyRequest,
        refused_only: bool,
    ) -> Result<Vec<Arc<AccountState>>, Status> {
        let filter = Filter::new(request.filter.clone(), &self.form, &call.scope)?;
        let says_nothing = request.filter.clone().unwrap_or_default() == v1::AccountFilter::default();
        if says_nothing && request.locked_since_ms.is_none() {
            let allowed = "accounts by name, or a filter that says which";
            return Err(invalid("accounts and filter", "are empty", allowed));
        }
        let now_ms = now_ms();
        let is_since = |state: &AccountState| {
            request
                .locked_since_ms
                .is_none_or(|since_ms| state.status.lock().is_some_and(|lock| lock.since_ms >= since_ms))
        };
        let among = if refused_only || request.locked_since_ms.is_some() { Among::Refused } else { filter.among() };
        let mut selected = Vec::new();
        // One more than is allowed is enough to know.
        let most = self.config.max_accounts_at_once.saturating_add(1);
        let visited = self.view.visit(among, Order::Name, None, |account, state| {
            if filter.matches_named(account, state, now_ms) && is_since(state) {
                selected.push(Arc::clone(state));
            }
            selected.len() < most
        });
        visited.await;
        Ok(selected)
    }

    /// What is to be done with each account.
    async fn plan(&self, selected: Vec<Arc<AccountState>>, kind: Kind, may_vouch: bool) -> Vec<Planned> {
        let planned = selected.into_iter().map(|before| {
            let kind = kind.clone();
            async move {
                let kind = self.plan_one(&before, kind, may_vouch).await;
                Planned { before, kind }
            }
        });
        futures::stream::iter(planned).buffered(EVIDENCE_AT_A_TIME).collect().await
    }

    async fn plan_one(&self, before: &AccountState, kind: Kind, may_vouch: bool) -> Result<Kind, String> {
        match (kind, &before.status) {
            (Kind::Lock(_), AccountStatus::Locked(lock)) => Err(format!("it is locked already (lock {})", lock.id)),
            (Kind::Unlock(_), AccountStatus::Active) => Err("it is not locked".to_owned()),
            (Kind::Unlock(mut unlock), _) => {
                let given = unlock.evidence.take().unwrap_or_default();
                let evidence = self.evidence.of(before, given, may_vouch).await;
                unlock.evidence = Some(evidence.map_err(|status| status.message().to_owned())?);
                unlock.probation_ms.get_or_insert(self.config.unlock.probation_ms);
                Ok(Kind::Unlock(unlock))
            }
            (kind, _) => Ok(kind),
        }
    }

    async fn carry_out(&self, mut call: Call, plan: Plan, outgoing: &Outgoing) -> Result<(), Status> {
        let audit = self.admission.audit();
        let total = plan.accounts.len() as u64;
        let mut told = v1::ActOnManyResponse { total, ..Default::default() };
        if !plan.dry_run {
            audit.write(v1::AuditRecord { result: ASKED.to_owned(), ..call.record.clone() }).await?;
        }
        let mut accounts = plan.accounts.into_iter().peekable();
        while accounts.peek().is_some() {
            let chunk: Vec<Planned> = accounts.by_ref().take(CHUNK).collect();
            let outcomes = if plan.dry_run {
                chunk.iter().map(would_be).collect()
            } else {
                match self.act_on(&call.record, &plan.actor, &plan.reason, chunk).await {
                    Ok(outcomes) => outcomes,
                    Err(status) => {
                        let done = told.done;
                        let why = format!("after {done} of {total} accounts: {}", status.message());
                        call.record.result.clone_from(&why);
                        // It says what was done; that it is lacking is logged and counted.
                        let _ = audit.write(call.record).await;
                        return Err(Status::new(status.code(), why));
                    }
                }
            };
            let refused = outcomes.iter().filter(|outcome| !outcome.refused.is_empty()).count() as u64;
            told.refused += refused;
            told.done += outcomes.len() as u64 - refused;
            // Who no longer listens does not stop it.
            let _ = outgoing.send(Ok(v1::ActOnManyResponse { outcomes, ..told.clone() })).await;
        }
        let (done, refused) = (told.done, told.refused);
        if plan.dry_run {
            call.record.result = format!("{done} of {total} accounts would be changed, {refused} not");
            audit.note(call.record).await;
        } else {
            call.record.result = format!("{done} of {total} accounts changed, {refused} not");
            // It is done; that its record is lacking is logged and counted.
            let _ = audit.write(call.record).await;
        }
        told.finished = true;
        let _ = outgoing.send(Ok(told)).await;
        Ok(())
    }

    /// Acts on the accounts of one chunk: audit, commands, the states that come of them, audit again.
    async fn act_on(
        &self,
        asked: &v1::AuditRecord,
        actor: &str,
        reason: &str,
        chunk: Vec<Planned>,
    ) -> Result<Vec<v1::ManyOutcome>, Status> {
        let audit = self.admission.audit();
        let mut outcomes = Vec::new();
        let mut written = Vec::new();
        let mut messages = Vec::new();
        for planned in chunk {
            let Ok(kind) = planned.kind.clone() else {
                outcomes.push(would_be(&planned));
                continue;
            };
            let account = planned.before.account.as_str().to_owned();
            let command_id = new_id();
            let record = v1::AuditRecord {
                account: account.clone(),
                command_id: command_id.clone(),
                before: (planned.before.version > 0).then(|| state_to_proto(&planned.before)),
                ..asked.clone()
            };
            let waiter = self.view.waiters.wait_for(command_id.clone());
            let (actor, reason) = (actor.to_owned(), reason.to_owned());
            messages.push(command_message(&v1::Command { id: command_id, account, actor, reason, kind: Some(kind) }));
            written.push(Written { before: planned.before, record, waiter, place: None });
        }
        if written.is_empty() {
            return Ok(outcomes);
        }
        let first = |one: &Written| v1::AuditRecord { result: ASKED.to_owned(), ..one.record.clone() };
        audit.write_all(written.iter().map(first).collect()).await?;
        match append(&*self.bus, Topic::Commands, messages).await {
            Ok(places) => written.iter_mut().zip(places).for_each(|(one, place)| one.place = Some(place)),
            Err(why) => {
                let why = format!("the commands are not known to be written, and may still be applied: {why}");
                let failed = |one: Written| v1::AuditRecord { result: why.clone(), ..one.record };
                let _ = audit.write_all(written.into_iter().map(failed).collect()).await;
                return Err(Status::unavailable(why));
            }
        }
        let deadline = Instant::now() + CHUNK_WAIT;
        let mut records = Vec::with_capacity(written.len());
        for one in written {
            let (outcome, record) = self.came_of(one, deadline).await;
            outcomes.push(outcome);
            records.push(record);
        }
        // They are done; that their second records are lacking is logged and counted.
        let _ = audit.write_all(records).await;
        Ok(outcomes)
    }

    async fn came_of(&self, one: Written, deadline: Instant) -> (v1::ManyOutcome, v1::AuditRecord) {
        let Written { before, mut record, mut waiter, place } = one;
        let account = &before.account;
        let seen = tokio::time::timeout_at(deadline, async {
            tokio::select! {
                biased;
                state = waiter.answer() => state,
                state = self.reflects(account, place) => state,
            }
        });
        let mut outcome = v1::ManyOutcome {
            account: account.as_str().to_owned(),
            before: status(&before).into(),
            after: status(&before).into(),
            refused: String::new(),
        };
        if let Ok(state) = seen.await {
            outcome.after = status(&state).into();
            let last = state.last_command.as_ref().filter(|last| last.id == record.command_id);
            if let Some(why) = last.and_then(|last| last.refused.as_ref()) {
                outcome.refused.clone_from(why);
                record.result.clone_from(why);
            } else {
                record.after = Some(state_to_proto(&state));
            }
        } else {
            "the command is durable, but was not applied in time".clone_into(&mut record.result);
            outcome.refused.clone_from(&record.result);
        }
        (outcome, record)
    }
}

/// What would be done with an account.
fn would_be(planned: &Planned) -> v1::ManyOutcome {
    let before = status(&planned.before);
    let (after, refused) = match &planned.kind {
        Ok(Kind::Lock(_)) => (v1::AccountStatus::Locked, String::new()),
        Ok(Kind::Unlock(_)) => (v1::AccountStatus::Active, String::new()),
        Ok(_) => (before, String::new()),
        Err(why) => (before, why.clone()),
    };
    let account = planned.before.account.as_str().to_owned();
    v1::ManyOutcome { account, before: before.into(), after: after.into(), refused }
}

fn status(state: &AccountState) -> v1::AccountStatus {
    match state.status {
        AccountStatus::Active => v1::AccountStatus::Active,
        AccountStatus::Throttled(_) => v1::AccountStatus::Throttled,
        AccountStatus::Locked(_) => v1::AccountStatus::Locked,
    }
}
