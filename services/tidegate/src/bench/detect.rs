//! Windows and rules alone: one thread, no log.

use super::Scale;
use super::report::Figure;
use super::stopwatch::{Spent, thread_cpu};
use super::traffic::{Tail, Traffic};
use std::time::{Duration, Instant};
use tidegate_detect::{DEFAULT_RULES, DEFAULT_STATISTICS, Engine, EngineLimits, Mode, Rules, Statistics};

/// Six more than the shipped rules: twenty.
const MORE_RULES: &str = include_str!("rules.toml");
/// Events of each account in the day before.
const DAY_EVENTS: u64 = 15;
const DAY_US: i64 = 24 * 3_600 * 1_000_000;
/// Events of each account in a day while it is measured.
const LIVE_EVENTS: i64 = 216;
/// Any time will do.
const BEGIN_MS: i64 = 1_750_000_000_000;
const BATCH: u64 = 1_000;
const TOGETHER: u64 = 50;

/// Statistics, and twenty rules that act.
pub fn definitions() -> anyhow::Result<(Statistics, Rules)> {
    let told = |problems: Vec<tidegate_detect::Problem>| anyhow::anyhow!("the shipped definitions: {problems:?}");
    let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).map_err(told)?;
    let text = format!("{DEFAULT_RULES}\n{MORE_RULES}");
    let rules = Rules::parse("rules.toml", &text, &statistics).map_err(told)?.in_mode(Mode::Enforce);
    Ok((statistics, rules))
}

/// An engine of so many accounts with a day behind them; gives the time of its last event too.
pub fn engine(accounts: u64, traffic: &mut Traffic) -> anyhow::Result<(Engine, i64)> {
    let (statistics, rules) = definitions()?;
    let mut engine = Engine::new(statistics, rules, EngineLimits::default())?;
    let batches = accounts * DAY_EVENTS / BATCH;
    let step_us = DAY_US / (batches * BATCH).cast_signed();
    let mut now_ms = BEGIN_MS;
    for _ in 0..batches {
        now_ms += step_us * BATCH.cast_signed() / 1_000;
        engine.process(&traffic.batch(BATCH, now_ms, step_us)?)?;
    }
    Ok((engine, now_ms))
}

/// Measures with 20,000 and 200,000 accounts.
pub fn measure(scale: Scale) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for accounts in [20_000, scale.of(200_000)] {
        for tail in [Tail::Heavy, Tail::Flat] {
            figures.extend(measure_one(accounts, tail, scale)?);
        }
    }
    Ok(figures)
}

fn measure_one(accounts: u64, tail: Tail, scale: Scale) -> anyhow::Result<Vec<Figure>> {
    let mut traffic = Traffic::new(accounts, tail)?;
    let (mut engine, mut now_ms) = engine(accounts, &mut traffic)?;
    let settings = format!(
        "{accounts} accounts, {}, {} statistics, {} rules, batches of {BATCH}",
        tail.name(),
        engine.statistics().list().len(),
        engine.rules().list().len(),
    );
    let stats = engine.stats();
    let step_us = DAY_US / (accounts.cast_signed() * LIVE_EVENTS);
    let most = Duration::from_secs(scale.of(10));
    let (mut cpu, mut wall, mut events) = (Duration::ZERO, Duration::ZERO, 0);
    while wall < most {
        // Made before, and measured together: the system counts CPU time in steps of milliseconds.
        let mut batches = Vec::new();
        for _ in 0..TOGETHER {
            now_ms += (step_us * BATCH.cast_signed() + 999) / 1_000;
            batches.push(traffic.batch(BATCH, now_ms, step_us)?);
        }
        let (began, cpu_began) = (Instant::now(), thread_cpu());
        for batch in &batches {
            engine.process(batch)?;
        }
        let took = began.elapsed();
        cpu += cpu_began.zip(thread_cpu()).map_or(took, |(began, end)| end.saturating_sub(began));
        wall += took;
        events += BATCH * TOGETHER;
    }
    // A core's worth: other work on the machine does not count.
    let value = events as f64 / cpu.as_secs_f64();
    let spent = Spent { wall_s: wall.as_secs_f64(), cpu_s: Some(cpu.as_secs_f64()) };
    Ok(vec![
        Figure { value, ..Figure::rate("detect", settings.clone(), "events/s/core", events, spent) },
        Figure {
            what: "memory of windows",
            settings: format!(
                "{accounts} accounts, {}, {:.1} panes each",
                tail.name(),
                stats.panes as f64 / stats.accounts as f64
            ),
            value: stats.octets as f64 / stats.accounts as f64,
            p99: None,
            unit: "octets/account",
            n: stats.accounts as u64,
            wall_s: 0.0,
            cpu_s: None,
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_twenty_rules_that_act() {
        let (_, rules) = definitions().unwrap();
        assert_eq!((rules.list().len(), rules.mode()), (20, Mode::Enforce));
    }
}
