//! How long a mail server waits for the edge's answer to MAIL.

use super::Scale;
use super::report::Figure;
use super::stage::Stage;
use super::stopwatch::{Stopwatch, quantile};
use crate::demo::milter::{Mail, Outcome, Session};
use crate::demo::people::People;
use anyhow::{Context as _, bail};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Measures with one session, and with a thousand that are open and send a mail twice a second each.
pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::start("", None).await?;
    let alone = measure_one(&stage.edge.socket, 1, scale.of(20_000), Duration::ZERO).await?;
    let many = measure_one(&stage.edge.socket, 1_000, scale.of(20), Duration::from_millis(500)).await?;
    stage.end().await?;
    Ok(vec![alone, many])
}

async fn measure_one(socket: &Path, sessions: u64, each: u64, pause: Duration) -> anyhow::Result<Figure> {
    let mut open = Vec::new();
    for _ in 0..sessions {
        open.push(Session::open(socket).await?);
    }
    let watch = Stopwatch::start();
    let mut all = JoinSet::new();
    for (number, session) in open.into_iter().enumerate() {
        let mail = People::new(3_000, number as u64).next();
        // Spread over the pause, as people are.
        let first = pause.mul_f64(number as f64 / sessions as f64);
        all.spawn(ask(session, mail, each, first, pause));
    }
    let mut times_us = Vec::new();
    while let Some(asked) = all.join_next().await {
        times_us.extend(asked.context("a session's task failed")??);
    }
    let spent = watch.spent();
    times_us.sort_by(f64::total_cmp);
    let n = times_us.len() as u64;
    let settings = format!("{sessions} milter sessions on a unix socket, {:.0} MAIL/s", n as f64 / spent.wall_s);
    let figure = Figure::rate("edge's answer to MAIL", settings, "µs", n, spent);
    Ok(Figure { value: quantile(&times_us, 0.5), p99: Some(quantile(&times_us, 0.99)), ..figure })
}

async fn ask(
    mut session: Session,
    mail: Mail,
    each: u64,
    first: Duration,
    pause: Duration,
) -> anyhow::Result<Vec<f64>> {
    let mut times_us = Vec::new();
    tokio::time::sleep(first).await;
    for _ in 0..each {
        let began = Instant::now();
        if let Outcome::Refused(reply) = session.try_mail(&mail).await? {
            bail!("{} was refused: {reply}", mail.login);
        }
        times_us.push(began.elapsed().as_secs_f64() * 1_000_000.0);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(times_us)
}
