//! Takes an action: audit, command, the state that comes of it, audit again.

use super::AdminApi;
use super::check::{Action, check};
use crate::admission::Call;
use crate::command_message::command_message;
use crate::methods::{self, Method};
use crate::metrics::{ActionLabel, ActionResult};
use crate::waiters::Waiter;
use std::sync::Arc;
use tidegate_bus::{Place, Topic};
use tidegate_domain::{Account, AccountState};
use tidegate_gate::append;
use tidegate_gate::new_id;
use tidegate_gate::now_ms;
use tidegate_proto::v1::command::Kind;
use tidegate_proto::{state_to_proto, v1};
use tidegate_runtime::traces::{self, Role, Span};
use tonic::Status;

/// What stands as the result in the record that is written before an action.
pub(super) const ASKED: &str = "asked";

/// The state, whether it reflects the command, and the command's id.
pub(super) type Answer = (Option<v1::AccountState>, bool, String);

/// What somebody asks for, as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    /// The account.
    pub account: String,
    /// Who asks.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// For what; none: the field was not set.
    pub kind: Option<Kind>,
    /// How long to wait for the state, in milliseconds; 0: the default.
    pub wait_ms: u32,
}

impl AdminApi {
    /// Takes an action to its end, also when the caller no longer waits for the answer.
    pub(super) async fn act(&self, call: Call, asked: Asked) -> Result<Answer, Status> {
        let api = self.clone();
        let acting = tokio::spawn(async move { api.take(call, asked).await });
        acting.await.unwrap_or_else(|_| Err(Status::internal("the action was cut off; look at the account's state")))
    }

    async fn take(&self, mut call: Call, asked: Asked) -> Result<Answer, Status> {
        let method = call.method;
        let asked = Asked { actor: call.actor(&asked.actor), ..asked };
        call.record.actor.clone_from(&asked.actor);
        call.record.reason.clone_from(&asked.reason);
        let checked = match self.view.ensure_ready() {
            Ok(()) => self.checked(&call, method, asked).await,
            Err(status) => Err(status),
        };
        let action = match checked {
            Ok(action) => action,
            Err(status) => {
                let status = self.admission.deny(call, status).await;
                return Err(self.failed(method, ActionResult::Invalid, status));
            }
        };
        let audit = self.admission.audit();
        let mut record = call.record;
        let before = self.view.state_of(&action.account);
        let command_id = new_id();
        action.account.as_str().clone_into(&mut record.account);
        record.actor.clone_from(&action.actor);
        record.command_id.clone_from(&command_id);
        record.before = (before.version > 0).then(|| state_to_proto(&before));

        let asked = v1::AuditRecord { result: ASKED.to_owned(), ..record.clone() };
        if let Err(status) = audit.write(asked).await {
            return Err(self.failed(method, ActionResult::Failed, status));
        }
        // From here on the command can have been written, so there is a second record, whatever happens.
        let (result, answer) = self.command(&action, command_id).await;
        match &answer {
            Ok((state, true, _)) => record.after.clone_from(state),
            Ok(_) => "the command is durable, but was not applied in time".clone_into(&mut record.result),
            Err(status) => status.message().clone_into(&mut record.result),
        }
        // The action is done; that its second record is lacking is logged and counted.
        let _ = audit.write(record).await;
        self.record(method, result);
        answer
    }

    /// The action that is asked for, when it can be taken and the caller may.
    async fn checked(&self, call: &Call, method: Method, asked: Asked) -> Result<Action, Status> {
        let mut action = check(method, asked, &self.config, &self.form, now_ms())?;
        call.check(&action.account)?;
        if let Kind::Unlock(unlock) = &mut action.kind {
            let state = self.view.state_of(&action.account);
            let given = unlock.evidence.take().unwrap_or_default();
            unlock.evidence = Some(self.evidence.of(&state, given, call.may_vouch()).await?);
            unlock.probation_ms.get_or_insert(self.config.unlock.probation_ms);
        }
        Ok(action)
    }

