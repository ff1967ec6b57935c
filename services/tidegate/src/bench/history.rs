//! The history: events into tables, and analysts' questions over them.

use super::Scale;
use super::report::Figure;
use super::stopwatch::{Spent, Stopwatch, quantile};
use super::traffic::{Tail, Traffic};
use crate::admin::connect::HistoryArgs;
use crate::admin::format::now_ms;
use crate::history::client::HistoryClient;
use anyhow::Context as _;
use bytes::Bytes;
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_access::Access;
use tidegate_bus::{Bus, EmbeddedBus, EmbeddedConfig, Message, Record, Topic};
use tidegate_domain::{Event, EventKind};
use tidegate_history::{Filler, HistoryConfig, Lake, Service, Table, compact};
use tidegate_proto::event_to_proto;
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;

/// 2026-10-01 00:00 UTC: all of it has passed, so that what is sent now is of a later day.
const FIRST_DAY_MS: i64 = 1_790_812_800_000;
const DAY_MS: i64 = 86_400_000;
const DAYS: u64 = 30;
const ACCOUNTS: u64 = 200_000;
/// Rows of one commit.
const COMMIT: u64 = 200_000;
/// How often each question is asked.
const TIMES: usize = 3;
/// Events that are waited for, one after the other.
const SENT: u64 = 20;
/// How long an event may take to be queryable.
const PATIENCE: Duration = Duration::from_mins(1);

/// What analysts ask; `$day` is a day in the middle, `$account` one that sends much.
const QUESTIONS: [(&str, &str); 5] = [
    (
        "question: one account's month",
        "SELECT date, count(*) AS messages, sum(recipients) AS recipients, count(DISTINCT client_address) AS addresses \
         FROM events WHERE account = '$account' GROUP BY date ORDER BY date",
    ),
    (
        "question: top senders of a day",
        "SELECT account, count(*) AS messages, sum(recipients) AS recipients FROM events WHERE date = DATE '$day' \
         GROUP BY account ORDER BY messages DESC LIMIT 20",
    ),
    (
        "question: who else sent from an account's addresses",
        "SELECT account, count(*) AS messages FROM events WHERE account <> '$account' AND client_address IN \
         (SELECT client_address FROM events WHERE account = '$account') GROUP BY account ORDER BY messages DESC LIMIT 20",
    ),
    (
        "question: recipients' domains of each account",
        "SELECT account, count(DISTINCT domain_to) AS domains FROM (SELECT account, unnest(recipient_domains) AS domain_to \
         FROM events) AS each_one GROUP BY account ORDER BY domains DESC LIMIT 20",
    ),
    (
        "question: all rows",
        "SELECT count(*), sum(size_bytes), avg(recipients), count(DISTINCT node), max(time) FROM events",
    ),
];

/// Measures filling, tidying, the way from the log to a query, and the questions.
pub async fn measure(scale: Scale, tables: Option<&Path>) -> anyhow::Result<Vec<Figure>> {
    let directory = tempfile::tempdir().context("making a folder")?;
    let folder = tables.map_or_else(|| directory.path().join("history"), Path::to_path_buf);
    let url = Some(std::path::absolute(&folder)?.to_str().context("the folder's path is no UTF-8")?.to_owned());
    let config = HistoryConfig {
        url,
        listen: "127.0.0.1:0".parse()?,
        upkeep_interval_ms: 86_400_000,
        commit_interval_ms: 1_000,
        ..HistoryConfig::default()
    };
    let rows = scale.of(50_000_000);
    let filled = folder.join(Table::Events.name()).exists();
    let lake = Lake::open(&config).await?;
    let mut figures = Vec::new();
    if filled {
        eprintln!("  {} is there already: only the questions are measured", folder.display());
    } else {
        figures.extend(fill(&lake, rows).await?);
        figures.extend(tidy(&lake, &config, rows).await?);
    }
    figures.extend(ask(lake, config, directory.path(), rows).await?);
    Ok(figures)
}

/// Puts small files together.
async fn tidy(lake: &Lake, config: &HistoryConfig, rows: u64) -> anyhow::Result<Vec<Figure>> {
    let watch = Stopwatch::start();
    let (merged, octets) = compact(lake, Table::Events, config).await.map_err(anyhow::Error::msg)?;
    let spent = watch.spent();
    // With few rows a day has few files, and none are put together.
    if merged == 0 {
        return Ok(Vec::new());
    }
    let settings = format!("{rows} rows in {merged} files, sorted anew");
    let rate = per_core(Figure::rate("history, files put together", settings, "rows/s/core", rows, spent), spent);
    let settings = format!("{rows} rows, {ACCOUNTS} accounts, {DAYS} days, put together");
    let size = Figure::rate("history, an event on disk", settings, "octets", rows, spent);
    Ok(vec![rate, Figure { value: octets as f64 / rows as f64, ..size }])
}

/// The value for one core: by the CPU time, where it is known.
fn per_core(figure: Figure, spent: Spent) -> Figure {
    let value = spent.cpu_s.map_or(figure.value, |cpu_s| figure.n as f64 / cpu_s);
    Figure { value, ..figure }
}

