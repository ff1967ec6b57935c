//! Bulk actions: first a dry run, then, when it is confirmed, the action itself, which goes on when the browser leaves.

use crate::api::Calls;
use crate::failure::Failure;
use crate::session::random;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tidegate_proto::v1;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Most accounts of each kind that are shown by name.
const MAX_SHOWN: usize = 200;

/// All that are kept. A clone shares them.
#[derive(Clone)]
pub(crate) struct BulkActions {
    all: Arc<Mutex<VecDeque<Arc<BulkAction>>>>,
    max: usize,
}

/// One bulk action.
pub(crate) struct BulkAction {
    /// Its name in addresses.
    pub id: String,
    /// Who prepared it.
    pub owner: String,
    /// What is asked for.
    pub request: v1::ActOnManyRequest,
    /// What the dry run told.
    pub planned: Tally,
    state: Mutex<State>,
}

#[derive(Clone)]
enum State {
    Prepared,
    Running(Tally),
    Over(Tally, Option<Failure>),
}

/// How far a bulk action is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// It waits to be confirmed.
    Prepared,
    /// It runs.
    Running(Tally),
    /// It has ended: as it should when there is no failure.
    Over(Tally, Option<Failure>),
}

/// What was, or would be, done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Accounts that are meant.
    pub total: u64,
    /// Of them, done.
    pub done: u64,
    /// Of them, not to be done.
    pub refused: u64,
    /// How many go from one status to another.
    pub steps: BTreeMap<(i32, i32), u64>,
    /// The first ones that are, or would be, done.
    pub examples: Vec<v1::ManyOutcome>,
    /// The first ones that cannot be done.
    pub refusals: Vec<v1::ManyOutcome>,
}

impl BulkActions {
    /// None yet; at most `max` are kept.
    pub fn new(max: usize) -> Self {
        Self { all: Arc::default(), max }
    }

    /// Asks what `request` would do, and keeps it.
    ///
    /// # Errors
    /// What the API says; or that all that are kept are running.
    pub async fn prepare(
        &self,
        calls: &Calls,
        owner: &str,
        request: v1::ActOnManyRequest,
    ) -> Result<Arc<BulkAction>, Failure> {
        let dry = v1::ActOnManyRequest { dry_run: true, expected_count: None, ..request.clone() };
        let mut planned = Tally::default();
        follow(calls.act_on_many(dry).await?, |answer| planned.take(answer)).await?;
        let id = random()[..16].to_owned();
        let state = Mutex::new(State::Prepared);
        let action = Arc::new(BulkAction { id, owner: owner.to_owned(), request, planned, state });
        let mut all = self.all.lock();
        if all.len() >= self.max {
            let Some(oldest) = all.iter().position(|action| !action.is_running()) else {
                let text = format!("{} bulk actions are running; wait until one has ended", all.len());
                return Err(Failure::from(Status::resource_exhausted(text)));
            };
            all.remove(oldest);
        }
        all.push_back(Arc::clone(&action));
        Ok(action)
    }

    /// The one called `id`, if `owner` prepared it.
    pub fn find(&self, id: &str, owner: &str) -> Option<Arc<BulkAction>> {
        self.all.lock().iter().find(|action| action.id == id && action.owner == owner).cloned()
    }
}

impl BulkAction {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        match self.state.lock().clone() {
            State::Prepared => Progress::Prepared,
            State::Running(tally) => Progress::Running(tally),
            State::Over(tally, failure) => Progress::Over(tally, failure),
        }
    }

    /// Does it, if it is not being done already, until it is over or `ending`.
    pub fn confirm(self: &Arc<Self>, calls: Calls, ending: CancellationToken) {
        let mut state = self.state.lock();
        // Sent twice by an impatient hand.
        if !matches!(*state, State::Prepared) {
            return;
        }
        *state = State::Running(Tally { total: self.planned.total, ..Tally::default() });
        drop(state);
        let action = Arc::clone(self);
        tokio::spawn(async move {
            let acting = action.act(&calls);
            let ended = tokio::select! {
                ended = acting => ended,
                () = ending.cancelled() => Err(Status::aborted("the console was stopped; look at the accounts")),
            };
            let mut state = action.state.lock();
            let tally = match &*state {
                State::Running(tally) | State::Over(tally, _) => tally.clone(),
                State::Prepared => Tally::default(),
            };
            *state = State::Over(tally, ended.err().map(Failure::from));
        });
    }

    async fn act(&self, calls: &Calls) -> Result<(), Status> {
        // If it became other accounts since, nothing is done.
        let request =
            v1::ActOnManyRequest { dry_run: false, expected_count: Some(self.planned.total), ..self.request.clone() };
        let answers = calls.act_on_many(request).await?;
        follow(answers, |answer| {
            if let State::Running(tally) = &mut *self.state.lock() {
                tally.take(answer);
            }
        })
        .await
    }

    fn is_running(&self) -> bool {
        matches!(*self.state.lock(), State::Running(_))
    }
}

/// Takes all answers, to the last.
async fn follow(
    mut answers: Streaming<v1::ActOnManyResponse>,
    mut take: impl FnMut(v1::ActOnManyResponse),
) -> Result<(), Status> {
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        let finished = answer.finished;
        take(answer);
        if finished {
            return Ok(());
        }
    }
    Err(Status::unavailable("the service broke off before the end; look at the accounts, and ask again for the rest"))
}

impl Tally {
    fn take(&mut self, answer: v1::ActOnManyResponse) {
        (self.total, self.done, self.refused) = (answer.total, answer.done, answer.refused);
        for outcome in answer.outcomes {
            if outcome.refused.is_empty() {
                *self.steps.entry((outcome.before, outcome.after)).or_default() += 1;
            }
            let shown = if outcome.refused.is_empty() { &mut self.examples } else { &mut self.refusals };
            if shown.len() < MAX_SHOWN {
                shown.push(outcome);
            }
        }
    }

    /// How many would be done.
    pub fn possible(&self) -> u64 {
        self.total.saturating_sub(self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_all_and_shows_the_first() {
        let mut tally = Tally::default();
        let outcome = |refused: &str| v1::ManyOutcome {
            account: "jo@example.org".into(),
            before: 3,
            after: 1,
            refused: refused.into(),
        };
        let outcomes = (0..300).map(|index| outcome(if index < 250 { "" } else { "no" })).collect();
        tally.take(v1::ActOnManyResponse { total: 300, done: 250, refused: 50, outcomes, finished: false });
        assert_eq!((tally.steps[&(3, 1)], tally.examples.len(), tally.refusals.len()), (250, MAX_SHOWN, 50));
        assert_eq!(tally.possible(), 250);
    }
}