    /// Writes the command and waits for the state that comes of it.
    async fn command(&self, action: &Action, command_id: String) -> (ActionResult, Result<Answer, Status>) {
        let command = v1::Command {
            id: command_id.clone(),
            account: action.account.as_str().to_owned(),
            actor: action.actor.clone(),
            reason: action.reason.clone(),
            kind: Some(action.kind.clone()),
        };
        let waiter = self.view.waiters.wait_for(command_id.clone());
        let (step, began_ms) = (self.tracer.step(None), traces::now_ms());
        let message = command_message(&command).with_trace(step);
        match append(&*self.bus, Topic::Commands, vec![message]).await {
            Ok(places) => {
                if let Some(step) = step {
                    let span = Span::new("command", Role::Producer, step, None, (began_ms, traces::now_ms()))
                        .text("tidegate.command_id", &command_id)
                        .text("tidegate.account", self.tracer.account(action.account.as_str()))
                        .text("messaging.destination.name", Topic::Commands.suffix());
                    self.tracer.end(span);
                }
                self.outcome(action, command_id, waiter, places.first().copied()).await
            }
            Err(why) => {
                let why = format!("the command is not known to be written, and may still be applied: {why}");
                (ActionResult::Failed, Err(Status::unavailable(why)))
            }
        }
    }

    async fn outcome(
        &self,
        action: &Action,
        command_id: String,
        mut waiter: Waiter<Arc<AccountState>>,
        place: Option<Place>,
    ) -> (ActionResult, Result<Answer, Status>) {
        let seen = tokio::time::timeout(action.wait, async {
            tokio::select! {
                biased;
                state = waiter.answer() => state,
                state = self.reflects(&action.account, place) => state,
            }
        })
        .await;
        let Ok(state) = seen else {
            let state = state_to_proto(&self.view.state_of(&action.account));
            return (ActionResult::Pending, Ok((Some(state), false, command_id)));
        };
        let refused = state.last_command.as_ref().filter(|outcome| outcome.id == command_id);
        match refused.and_then(|outcome| outcome.refused.as_ref()) {
            Some(why) => {
                let account = action.account.as_str();
                (ActionResult::Refused, Err(Status::failed_precondition(format!("{account}: {why}"))))
            }
            None => (ActionResult::Applied, Ok((Some(state_to_proto(&state)), true, command_id))),
        }
    }

    /// Ends when the account's state reflects the command at `place`. For a state of which only a successor was
    /// seen, since compaction had taken it.
    pub(super) async fn reflects(&self, account: &Account, place: Option<Place>) -> Arc<AccountState> {
        let mut versions = self.view.versions();
        loop {
            versions.mark_unchanged();
            let state = self.view.state_of(account);
            if place.is_some_and(|place| state.as_of.command_offset >= Some(place.offset)) {
                return state;
            }
            if versions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A lock without a text gets the configured one.
    pub(super) fn with_reply(&self, mut lock: v1::LockCommand) -> v1::LockCommand {
        if lock.reply.trim().is_empty() {
            lock.reply.clone_from(&self.config.lock_reply);
        }
        lock
    }

    fn failed(&self, method: Method, result: ActionResult, status: Status) -> Status {
        self.record(method, result);
        status
    }

    fn record(&self, method: Method, result: ActionResult) {
        self.metrics.actions.get_or_create(&ActionLabel { method: method.name, result }).inc();
    }
}

/// The request's field that says what is asked, and what it has to say.
pub(super) fn must_say(method: Method) -> (&'static str, &'static str) {
    match method {
        methods::EXEMPT_ACCOUNT => ("exempt", "which rules (none named: all), and until when"),
        methods::CLEAR_ACCOUNT => ("clear", "exemptions, windows or both"),
        methods::ACT_ON_MANY => ("lock or unlock", "how"),
        _ => ("kind", "for what"),
    }
}