/// Fills the table day by day, as the sink does: from records to rows, files and commits.
async fn fill(lake: &Lake, rows: u64) -> anyhow::Result<Vec<Figure>> {
    let mut traffic = Traffic::new(ACCOUNTS, Tail::Heavy)?;
    let mut filler = Filler::new(lake, Table::Events);
    let (mut spent, mut octets, mut offset) = (Spent { wall_s: 0.0, cpu_s: Some(0.0) }, 0, 0);
    while offset < rows {
        let count = COMMIT.min(rows - offset);
        let records: Vec<Record> = (offset..offset + count).map(|number| record(&mut traffic, number, rows)).collect();
        offset += count;
        let watch = Stopwatch::start();
        for record in &records {
            filler.add(record).map_err(anyhow::Error::msg)?;
        }
        octets += filler.write().await?.octets;
        let one = watch.spent();
        spent.wall_s += one.wall_s;
        spent.cpu_s = spent.cpu_s.zip(one.cpu_s).map(|(all, one)| all + one);
        if offset % (25 * COMMIT) == 0 {
            eprintln!("  {offset} of {rows} rows");
        }
    }
    let settings = format!("commits of {COMMIT}, {ACCOUNTS} accounts, heavy tail");
    let rate = per_core(Figure::rate("history, rows sunk", settings.clone(), "rows/s/core", rows, spent), spent);
    let size = Figure::rate("history, an event on disk", settings, "octets", rows, spent);
    Ok(vec![rate, Figure { value: octets as f64 / rows as f64, ..size }])
}

/// An event as the topic has it: with all that a real one has.
fn record(traffic: &mut Traffic, number: u64, rows: u64) -> Record {
    let at_ms = FIRST_DAY_MS + (number as f64 / rows as f64 * (DAYS.cast_signed() * DAY_MS - 1) as f64) as i64;
    let mut event = traffic.event(&format!("mx{}", number % 6), at_ms);
    complete(&mut event, number);
    Record {
        topic: Topic::Events,
        partition: (number % 8) as u32,
        offset: number / 8,
        time_ms: at_ms + 3,
        key: Bytes::copy_from_slice(event.account.as_str().as_bytes()),
        value: Some(event_to_proto(&event).encode_to_vec().into()),
        trace: None,
    }
}

/// What the bench's other parts do not look at.
fn complete(event: &mut Event, number: u64) {
    let EventKind::Submission(submission) = &mut event.kind else { return };
    submission.client_port = 1_024 + (number.wrapping_mul(7_919) % 60_000) as u16;
    submission.helo = format!("host{}.example.net", number % 5_000);
    submission.queue_id = format!("4Z{:09X}", number.wrapping_mul(2_654_435_761) & 0xf_ffff_ffff);
    submission.subject_hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    submission.mailer_hash = 1 + number % 40;
    "PLAIN".clone_into(&mut submission.login_method);
    "TLSv1.3".clone_into(&mut submission.tls);
    submission.spam_score = Some((number % 80) as f64 / 10.0);
}

/// The way from the log to a query, and the questions, over Flight SQL as analysts do.
async fn ask(lake: Lake, config: HistoryConfig, directory: &Path, rows: u64) -> anyhow::Result<Vec<Figure>> {
    let log = EmbeddedConfig { directory: directory.join("log"), partitions: 4, ..EmbeddedConfig::default() };
    let bus = EmbeddedBus::open(log)?;
    let (mut registry, health, shared) = (Registry::default(), Health::new(), bus.clone() as Arc<dyn Bus>);
    let service = Service::bind_over(lake, config, shared, &mut registry, health, Access::off()).await?;
    let server = HistoryArgs::without_credentials(format!("http://{}", service.local_addr()));
    let (stop, analyst) = (CancellationToken::new(), HistoryClient::new(server.connection().await?));
    let running = tokio::spawn(service.run(stop.clone()));
    let mut figures = Vec::new();
    for (what, sql) in QUESTIONS {
        let sql = sql.replace("$account", "user1000@example.org").replace("$day", "2026-10-15");
        let (watch, mut seconds) = (Stopwatch::start(), Vec::new());
        for _ in 0..TIMES {
            let began = Instant::now();
            analyst.ask(&sql).await.with_context(|| format!("asking {sql}"))?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let figure = Figure::rate(what, format!("{rows} rows"), "s", TIMES as u64, watch.spent());
        figures.push(Figure { value: quantile(&seconds, 0.5), ..figure });
    }
    figures.push(seconds_to_queryable(bus.as_ref(), &analyst).await?);
    stop.cancel();
    running.await??;
    Ok(figures)
}

async fn seconds_to_queryable(bus: &dyn Bus, analyst: &HistoryClient) -> anyhow::Result<Figure> {
    let mut traffic = Traffic::new(10, Tail::Flat)?;
    // A node of its own: tables that are used again have the events of the time before.
    let node = format!("fresh{}", now_ms());
    let (watch, mut seconds) = (Stopwatch::start(), Vec::new());
    for number in 0..SENT {
        let event = traffic.event(&node, now_ms());
        let value = event_to_proto(&event).encode_to_vec();
        let key = Bytes::copy_from_slice(event.account.as_str().as_bytes());
        let began = Instant::now();
        bus.append(Topic::Events, vec![Message::new(key, Some(value.into()))]).await?;
        let sql = format!(
            "SELECT count(*) FROM events WHERE node = '{node}' AND date > DATE '2026-10-30' HAVING count(*) > {number}"
        );
        while analyst.ask(&sql).await?.iter().all(|batch| batch.num_rows() == 0) {
            anyhow::ensure!(began.elapsed() < PATIENCE, "an event cannot be queried");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let settings = "commit_interval_ms = 1000, embedded log".to_owned();
    let figure = Figure::rate("history, from send to queryable", settings, "s", SENT, watch.spent());
    Ok(Figure { value: quantile(&seconds, 0.5), p99: Some(quantile(&seconds, 0.99)), ..figure })
}
