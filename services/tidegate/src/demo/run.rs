//! The course of the demo.

use super::DemoArgs;
use super::edges::{EdgeProcess, SITES, make_hash_key};
use super::milter::Outcome;
use super::people::{self, TRIED, VICTIM, own_letter};
use super::question::{self, Expected};
use super::report::{Locked, Report, evidence_text, measure, round};
use super::screen::Screen;
use super::traffic::{Attempts, Ordinary, now_ms, start_ordinary, start_thief, submit};
use crate::config::ServerConfig;
use crate::serve::{self, Parts, Running};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tidegate_proto::v1;
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_runtime::config;
use tidegate_runtime::shutdown::{self, CancellationToken};
use tidegate_runtime::telemetry::{self, LogConfig, LogFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Channel;

/// How long anything in the demo may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the picture on the screen is renewed.
const REFRESH: Duration = Duration::from_millis(200);
/// How long the thief goes on after the last edge refused first.
const AFTER_LOCK: Duration = Duration::from_secs(2);
/// How long the unlocked account sends, to see that old messages lock it no more.
const AFTER_UNLOCK: Duration = Duration::from_secs(3);
/// Messages that the thief sends with another account, to try it.
const TRIALS: u64 = 2;

/// What is running.
struct Stage {
    screen: Screen,
    server: Running,
    edges: Vec<EdgeProcess>,
    admin: AdminServiceClient<Channel>,
    ordinary: Arc<Ordinary>,
    rate: Rate,
    stop: CancellationToken,
}

/// How fast something grows, renewed each second.
#[derive(Default)]
struct Rate {
    since: Option<(Instant, u64)>,
    per_s: f64,
}

impl Rate {
    fn update(&mut self, count: u64, now: Instant) -> f64 {
        let (at, before) = *self.since.get_or_insert((now, count));
        let span_s = now.duration_since(at).as_secs_f64();
        if span_s >= 1.0 {
            self.per_s = count.saturating_sub(before) as f64 / span_s;
            self.since = Some((now, count));
        }
        self.per_s
    }
}

/// Runs the demo; exit code 1 when the account was not locked everywhere, or an ordinary one was.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    telemetry::init(&LogConfig { format: LogFormat::Human, filter: "error".to_owned() });
    let directory =
        tempfile::Builder::new().prefix("tidegate-demo-").tempdir().context("making a folder for the demo")?;
    let stop = shutdown::on_signal()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut stage = start(&args, directory.path(), seed, stop.clone()).await?;
    let result = tokio::select! {
        result = play(&args, &mut stage, seed) => result,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            stop.cancel();
            return Err(error);
        }
    };
    let failures = report.failures();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("\n{}", report.summary());
    }
    for failure in &failures {
        eprintln!("tidegate: {failure}");
    }
    if args.stay {
        stay(&stage, directory.path());
        stop.cancelled().await;
    }
    stop.cancel();
    drop(stage.edges);
    stage.server.finish().await?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn start(args: &DemoArgs, directory: &Path, seed: u64, stop: CancellationToken) -> anyhow::Result<Stage> {
    let mut screen = Screen::new(args.json);
    let text = format!(
        "[log]\nkind = \"embedded\"\ndirectory = {:?}\n\n[stream]\nmode = \"enforce\"\n\n\
         [control]\nlisten = \"127.0.0.1:0\"\n\n[history]\nlisten = \"127.0.0.1:0\"\ncommit_interval_ms = 200\n\n\
         [ops]\nlisten = \"127.0.0.1:0\"\n",
        directory.join("log"),
    );
    std::fs::create_dir_all(directory.join("log"))?;
    let config: ServerConfig = config::parse(Path::new("the demo's configuration"), &text)?;
    let server = serve::start(config, Parts::ALL, stop.clone()).await?;
    let control = server.control.context("control has no address")?;
    screen.event(&format!("serve is up: log, stream, control and history in one process, gRPC on {control}"));
    make_hash_key(directory)?;
    let starting = SITES.map(|site| EdgeProcess::start(directory, site, control));
    let [first, second, third] = starting;
    let (first, second, third) = tokio::try_join!(first, second, third)?;
    let edges = vec![first, second, third];
    let admin = AdminServiceClient::connect(format!("http://{control}")).await.context("connecting to control")?;
    let mut stage = Stage { screen, server, edges, admin, ordinary: Arc::default(), rate: Rate::default(), stop };
    wait_for_edges(&mut stage).await?;
    stage.screen.event(&format!("three edges are up and attached: {}", SITES.join(", ")));
    stage.ordinary = start_ordinary(&stage.sockets(), args.accounts, args.rate, seed, &stage.stop);
    stage.screen.event(&format!(
        "{} accounts send {} messages a second: people at work, a newsletter, a printer",
        args.accounts, args.rate
    ));
    Ok(stage)
}

