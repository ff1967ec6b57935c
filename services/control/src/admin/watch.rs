//! Follows changes of accounts.

use super::AdminApi;
use super::filter::Filter;
use crate::accounts::{Changed, Order};
use crate::admission::Call;
use crate::view::SCAN_CHUNK;
use std::sync::Arc;
use tidegate_domain::AccountState;
use tidegate_gate::now_ms;
use tidegate_proto::v1::watch_accounts_response::Kind;
use tidegate_proto::{state_to_proto, v1};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages that wait for the connection to take them.
const OUTGOING: usize = 64;

type Outgoing = mpsc::Sender<Result<v1::WatchAccountsResponse, Status>>;

impl AdminApi {
    /// Begins a watch. One that takes its messages too slowly is ended with `RESOURCE_EXHAUSTED`; it costs memory
    /// for `watch_buffer` changes at most, which all watches share.
    pub(super) fn watch(
        &self,
        call: &Call,
        request: v1::WatchAccountsRequest,
    ) -> Result<ReceiverStream<Result<v1::WatchAccountsResponse, Status>>, Status> {
        self.view.ensure_ready()?;
        let filter = Filter::new(request.filter, &self.form, &call.scope)?;
        let Ok(permit) = Arc::clone(&self.watchers).try_acquire_owned() else {
            self.metrics.watchers_refused.inc();
            let most = self.config.max_watchers;
            return Err(Status::resource_exhausted(format!("{most} watches are open, which is the most allowed")));
        };
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        // Before the first look, so that no change falls between.
        let changes = self.view.changes();
        let api = self.clone();
        tokio::spawn(async move {
            api.metrics.watchers.inc();
            tokio::select! {
                () = outgoing.closed() => {}
                status = api.follow(&filter, request.initial, changes, &outgoing) => {
                    // Who is too slow gets the reason when it has taken what waits for it.
                    let _ = outgoing.send(Err(status)).await;
                }
            }
            api.metrics.watchers.dec();
            drop(permit);
        });
        Ok(ReceiverStream::new(stream))
    }

    async fn follow(
        &self,
        filter: &Filter,
        initial: bool,
        mut changes: broadcast::Receiver<Changed>,
        outgoing: &Outgoing,
    ) -> Status {
        if initial && let Err(status) = self.tell_all(filter, outgoing).await {
            return status;
        }
        if let Err(status) = say(outgoing, Kind::InitialComplete(v1::InitialComplete {})).await {
            return status;
        }
        loop {
            let change = tokio::select! {
                () = self.shutdown.cancelled() => return Status::unavailable("control is ending; watch anew"),
                change = changes.recv() => change,
            };
            match change {
                Ok(change) => {
                    let now_ms = now_ms();
                    // Also a change by which an account ceases to match is told: who keeps a list must know.
                    let told = filter.matches(&change.after, now_ms)
                        || change.before.is_some_and(|before| filter.matches(&before, now_ms));
                    if told && let Err(status) = say(outgoing, state(&change.after)).await {
                        return status;
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    self.metrics.watchers_behind.inc();
                    // How many were missed is a number over all accounts, and not everybody's to know.
                    return Status::resource_exhausted(
                        "the watch fell behind and missed changes; watch anew, with initial set",
                    );
                }
                Err(RecvError::Closed) => return Status::unavailable("control is ending; watch anew"),
            }
        }
    }

    async fn tell_all(&self, filter: &Filter, outgoing: &Outgoing) -> Result<(), Status> {
        let now_ms = now_ms();
        let mut cursor = None;
        loop {
            let mut found = Vec::new();
            cursor = self.view.accounts.read().scan(
                filter.among(),
                Order::Name,
                cursor.as_ref(),
                SCAN_CHUNK,
                |account, state| {
                    if filter.matches_named(account, state, now_ms) {
                        found.push(Arc::clone(state));
                    }
                    true
                },
            );
            for found in found {
                tokio::select! {
                    () = self.shutdown.cancelled() => return Err(Status::unavailable("control is ending; watch anew")),
                    said = say(outgoing, state(&found)) => said?,
                }
            }
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

fn state(state: &AccountState) -> Kind {
    Kind::State(state_to_proto(state))
}

async fn say(outgoing: &Outgoing, kind: Kind) -> Result<(), Status> {
    let said = outgoing.send(Ok(v1::WatchAccountsResponse { kind: Some(kind) })).await;
    said.map_err(|_| Status::cancelled("the watch was closed"))
}
