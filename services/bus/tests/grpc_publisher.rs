//! Publishing over gRPC to a real server.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_bus::Bus as _;
use tidegate_bus::publisher::{GrpcPublisherConfig, REQUEST_MAX_EVENTS};
use tidegate_bus::{BusError, BusPublisher, EmbeddedBus, EmbeddedConfig, GrpcPublisher, Publisher, Topic};
use tidegate_proto::v1;
use tidegate_proto::v1::event_service_server::{EventService, EventServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What owns a log does no more than this.
struct Server {
    publisher: BusPublisher,
    requests: AtomicUsize,
}

#[tonic::async_trait]
impl EventService for Server {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let events = request.into_inner().events;
        assert!(events.len() <= REQUEST_MAX_EVENTS);
        match events.first().map(|event| event.site.as_str()) {
            Some("hangs") => std::future::pending::<()>().await,
            Some("forbidden") => return Err(Status::permission_denied("this node may not publish")),
            _ => {}
        }
        let published = self.publisher.publish(events).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let rejected = published
            .rejected
            .into_iter()
            .map(|rejected| v1::RejectedEvent { index: rejected.index as u32, reason: rejected.reason })
            .collect();
        Ok(Response::new(v1::PublishResponse { written: published.written as u32, rejected }))
    }
}

struct Rig {
    _directory: tempfile::TempDir,
    bus: Arc<EmbeddedBus>,
    server: Arc<Server>,
    publisher: GrpcPublisher,
}

async fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { directory: directory.path().to_owned(), ..EmbeddedConfig::default() };
    let bus = EmbeddedBus::open(config).unwrap();
    let server = Arc::new(Server { publisher: BusPublisher::new(bus.clone()), requests: AtomicUsize::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tonic::transport::Server::builder()
        .add_service(EventServiceServer::from_arc(server.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let config = GrpcPublisherConfig { endpoint, request_timeout_ms: 2_000, ..GrpcPublisherConfig::default() };
    Rig { _directory: directory, bus, server, publisher: GrpcPublisher::new(&config).unwrap() }
}

fn event(site: &str, sequence: u64) -> v1::Event {
    v1::Event {
        id: Some(v1::EventId { node: "mx1".to_owned(), lane: v1::Lane::Live.into(), sequence }),
        site: site.to_owned(),
        account: format!("{}@example.org", sequence % 10),
        time_ms: 1_800_000_000_000,
        trace_parent: String::new(),
        kind: Some(v1::event::Kind::Login(v1::Login {
            client_address: vec![192, 0, 2, 1],
            protocol: "imap".to_owned(),
            success: true,
        })),
    }
}

#[tokio::test]
async fn many_events_go_in_several_requests_and_rejections_keep_their_places() {
    let rig = rig().await;
    let mut events: Vec<_> = (1..=2_500).map(|sequence| event("hamburg", sequence)).collect();
    events[1_700].id = None;
    let published = rig.publisher.publish(events).await.unwrap();
    assert_eq!(published.written, 2_499);
    assert_eq!(published.rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), [1_700]);
    assert_eq!(rig.server.requests.load(Ordering::Relaxed), 3);
    let mut records = 0;
    for partition in 0..rig.bus.partitions() {
        records += rig.bus.bounds(Topic::Events, partition).await.unwrap().next;
    }
    assert_eq!(records, 2_499);
}

#[tokio::test]
async fn errors_tell_whether_to_try_again() {
    let rig = rig().await;
    let error = rig.publisher.publish(vec![event("forbidden", 1)]).await.unwrap_err();
    assert!(matches!(error, BusError::Grpc { .. }) && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("this node may not publish"), "{error}");
    rig.bus.close().await;
    let error = rig.publisher.publish(vec![event("hamburg", 1)]).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_hangs_or_is_not_there_can_be_tried_again() {
    let rig = rig().await;
    let error = rig.publisher.publish(vec![event("hangs", 1)]).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(rig.publisher.publish(vec![event("hamburg", 2)]).await.unwrap().written, 1);
    let nobody = GrpcPublisherConfig {
        endpoint: "http://127.0.0.1:1".to_owned(),
        request_timeout_ms: Duration::from_secs(2).as_millis() as u64,
        tls: None,
    };
    let error = GrpcPublisher::new(&nobody).unwrap().publish(vec![event("hamburg", 1)]).await.unwrap_err();
    assert!(matches!(&error, BusError::Grpc { endpoint, .. } if endpoint == &nobody.endpoint), "{error:?}");
    assert!(error.is_retryable(), "{error:?}");
}
