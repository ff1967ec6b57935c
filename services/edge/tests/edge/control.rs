//! A control service of the test: pushes the states that it is given, and takes events as it is told to.

use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_domain::{Account, AccountState, Cause, Lock, Position, Positions, QueuedMail, Replica, Status as State};
use tidegate_proto::v1::attach_request::Kind as Said;
use tidegate_proto::v1::attach_response::Kind as Says;
use tidegate_proto::v1::edge_service_server::{EdgeService, EdgeServiceServer};
use tidegate_proto::v1::event_service_server::{EventService, EventServiceServer};
use tidegate_proto::{state_to_proto, v1};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What becomes of published events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// They are written and acknowledged.
    Works,
    /// They are refused for now.
    Fails,
    /// They are written, and no answer ever comes.
    WritesAndHangs,
    /// With live events nothing happens at all; spooled ones are written.
    HangsLive,
}

/// The log, which outlives control.
pub struct Log {
    pub id: String,
    pub accounts: RwLock<Replica>,
    pub events: Mutex<Vec<v1::Event>>,
    pub publishing: Mutex<Publishing>,
    pub hellos: Mutex<Vec<v1::Hello>>,
    pub acks: Mutex<Vec<v1::Ack>>,
    version: watch::Sender<u64>,
}

/// A running control.
pub struct Control {
    pub address: SocketAddr,
    /// Its own, so that it can be ended with everything that it has open.
    runtime: Option<Runtime>,
}

struct Api(Arc<Log>);

impl Log {
    pub fn new(id: &str) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            accounts: RwLock::default(),
            events: Mutex::default(),
            publishing: Mutex::new(Publishing::Works),
            hellos: Mutex::default(),
            acks: Mutex::default(),
            version: watch::Sender::new(0),
        })
    }

    /// Writes a state of the account.
    pub fn write(&self, account: &str, status: State) {
        let account = Account::parse(account).unwrap();
        let mut accounts = self.accounts.write();
        let offset = accounts.positions().get(&0).copied().unwrap_or(0);
        let state = AccountState { status, version: offset + 1, ..AccountState::new(account.clone()) };
        accounts.apply(Position { partition: 0, offset }, &account, Some(state));
        drop(accounts);
        self.version.send_modify(|version| *version += 1);
    }

    pub fn lock(&self, account: &str) {
        self.write(account, State::Locked(lock()));
    }

    pub fn throttle(&self, account: &str) {
        self.write(account, State::Throttled(lock()));
    }

    pub fn unlock(&self, account: &str) {
        self.write(account, State::Active);
    }

    pub fn publishing(&self, publishing: Publishing) {
        *self.publishing.lock() = publishing;
    }

    /// The submissions that count: repeats dropped as the stream drops them, by the highest number of each lane. Also
    /// checks that numbers are never used for two events.
    pub fn counted(&self) -> Vec<(v1::EventId, v1::Submission)> {
        let mut highest: HashMap<(String, i32), u64> = HashMap::new();
        let mut seen: HashMap<(String, i32, u64), v1::Event> = HashMap::new();
        let mut counted = Vec::new();
        for event in self.events.lock().iter() {
            let id = event.id.clone().unwrap();
            let before = seen.insert((id.node.clone(), id.lane, id.sequence), event.clone());
            assert!(before.is_none_or(|before| before == *event), "one number for two events");
            let highest = highest.entry((id.node.clone(), id.lane)).or_default();
            if id.sequence > *highest {
                *highest = id.sequence;
                let Some(v1::event::Kind::Submission(submission)) = event.kind.clone() else { panic!("{event:?}") };
                counted.push((id, submission));
            }
        }
        counted
    }

    /// Senders of the submissions that count, sorted.
    pub fn senders(&self) -> Vec<String> {
        let mut senders: Vec<_> = self.counted().into_iter().map(|(_, submission)| submission.sender).collect();
        senders.sort();
        senders
    }
}

pub fn lock() -> Lock {
    Lock {
        id: "L-7K3QX2M9".into(),
        cause: Cause::Admin { actor: "ann".into() },
        reason: "hijacked".into(),
        evidence: Vec::new(),
        since_ms: 1,
        until_ms: None,
        reply: "Account locked, call the help desk".into(),
        queued_mail: QueuedMail::Keep,
        clients: Vec::new(),
        subjects: Vec::new(),
    }
}

