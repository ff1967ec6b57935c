//! `tidegate bench`: what it can do on this machine, measured on the real parts, as a table or as JSON.

mod admin;
mod checkpoint;
mod detect;
mod edge;
mod history;
mod latency;
mod machine;
mod pipeline;
mod report;
mod spool;
mod stage;
mod stopwatch;
mod traffic;

use clap::ValueEnum;
use report::{Figure, Report};
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_runtime::shutdown;
use tidegate_runtime::telemetry::{self, LogConfig, LogFormat};

/// Measures it on this machine: events a second, seconds to a refusal, octets an account.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate bench\n  tidegate bench detect checkpoint --quick\n  \
                        tidegate bench --kafka 127.0.0.1:9092 --json > bench.json\n\n\
                        Build it with --release first; every part makes its own data in a folder that it deletes.")]
pub struct BenchArgs {
    /// What to measure; everything when none is named
    parts: Vec<Part>,
    /// Kafka brokers, to measure from there too; topics `tidegate-bench-...` are made and left there
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Where the history's tables are made, and left: to ask other engines the same questions
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
    /// A tenth of the work: figures are rough
    #[arg(long)]
    quick: bool,
    /// One JSON object at the end instead of a table
    #[arg(long)]
    json: bool,
}

/// A part that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Windows and rules alone
    Detect,
    /// From the log through windows and rules
    Pipeline,
    /// From the message that crosses a limit to the refusal at the edge
    Latency,
    /// The edge's answer to MAIL
    Edge,
    /// The edge's spool on disk
    Spool,
    /// Windows written down and taken up
    Checkpoint,
    /// Lists over many accounts, and pushes to edges while many watch slowly
    Admin,
    /// Events into the history's tables, and analysts' questions over them
    History,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
struct Scale {
    quick: bool,
}

impl Scale {
    /// `full`, or about a tenth of it.
    fn of(self, full: u64) -> u64 {
        if self.quick { full.div_ceil(10) } else { full }
    }
}

/// Measures and prints.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    telemetry::init(&LogConfig { format: LogFormat::Human, filter: "error".to_owned() });
    let stop = shutdown::on_signal()?;
    let measured = tokio::select! {
        measured = measure(&args) => measured?,
        () = stop.cancelled() => anyhow::bail!("interrupted"),
    };
    let report = Report::new(args.quick, measured);
    println!("{}", if args.json { serde_json::to_string_pretty(&report)? } else { report.to_string() });
    Ok(ExitCode::SUCCESS)
}

async fn measure(args: &BenchArgs) -> anyhow::Result<Vec<Figure>> {
    let scale = Scale { quick: args.quick };
    let parts = if args.parts.is_empty() { Part::value_variants().to_vec() } else { args.parts.clone() };
    let mut figures = Vec::new();
    for part in parts {
        eprintln!(
            "measuring: {}",
            part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
        );
        let kafka = args.kafka.as_deref();
        let measured = match part {
            Part::Detect => tokio::task::spawn_blocking(move || detect::measure(scale)).await??,
            Part::Pipeline => pipeline::measure(scale, kafka).await?,
            Part::Latency => latency::measure(scale, kafka).await?,
            Part::Edge => edge::measure(scale).await?,
            Part::Spool => tokio::task::spawn_blocking(move || spool::measure(scale)).await??,
            Part::Checkpoint => checkpoint::measure(scale).await?,
            Part::Admin => admin::measure(scale).await?,
            Part::History => history::measure(scale, args.tables.as_deref()).await?,
        };
        for figure in &measured {
            eprintln!("  {figure}");
        }
        figures.extend(measured);
    }
    Ok(figures)
}
