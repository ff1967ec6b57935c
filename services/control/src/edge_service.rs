//! `EdgeService`: one long-lived stream for each edge.

use crate::admission::{Admission, Call};
use crate::config::ControlConfig;
use crate::edge_registry::{EdgeHandle, EdgeIdentity, EdgeRegistry};
use crate::edge_session::{Acked, EdgeSession, Resume, resume};
use crate::methods::ATTACH;
use crate::metrics::{EdgeEnd, Metrics, ReasonLabel};
use crate::pushes;
use crate::view::View;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::{Access, Edge, Principal};
use tidegate_bus::{Bus, Topic};
use tidegate_domain::{Position, Positions};
use tidegate_gate::Standing;
use tidegate_gate::now_ms;
use tidegate_proto::v1;
use tidegate_proto::v1::attach_request::Kind as Said;
use tidegate_proto::v1::attach_response::Kind as Says;
use tidegate_runtime::traces::Tracer;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Longest name of a node or site, and longest version, in octets.
const MAX_NAME_OCTETS: usize = 255;
/// How long a stream may be open before it says hello.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long the log is asked for its ends.
const BOUNDS_WAIT: Duration = Duration::from_secs(5);
/// How long an edge has to take the reason why its stream ends.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// Messages that wait for the connection to take them.
const OUTGOING: usize = 2;

/// Takes edges' streams. A clone is the same service.
#[derive(Clone)]
pub(crate) struct EdgeApi {
    /// What is pushed.
    pub view: Arc<View>,
    /// Who is connected.
    pub registry: Arc<EdgeRegistry>,
    /// The log, for its ends.
    pub bus: Arc<dyn Bus>,
    /// The settings.
    pub config: Arc<ControlConfig>,
    /// Whose certificates count still.
    pub access: Arc<Access>,
    /// Lets edges in.
    pub admission: Admission,
    /// What is counted.
    pub metrics: Metrics,
    /// Takes a step for each edge that has a decision in force.
    pub tracer: Tracer,
    /// Ends all streams.
    pub shutdown: CancellationToken,
}

type Outgoing = mpsc::Sender<Result<v1::AttachResponse, Status>>;

/// Why a stream ended, for the counter and for the edge.
struct End(EdgeEnd, Option<Status>);

/// One edge's stream.
struct Link {
    api: EdgeApi,
    session: EdgeSession,
    handle: EdgeHandle,
    node: String,
    site: String,
    standing: Standing,
    versions: watch::Receiver<u64>,
    /// There may be states that the edge lacks.
    dirty: bool,
    /// A heartbeat is due.
    heartbeat: bool,
    /// Since when the connection has taken nothing, though there was something for it.
    waiting_since: Option<Instant>,
}