impl Control {
    /// Serves `log` on `address`; port 0 takes a free one.
    pub fn start(log: &Arc<Log>, address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Server::builder()
            .add_service(EdgeServiceServer::new(Api(Arc::clone(log))))
            .add_service(EventServiceServer::new(Api(Arc::clone(log))));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, runtime: Some(runtime) }
    }

    /// Ends it as a kill would; its address is free then.
    pub async fn stop(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tonic::async_trait]
impl EdgeService for Api {
    type AttachStream = ReceiverStream<Result<v1::AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outgoing, stream) = mpsc::channel(4);
        let log = Arc::clone(&self.0);
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            let Ok(Some(v1::AttachRequest { kind: Some(Said::Hello(hello)) })) = incoming.message().await else {
                return;
            };
            log.hellos.lock().push(hello.clone());
            let mut snapshot = hello.log_id != log.id;
            let mut held: Positions = hello.positions.iter().map(|at| (at.partition, at.next_offset)).collect();
            if snapshot {
                held.clear();
            }
            let welcome = v1::Welcome { log_id: log.id.clone(), snapshot, heartbeat_ms: 200, now_ms: 0 };
            if outgoing.send(Ok(says(Says::Welcome(welcome)))).await.is_err() {
                return;
            }
            let mut version = log.version.subscribe();
            version.mark_changed();
            let mut sequence = 0;
            loop {
                tokio::select! {
                    said = incoming.message() => match said {
                        Ok(Some(v1::AttachRequest { kind: Some(Said::Ack(ack)) })) => log.acks.lock().push(ack),
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return,
                    },
                    _ = version.changed() => {
                        let batch = {
                            let accounts = log.accounts.read();
                            let states = accounts.newer_than(&held, usize::MAX);
                            held = accounts.positions().clone();
                            sequence += 1;
                            batch(sequence, states, &held, std::mem::take(&mut snapshot))
                        };
                        if outgoing.send(Ok(says(Says::States(batch)))).await.is_err() {
                            return;
                        }
                    }
                    () = tokio::time::sleep(Duration::from_millis(100)) => {
                        let heartbeat = v1::Heartbeat { now_ms: 0, sequence };
                        if outgoing.send(Ok(says(Says::Heartbeat(heartbeat)))).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl EventService for Api {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let events = request.into_inner().events;
        let written = events.len() as u32;
        let mut publishing = *self.0.publishing.lock();
        let spooled = |event: &v1::Event| event.id.as_ref().is_some_and(|id| id.lane() == v1::Lane::Spooled);
        if publishing == Publishing::HangsLive && events.iter().all(spooled) {
            publishing = Publishing::Works;
        }
        if matches!(publishing, Publishing::Works | Publishing::WritesAndHangs) {
            self.0.events.lock().extend(events);
        }
        match publishing {
            Publishing::Works => Ok(Response::new(v1::PublishResponse { written, rejected: Vec::new() })),
            Publishing::Fails => Err(Status::unavailable("the log is away")),
            Publishing::WritesAndHangs | Publishing::HangsLive => std::future::pending().await,
        }
    }
}

fn batch(
    sequence: u64,
    states: Vec<(Position, Arc<AccountState>)>,
    held: &Positions,
    snapshot_complete: bool,
) -> v1::StateBatch {
    let placed = |(position, state): (Position, Arc<AccountState>)| v1::PlacedState {
        partition: position.partition,
        offset: position.offset,
        state: Some(state_to_proto(&state)),
        trace_parent: String::new(),
    };
    let position = |(partition, next_offset): (&u32, &u64)| v1::PartitionPosition {
        partition: *partition,
        next_offset: *next_offset,
    };
    v1::StateBatch {
        sequence,
        states: states.into_iter().map(placed).collect(),
        positions: held.iter().map(position).collect(),
        snapshot_complete,
        sent_ms: 0,
    }
}

fn says(kind: Says) -> v1::AttachResponse {
    v1::AttachResponse { kind: Some(kind) }
}