async fn wait_for_edges(stage: &mut Stage) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let edges = stage.admin.list_edges(v1::ListEdgesRequest {}).await?.into_inner().edges;
        if edges.iter().filter(|edge| edge.connected).count() == SITES.len() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("only {} of {} edges attached to control", edges.len(), SITES.len());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn play(args: &DemoArgs, stage: &mut Stage, seed: u64) -> anyhow::Result<Report> {
    let request = v1::WatchAccountsRequest { filter: None, initial: false };
    let mut changes = stage.admin.watch_accounts(request).await?.into_inner();
    let warm = tokio::time::Instant::now() + args.warm_up;
    while tokio::time::Instant::now() < warm {
        stage.status("ordinary traffic");
        tokio::time::sleep(REFRESH.min(args.warm_up)).await;
    }
    let (attempts, thief) = (Attempts::default(), stage.stop.child_token());
    stage.screen.event(&format!("{VICTIM} is hijacked: {} messages a second at all sites", args.thief_rate));
    start_thief(&stage.sockets(), args.thief_rate, &attempts, &thief);
    try_another(stage).await?;

    let locked = wait_for_lock(stage, &mut changes, &attempts).await?;
    let lock = locked.as_ref().and_then(|state| state.lock.clone());
    if let Some(lock) = &lock {
        stage.screen.event(&format!("locked by rule {} ({}):", rule_name(lock), lock.id));
        let predicate = predicate_of(&mut stage.admin, &rule_name(lock)).await?;
        stage.screen.detail(&format!("it holds when {predicate}"));
        let held = lock.evidence.iter().map(|one| (one.column.as_str(), one.value));
        stage.screen.detail(&format!("it held with {}", evidence_text(held)));
        wait_for_refusals(stage, &attempts).await;
    }
    thief.cancel();
    let tried = attempts.all();
    let decided_on_ms = lock.as_ref().map_or(f64::MAX, |lock| lock.since_ms as f64);
    let (edges, slipped_through) = measure(&tried, decided_on_ms, &SITES);
    let reply = tried.iter().find_map(|attempt| match &attempt.outcome {
        Outcome::Refused(reply) => Some(reply.clone()),
        Outcome::Accepted => None,
    });
    if let Some(reply) = &reply {
        stage.screen.event(&format!("the thief's program is told: {reply}"));
    }
    let unlocked_ms = if lock.is_some() { unlock(stage).await? } else { None };
    let history = match &lock {
        Some(lock) => {
            let accepted = tried.iter().filter(|attempt| attempt.outcome == Outcome::Accepted).count() as u64;
            let other = people::login(TRIED);
            let messages = accepted + TRIALS;
            let expected = Expected { account: VICTIM, lock: &lock.id, other: &other, messages };
            let address = stage.server.history.context("the history has no address")?;
            stage.status("the history is asked");
            Some(question::ask(address, &expected).await?)
        }
        None => None,
    };
    Ok(Report {
        events: counted_events(stage.server.ops).await?,
        accounts: args.accounts,
        locked: lock.map(|lock| Locked {
            account: VICTIM.to_owned(),
            rule: rule_name(&lock),
            evidence: lock.evidence.iter().map(|one| (one.column.clone(), one.value)).collect(),
            id: lock.id,
            reply: reply.unwrap_or_default(),
        }),
        edges,
        slipped_through,
        ordinary_accepted: stage.ordinary.accepted.load(Ordering::Relaxed),
        ordinary_refused: stage.ordinary.refused.load(Ordering::Relaxed),
        sessions_broken: stage.ordinary.broken.load(Ordering::Relaxed),
        unlocked_ms,
        history,
        seed,
    })
}