#[tonic::async_trait]
impl v1::edge_service_server::EdgeService for EdgeApi {
    type AttachStream = ReceiverStream<Result<v1::AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let call = self.admission.admit(&request, ATTACH, "", "").await.inspect_err(|_| self.count(EdgeEnd::Denied))?;
        if let Err(status) = self.view.ensure_ready() {
            self.count(EdgeEnd::NotReady);
            return Err(status);
        }
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        let api = self.clone();
        tokio::spawn(async move {
            let End(reason, status) = api.serve(call, request.into_inner(), &outgoing).await;
            api.count(reason);
            if let Some(status) = status {
                // An edge that takes nothing does not get it; its stream ends all the same.
                let _ = outgoing.send_timeout(Err(status), FAREWELL_WAIT).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl EdgeApi {
    fn count(&self, reason: EdgeEnd) {
        self.metrics.edges_ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    async fn serve(&self, call: Call, mut incoming: Streaming<v1::AttachRequest>, outgoing: &Outgoing) -> End {
        let hello = tokio::select! {
            () = self.shutdown.cancelled() => return End::shutdown(),
            hello = tokio::time::timeout(HELLO_WAIT, read_hello(&mut incoming)) => match hello {
                Ok(Ok(hello)) => hello,
                Ok(Err(status)) => return End(EdgeEnd::Protocol, Some(status)),
                Err(_) => return End::protocol("no hello came; it must be the first message on the stream"),
            },
        };
        let identity = match identity(&hello) {
            Ok(identity) => identity,
            Err(why) => return End::protocol(why),
        };
        let principal = call.caller.principal.clone();
        if !may_attach(&principal, &identity) {
            return self.deny(call, &identity).await;
        }
        let resume = self.resume(&hello).await;
        let snapshot = resume == Resume::Snapshot;
        let held = match &resume {
            Resume::Deltas(held) => held.clone(),
            Resume::Snapshot => Positions::new(),
        };
        let (node, site) = (identity.node.clone(), identity.site.clone());
        let Some(handle) = self.registry.connect(identity, held, now_ms()) else {
            let most = self.config.max_edges;
            let status = Status::resource_exhausted(format!("{most} edges are connected, which is the most allowed"));
            return End(EdgeEnd::Full, Some(status));
        };
        tracing::info!(node, site, snapshot, "an edge is connected");
        self.metrics.snapshots.inc_by(u64::from(snapshot));
        self.metrics.edges_connected.inc();
        let welcome = v1::Welcome {
            log_id: self.view.log_id.clone(),
            snapshot,
            heartbeat_ms: self.config.heartbeat_ms,
            now_ms: now_ms(),
        };
        let mut link = Link {
            api: self.clone(),
            session: EdgeSession::new(resume, self.config.max_batch_states, self.config.max_unacked_batches),
            handle,
            node: node.clone(),
            site: site.clone(),
            standing: Standing::new(Arc::clone(&self.access), principal),
            versions: self.view.versions(),
            dirty: true,
            heartbeat: false,
            waiting_since: None,
        };
        let end = match outgoing.send(Ok(says(Says::Welcome(welcome)))).await {
            Ok(()) => link.run(&mut incoming, outgoing).await,
            Err(_) => End::closed(),
        };
        self.metrics.edges_connected.dec();
        tracing::info!(node, site, reason = ?end.0, "an edge's stream ended");
        end
    }

    /// A certificate names another edge: that stands in the audit, with what was said.
    async fn deny(&self, mut call: Call, said: &EdgeIdentity) -> End {
        call.record.request = format!("hello from node {:?} of site {:?}", said.node, said.site);
        let status = Status::permission_denied("the certificate is for another node or site than hello says");
        End(EdgeEnd::Denied, Some(self.admission.deny(call, status).await))
    }

    /// How the edge is brought up to date. When the log cannot be asked for its ends, the edge is believed: a log
    /// that is away for a while is likelier than one that began anew under the same name.
    async fn resume(&self, hello: &v1::Hello) -> Resume {
        let mut ends = BTreeMap::new();
        if hello.log_id != self.view.log_id || hello.positions.len() > self.view.partitions as usize {
            return Resume::Snapshot;
        }
        let ahead: Vec<u32> = {
            let accounts = self.view.accounts.read();
            let known = |at: &&v1::PartitionPosition| {
                accounts.positions().get(&at.partition).is_some_and(|next| at.next_offset <= *next)
            };
            hello.positions.iter().filter(|at| !known(at)).map(|at| at.partition).collect()
        };
        for partition in ahead.into_iter().filter(|partition| *partition < self.view.partitions) {
            match tokio::time::timeout(BOUNDS_WAIT, self.bus.bounds(Topic::Accounts, partition)).await {
                Ok(Ok(bounds)) => {
                    ends.insert(partition, bounds.next);
                }
                Ok(Err(_)) | Err(_) => break,
            }
        }
        resume(&hello.log_id, &hello.positions, &self.view.log_id, self.view.partitions, &ends)
    }
}

impl Link {
    async fn run(&mut self, incoming: &mut Streaming<v1::AttachRequest>, outgoing: &Outgoing) -> End {
        let period = Duration::from_millis(self.api.config.heartbeat_ms.into());
        let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_something = self.heartbeat || (self.dirty && self.session.has_room());
            tokio::select! {
                () = self.api.shutdown.cancelled() => return End::shutdown(),
                () = self.standing.lost() => {
                    let status = Status::unauthenticated("the certificate does not count any more");
                    return End(EdgeEnd::Revoked, Some(status));
                }
                () = self.handle.replaced.cancelled() => {
                    let status = Status::aborted("this node connected anew; the older connection is ended");
                    return End(EdgeEnd::Replaced, Some(status));
                }
                said = incoming.message() => match said {
                    Ok(Some(said)) => if let Err(end) = self.hear(&said) { return end },
                    Ok(None) | Err(_) => return End::closed(),
                },
                permit = outgoing.reserve(), if has_something => {
                    let Ok(permit) = permit else { return End::closed() };
                    self.waiting_since = None;
                    if let Some(message) = self.next_message() {
                        permit.send(Ok(message));
                    }
                },
                changed = self.versions.changed(), if !self.dirty => {
                    if changed.is_err() {
                        return End::shutdown();
                    }
                    self.dirty = true;
                },
                _ = ticks.tick() => {
                    self.heartbeat = true;
                    let since = *self.waiting_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= Duration::from_millis(self.api.config.edge_stall_ms) {
                        let status = Status::resource_exhausted("the edge took nothing for too long; connect anew");
                        return End(EdgeEnd::Stalled, Some(status));
                    }
                },
            }
        }
    }

    /// The next message, now that the connection takes one. States come first: they are a sign of life too.
    fn next_message(&mut self) -> Option<v1::AttachResponse> {
        if self.dirty && self.session.has_room() {
            self.versions.mark_unchanged();
            let selection = self.session.select(&self.api.view.accounts.read());
            let now_ms = now_ms();
            let api = &self.api;
            let traced = |position: Position| api.view.decisions.push(&api.tracer, position);
            let (batch, more) = self.session.batch(selection, now_ms, traced);
            self.dirty = more;
            if let Some(batch) = batch {
                self.heartbeat = false;
                self.api.metrics.states_pushed.inc_by(batch.states.len() as u64);
                self.handle.sent(self.session.unacked_states());
                return Some(says(Says::States(batch)));
            }
        }
        if std::mem::take(&mut self.heartbeat) {
            let heartbeat = v1::Heartbeat { now_ms: now_ms(), sequence: self.session.sequence() };
            return Some(says(Says::Heartbeat(heartbeat)));
        }
        None
    }

    fn hear(&mut self, said: &v1::AttachRequest) -> Result<(), End> {
        match &said.kind {
            Some(Said::Ack(ack)) => match self.session.acknowledge(ack.sequence) {
                Acked::Batches(batches) => {
                    let unacked = self.session.unacked_states();
                    pushes::end(&self.api.tracer, &batches, &self.node, &self.site);
                    let propagation_ms = self.handle.acknowledged(batches, ack.applied_ms, now_ms(), unacked);
                    if let Some(propagation_ms) = propagation_ms {
                        self.api.metrics.propagation_seconds.observe(propagation_ms / 1_000.0);
                    }
                    Ok(())
                }
                Acked::NeverSent => {
                    let sent = self.session.sequence();
                    Err(End::protocol(format!("batch {} was acknowledged, {sent} is the last sent", ack.sequence)))
                }
            },
            Some(Said::Health(health)) => {
                self.handle.health(health, now_ms());
                Ok(())
            }
            Some(Said::Hello(_)) => Err(End::protocol("hello came twice; connect anew to begin again")),
            // A word of a newer edge.
            None => Ok(()),
        }
    }
}

impl End {
    fn closed() -> Self {
        Self(EdgeEnd::Closed, None)
    }

    fn shutdown() -> Self {
        Self(EdgeEnd::Shutdown, Some(Status::unavailable("control is ending; connect anew")))
    }

    fn protocol(why: impl Into<String>) -> Self {
        Self(EdgeEnd::Protocol, Some(Status::invalid_argument(why)))
    }
}

async fn read_hello(incoming: &mut Streaming<v1::AttachRequest>) -> Result<v1::Hello, Status> {
    match incoming.message().await?.and_then(|message| message.kind) {
        Some(Said::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message on the stream must be hello")),
    }
}

/// Whether the caller may attach as `said`: an edge as itself only.
fn may_attach(principal: &Principal, said: &EdgeIdentity) -> bool {
    let Principal::Edge(Edge { node, site, .. }) = principal else {
        return matches!(principal, Principal::Person(_));
    };
    node.as_ref().is_none_or(|node| *node == said.node) && site.as_ref().is_none_or(|site| *site == said.site)
}

fn identity(hello: &v1::Hello) -> Result<EdgeIdentity, String> {
    for (field, value) in [("node", &hello.node), ("site", &hello.site)] {
        if value.is_empty() {
            return Err(format!("hello.{field} is empty; give its name"));
        }
    }
    for (field, value) in [("node", &hello.node), ("site", &hello.site), ("version", &hello.version)] {
        if value.len() > MAX_NAME_OCTETS || value.chars().any(char::is_control) {
            return Err(format!("hello.{field} is not a name; allowed: {MAX_NAME_OCTETS} octets of plain text"));
        }
    }
    Ok(EdgeIdentity {
        node: hello.node.clone(),
        site: hello.site.clone(),
        version: hello.version.clone(),
        now_ms: hello.now_ms,
    })
}

fn says(kind: Says) -> v1::AttachResponse {
    v1::AttachResponse { kind: Some(kind) }
}
