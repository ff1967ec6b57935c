//! From the message that crosses a limit to the first refusal, through edge, log, stream, log, control and edge.

use super::Scale;
use super::pipeline::on_kafka;
use super::report::Figure;
use super::stage::Stage;
use super::stopwatch::{Stopwatch, quantile};
use super::traffic::{Tail, Traffic};
use crate::demo::milter::{Mail, Outcome, Session};
use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};
use tidegate_bus::{BusConfig, GrpcPublisher, Publisher as _};
use tidegate_proto::event_to_proto;
use tidegate_runtime::shutdown::CancellationToken;

/// The tenth message crosses it, and nobody else does.
const RULES: &str = r#"
mode = "enforce"

[[rule]]
name = "ten"
when = "messages_1m >= 10 AND same_content_1m >= 0.99"
action = "lock"
reason = "Ten messages of one content within a minute."
reply = "This account is locked."
source = "tidegate bench"
"#;
const LIMIT: u64 = 10;
/// How long a refusal may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Background is published so often.
const TICK: Duration = Duration::from_millis(20);

/// Measures with 50 and with 5,000 other events a second.
pub async fn measure(scale: Scale, kafka: Option<&str>) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for background in [50, 5_000] {
        figures.push(measure_one(background, None, "the embedded log", scale).await?);
        if let Some(brokers) = kafka {
            figures.push(measure_one(background, Some(on_kafka(brokers)), "Kafka", scale).await?);
        }
    }
    Ok(figures)
}

async fn measure_one(background: u64, log: Option<BusConfig>, name: &str, scale: Scale) -> anyhow::Result<Figure> {
    let stage = Stage::start(RULES, log).await?;
    let stop = CancellationToken::new();
    let publishing = tokio::spawn(publish(stage.control.clone(), background, stop.clone()));
    let mut session = Session::open(&stage.edge.socket).await?;
    // The first connections and transactions take longer, and are nobody's everyday.
    for warm_up in 0..5 {
        hijack(&mut session, &format!("warm{warm_up}@example.org")).await?;
    }
    let watch = Stopwatch::start();
    let mut times_ms = Vec::new();
    for thief in 0..scale.of(300) {
        times_ms.push(hijack(&mut session, &format!("thief{thief}@example.org")).await?.as_secs_f64() * 1_000.0);
    }
    let spent = watch.spent();
    stop.cancel();
    let (published, late) = publishing.await??;
    stage.end().await?;
    let rate = published as f64 / (spent.wall_s + 0.001);
    if rate < background as f64 * 0.8 {
        bail!("only {rate:.0} of {background} events a second could be published ({late} ticks late)");
    }
    times_ms.sort_by(f64::total_cmp);
    let n = times_ms.len() as u64;
    let settings = format!("{name}, {background} other events/s");
    let figure = Figure::rate("limit crossed to refusal", settings, "ms", n, spent);
    Ok(Figure { value: quantile(&times_ms, 0.5), p99: Some(quantile(&times_ms, 0.99)), ..figure })
}

/// Sends up to the limit, then tries until it is refused; gives the time between.
async fn hijack(session: &mut Session, login: &str) -> anyhow::Result<Duration> {
    let mail = spam(login);
    for _ in 0..LIMIT {
        if let Outcome::Refused(reply) = session.submit(&mail).await? {
            bail!("{login} was refused below the limit: {reply}");
        }
    }
    let crossed = Instant::now();
    while crossed.elapsed() < PATIENCE {
        if matches!(session.try_mail(&mail).await?, Outcome::Refused(_)) {
            return Ok(crossed.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    bail!("{login} was not refused within {PATIENCE:?}")
}

fn spam(login: &str) -> Mail {
    Mail {
        login: login.to_owned(),
        client: SocketAddr::from(([192, 0, 2, 1], 50_000)),
        recipients: vec!["victim@elsewhere.example".to_owned()],
        headers: vec![("Subject", "Your parcel waits".to_owned())],
        body: "Your parcel waits for you at the post office, please pay its duty and fetch it.\r\n".repeat(5),
    }
}

/// Publishes events of others over gRPC, as edges do; gives how many, and how many ticks came late.
async fn publish(control: String, rate: u64, stop: CancellationToken) -> anyhow::Result<(u64, u64)> {
    let publisher =
        GrpcPublisher::new(&tidegate_bus::publisher::GrpcPublisherConfig { endpoint: control, ..Default::default() })?;
    let mut traffic = Traffic::new(20_000, Tail::Flat)?;
    let mut ticks = tokio::time::interval(TICK);
    let (began, mut published, mut late) = (Instant::now(), 0, 0);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok((published, late)),
            _ = ticks.tick() => {}
        }
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        if due - published > 2 * rate * TICK.as_millis() as u64 / 1_000 + 1 {
            late += 1;
        }
        while published < due {
            let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
            let count = (due - published).min(1_000);
            let events = (0..count).map(|_| event_to_proto(&traffic.event("background", now_ms))).collect();
            publisher.publish(events).await.context("publishing the background")?;
            published += count;
        }
    }
}