/// The thief also has another account, and tries from the same address whether it sends.
async fn try_another(stage: &mut Stage) -> anyhow::Result<()> {
    let socket = stage.edges[0].socket.clone();
    let mut session = None;
    for number in 0..TRIALS {
        if let Outcome::Refused(reply) = submit(&mut session, &socket, &people::trial(number)).await? {
            tracing::warn!(%reply, "mail of an account that did little was refused");
            stage.ordinary.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Until the victim's state says that it is locked; none when patience ends.
async fn wait_for_lock(
    stage: &mut Stage,
    changes: &mut tonic::Streaming<v1::WatchAccountsResponse>,
    attempts: &Attempts,
) -> anyhow::Result<Option<v1::AccountState>> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let sent = attempts.all().len();
        stage.status(&format!("hijacked account: {sent} messages sent"));
        let Ok(change) = tokio::time::timeout(REFRESH, changes.message()).await else { continue };
        let Some(change) = change.context("watching accounts")? else { bail!("control ended the watch") };
        let Some(v1::watch_accounts_response::Kind::State(state)) = change.kind else { continue };
        if state.account == VICTIM && state.status() == v1::AccountStatus::Locked {
            return Ok(Some(state));
        }
        stage.screen.event(&format!("{} changed: {}", state.account, state.status().as_str_name()));
    }
    Ok(None)
}

async fn wait_for_refusals(stage: &mut Stage, attempts: &Attempts) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut told = [false; SITES.len()];
    while told.contains(&false) && tokio::time::Instant::now() < deadline {
        for attempt in attempts.all() {
            if attempt.outcome != Outcome::Accepted && !told[attempt.site] {
                told[attempt.site] = true;
                stage.screen.event(&format!("{} refuses it", SITES[attempt.site]));
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(AFTER_LOCK).await;
}

/// Unlocks the account and sends with it at every site until all accept; gives how long that took.
async fn unlock(stage: &mut Stage) -> anyhow::Result<Option<f64>> {
    let began_ms = now_ms();
    let request = v1::UnlockAccountRequest {
        account: VICTIM.to_owned(),
        actor: "demo".to_owned(),
        reason: "the owner was called back and has a new password".to_owned(),
        unlock: Some(v1::UnlockCommand {
            evidence: Some(v1::UnlockEvidence {
                password_changed_ms: Some(began_ms as i64),
                note: "changed on the phone".to_owned(),
            }),
            probation_ms: Some(0),
        }),
        wait_ms: 10_000,
    };
    let answer = stage.admin.unlock_account(request).await.context("unlocking the account")?.into_inner();
    if !answer.applied {
        stage.screen.event("the unlock was accepted, but not applied in time");
        return Ok(None);
    }
    let (sockets, mut sessions) = (stage.sockets(), [None, None, None]);
    let mut passed = [false; SITES.len()];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for number in 0.. {
        for (site, socket) in sockets.iter().enumerate().filter(|(site, _)| !passed[*site]).collect::<Vec<_>>() {
            passed[site] = submit(&mut sessions[site], socket, &own_letter(number)).await? == Outcome::Accepted;
        }
        if passed == [true; SITES.len()] {
            break;
        }
        if tokio::time::Instant::now() > deadline {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let unlocked_ms = round(now_ms() - began_ms);
    stage.screen.event(&format!("unlocked by an administrator: it sends again at all sites after {unlocked_ms:.1} ms"));
    // Its old messages must not lock it again.
    let until = tokio::time::Instant::now() + AFTER_UNLOCK;
    for number in 1000.. {
        if tokio::time::Instant::now() > until {
            break;
        }
        for (session, socket) in sessions.iter_mut().zip(&sockets) {
            if let Outcome::Refused(reply) = submit(session, socket, &own_letter(number)).await? {
                stage.screen.event(&format!("it was refused again after the unlock: {reply}"));
                return Ok(None);
            }
        }
        stage.status("the unlocked account writes again");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(Some(unlocked_ms))
}

/// `tidegate_stream_events_total{result="counted"}`, as an operator would read it.
async fn counted_events(ops: std::net::SocketAddr) -> anyhow::Result<u64> {
    let mut stream = tokio::net::TcpStream::connect(ops).await.context("reading the metrics")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let line = text.lines().find(|line| line.starts_with("tidegate_stream_events_total{result=\"counted\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).context("the metrics do not tell the events counted")
}

/// The rule's SQL predicate, as control tells it.
async fn predicate_of(admin: &mut AdminServiceClient<Channel>, rule: &str) -> anyhow::Result<String> {
    let sets = admin.list_rules(v1::ListRulesRequest {}).await.context("listing the rules")?.into_inner().rule_sets;
    let mut rules = sets.into_iter().flat_map(|set| set.rules);
    rules.find(|one| one.name == rule).map(|one| one.predicate).context("the rule that locked is not listed")
}

fn rule_name(lock: &v1::Lock) -> String {
    lock.rule.as_ref().map(|rule| rule.name.clone()).unwrap_or_default()
}

fn stay(stage: &Stage, directory: &Path) {
    let program = std::env::current_exe().map_or_else(|_| "tidegate".to_owned(), |path| path.display().to_string());
    if let Some(control) = stage.server.control {
        println!("\nIt stays up until you press Ctrl-C. Try:\n");
        println!("  export TIDEGATE_SERVER=http://{control}");
        for command in [
            "accounts list --status any".to_owned(),
            format!("accounts show {VICTIM}"),
            "accounts lock anna.0@example.org --reason 'trying it'".to_owned(),
            "accounts watch".to_owned(),
            "edges".to_owned(),
            "rules list".to_owned(),
        ] {
            println!("  {program} {command}");
        }
        if let Some(history) = stage.server.history {
            println!("\n  export TIDEGATE_HISTORY=http://{history}");
            println!("  {program} accounts history {VICTIM}");
            println!("  {program} sql \"SELECT * FROM locks\"");
            println!("  {program} sql\n");
        }
        println!("  curl http://{}/metrics", stage.server.ops);
        println!("\nEverything lies in {}, and goes with it.", directory.display());
        for (site, edge) in SITES.iter().zip(&stage.edges) {
            println!("  {site}: {}", edge.config.display());
        }
    }
}

impl Stage {
    fn sockets(&self) -> Vec<PathBuf> {
        self.edges.iter().map(|edge| edge.socket.clone()).collect()
    }

    fn status(&mut self, what: &str) {
        let accepted = self.ordinary.accepted.load(Ordering::Relaxed);
        let per_s = self.rate.update(accepted, Instant::now());
        self.screen.status(&format!("{accepted} ordinary messages accepted, {per_s:.0} a second; {what}"));
    }
}
