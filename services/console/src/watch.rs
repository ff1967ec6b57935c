//! Waits for changes by the API's own streams, and takes them up again when they break off.

use crate::api::Calls;
use crate::live::is_final;
use crate::words::{count, status_word};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_proto::v1::watch_accounts_response::Kind;
use tidegate_runtime::backoff::Backoff;
use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// What a page is told of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Watched {
    /// Nothing: it asks again from time to time.
    Nothing,
    /// These accounts.
    Accounts(v1::AccountFilter),
    /// This account.
    Account(String),
    /// These records.
    Audit(v1::AuditFilter),
}

/// Waits for changes; ends with its last handle.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    _task: Option<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Notify,
}

/// What has changed since it was last taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Accounts' changes by their new status: how many, and the last one's name.
    accounts: [(u64, String); 4],
    /// Records of the audit.
    records: u64,
}

impl Watch {
    /// Begins to wait.
    pub fn new(watched: Watched, calls: Calls) -> Self {
        let shared = Arc::<Shared>::default();
        let task = (watched != Watched::Nothing).then(|| {
            let shared = Arc::clone(&shared);
            AbortOnDropHandle::new(tokio::spawn(async move { keep_following(&watched, &calls, &shared).await }))
        });
        Self { shared, _task: task }
    }

    /// Ends when something has changed since the last time.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// What has changed since the last time.
    pub fn take(&mut self) -> Seen {
        std::mem::take(&mut self.shared.seen.lock())
    }
}

async fn keep_following(watched: &Watched, calls: &Calls, shared: &Shared) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    loop {
        match follow(watched, calls, shared, &mut backoff).await {
            // The page asks again from time to time, and tells why it cannot be shown.
            Err(status) if is_final(&status) => return,
            _ => {}
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn follow(watched: &Watched, calls: &Calls, shared: &Shared, backoff: &mut Backoff) -> Result<(), Status> {
    match watched {
        Watched::Nothing => std::future::pending().await,
        Watched::Accounts(filter) => accounts(filter.clone(), None, calls, shared, backoff).await,
        Watched::Account(name) => {
            let filter = v1::AccountFilter { contains: name.clone(), ..v1::AccountFilter::default() };
            accounts(filter, Some(name), calls, shared, backoff).await
        }
        Watched::Audit(filter) => {
            let request = v1::WatchAuditRequest { filter: Some(filter.clone()) };
            let mut records = calls.watch_audit(request).await?;
            backoff.reset();
            // What came before this stream stood is not lost: the page is rendered again.
            shared.changed.notify_one();
            while let Some(record) = records.next().await {
                record?;
                shared.seen.lock().records += 1;
                shared.changed.notify_one();
            }
            Ok(())
        }
    }
}

async fn accounts(
    filter: v1::AccountFilter,
    only: Option<&str>,
    calls: &Calls,
    shared: &Shared,
    backoff: &mut Backoff,
) -> Result<(), Status> {
    // A page that lists the locked ones must also know of one that is unlocked, which no longer fits the filter.
    let filter = v1::AccountFilter { statuses: Vec::new(), rule: String::new(), exempted: false, ..filter };
    let request = v1::WatchAccountsRequest { filter: Some(filter), initial: false };
    let mut changes = calls.watch_accounts(request).await?;
    backoff.reset();
    shared.changed.notify_one();
    while let Some(change) = changes.next().await {
        let Some(Kind::State(state)) = change?.kind else { continue };
        if only.is_some_and(|only| only != state.account) {
            continue;
        }
        shared.seen.lock().see(state);
        shared.changed.notify_one();
    }
    Ok(())
}

impl Seen {
    fn see(&mut self, state: v1::AccountState) {
        let index = usize::try_from(state.status).unwrap_or_default().min(3);
        let (count, last) = &mut self.accounts[index];
        *count += 1;
        *last = state.account;
    }

    /// For who does not see the page change.
    pub fn sentence(&self) -> Option<String> {
        let accounts = self.accounts.iter().enumerate().rev().filter(|(_, (count, _))| *count > 0);
        let mut parts: Vec<_> = accounts
            .map(|(status, (number, last))| {
                let word = status_word(i32::try_from(status).unwrap_or_default());
                match number {
                    1 => format!("{last} is now {word}"),
                    _ => format!("{} are now {word}", count(*number, "account", "accounts")),
                }
            })
            .collect();
        if self.records > 0 {
            parts.push(count(self.records, "new record", "new records"));
        }
        (!parts.is_empty()).then(|| format!("{}.", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_are_one_sentence() {
        let mut seen = Seen::default();
        assert_eq!(seen.sentence(), None);
        let state = |account: &str, status| v1::AccountState { account: account.into(), status, ..Default::default() };
        seen.see(state("jo@example.org", 3));
        assert_eq!(seen.sentence().unwrap(), "jo@example.org is now locked.");
        (0..9_999).for_each(|_| seen.see(state("al@example.org", 3)));
        seen.see(state("bo@example.org", 1));
        seen.records = 1;
        assert_eq!(
            seen.sentence().unwrap(),
            "10,000 accounts are now locked, bo@example.org is now active, 1 new record."
        );
        seen.see(state("x", -7));
        seen.see(state("x", 99));
    }
}
