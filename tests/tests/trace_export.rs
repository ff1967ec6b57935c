//! Sending traces harms nobody: a collector that is away, refuses or hangs costs spans, which are counted, and no waiting.
#![allow(clippy::unwrap_used, missing_docs)]

use futures::FutureExt as _;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidegate_runtime::shutdown::CancellationToken;
use tidegate_runtime::traces::{Role, Span, TraceContext, Tracer, TracesConfig};
use tidegate_tests::collector::{Answer, Collector};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Code;

struct Lab {
    tracer: Tracer,
    registry: Registry,
    shutdown: CancellationToken,
    exporting: JoinHandle<()>,
}

impl Lab {
    fn start(collector: SocketAddr, config: TracesConfig) -> Self {
        let config = TracesConfig { endpoint: Some(format!("http://{collector}")), ..config };
        let mut registry = Registry::default();
        let (tracer, exporter) = Tracer::new(&config, "host/1", &mut registry).unwrap();
        let shutdown = CancellationToken::new();
        let exporting = tokio::spawn(exporter.unwrap().run(shutdown.clone()));
        Self { tracer, registry, shutdown, exporting }
    }

    fn end(&self, spans: usize) {
        for _ in 0..spans {
            let span = Span::new("decide", Role::Producer, TraceContext::new_trace(), None, (1.0, 2.0));
            self.tracer.of("tidegate-stream").end(span);
        }
    }

    fn count(&self, result: &str) -> usize {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = format!("tidegate_traces_spans_total{{result=\"{result}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }

    async fn wait_for(&self, result: &str, count: usize) {
        let began = Instant::now();
        while self.count(result) != count {
            assert!(began.elapsed() < Duration::from_mins(1), "{result}: {} of {count}", self.count(result));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn quick() -> TracesConfig {
    TracesConfig { timeout_ms: 500, ..TracesConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_under_their_service_and_instance() {
    let collector = Collector::start().unwrap();
    let lab = Lab::start(collector.address(), quick());
    lab.end(3);
    lab.tracer.of("tidegate-control").end(Span::new(
        "push",
        Role::Producer,
        TraceContext::new_trace(),
        None,
        (1.0, 2.0),
    ));
    lab.wait_for("exported", 4).await;
    let seen = collector.seen();
    let of = |service: &str| seen.iter().filter(|seen| seen.service == service && seen.instance == "host/1").count();
    assert_eq!((of("tidegate-stream"), of("tidegate-control")), (3, 1));
    assert_eq!(collector.asked(), 1, "in one request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_later_gets_what_has_waited() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    let lab = Lab::start(address, quick());
    lab.end(5);
    // The first attempt fails.
    drop(nobody.accept().await.unwrap());
    drop(nobody);
    let collector = Collector::start_on(address).unwrap();
    lab.wait_for("exported", 5).await;
    collector.answer(Answer::Refuse(Code::Unavailable));
    let asked = collector.asked();
    lab.end(2);
    while collector.asked() < asked + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    collector.answer(Answer::Take);
    lab.wait_for("exported", 7).await;
    assert_eq!((lab.count("failed"), lab.count("dropped")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_refuses_is_counted_and_not_sent_again() {
    let collector = Collector::start().unwrap();
    let lab = Lab::start(collector.address(), quick());
    collector.answer(Answer::Refuse(Code::InvalidArgument));
    lab.end(3);
    lab.wait_for("failed", 3).await;
    assert_eq!(collector.asked(), 1);
    collector.answer(Answer::TakeAllBut(2));
    lab.end(6);
    lab.wait_for("failed", 5).await;
    assert_eq!(lab.count("exported"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_keeps_nobody_waiting() {
    let collector = Collector::start().unwrap();
    collector.answer(Answer::Hang);
    let lab = Lab::start(collector.address(), TracesConfig { queue_max_spans: 100, timeout_ms: 60_000, ..quick() });
    lab.end(1);
    while collector.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lab.end(1_000);
    assert_eq!(lab.count("dropped"), 900);
    // Nor does it keep the end.
    lab.shutdown.cancel();
    let counted = |lab: &Lab| (lab.count("exported"), lab.count("dropped"), lab.count("failed"));
    lab.wait_for("failed", 101).await;
    assert_eq!(counted(&lab), (0, 900, 101));
    lab.exporting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_at_the_end() {
    let collector = Collector::start().unwrap();
    let lab = Lab::start(collector.address(), quick());
    lab.end(700);
    lab.shutdown.cancel();
    lab.exporting.await.unwrap();
    assert_eq!(collector.seen().len(), 700);
}

/// E.g. in a process whose only service has no steps.
#[tokio::test(flavor = "multi_thread")]
async fn without_anybody_who_traces_it_runs_until_the_end() {
    let Lab { tracer, shutdown, mut exporting, .. } = Lab::start(SocketAddr::from(([127, 0, 0, 1], 1)), quick());
    drop(tracer);
    // Whatever it does about that it has done by then.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!((&mut exporting).now_or_never().is_none(), "it ended by itself");
    shutdown.cancel();
    exporting.await.unwrap();
}

#[test]
fn about_the_configured_share_of_messages_is_traced() {
    let config = TracesConfig { endpoint: Some("http://127.0.0.1:1".to_owned()), sample_ratio: 0.1, ..quick() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let (tracer, _exporter) = Tracer::new(&config, "host/1", &mut Registry::default()).unwrap();
    let sampled = (0..20_000).filter(|_| tracer.sample().is_some()).count();
    // Ten standard deviations to each side.
    assert!((1_576..=2_424).contains(&sampled), "{sampled} of 20,000");
    let off = Tracer::off();
    assert!(
        off.sample().is_none() && off.step(None).is_none() && off.follow(Some(TraceContext::new_trace())).is_none()
    );
    assert_eq!((tracer.account("jo@example.org"), off.account("jo@example.org")), ("", ""));
}
