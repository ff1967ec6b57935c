//! `tidegate topics`: look at Kafka's topics, or make them, before services run on them.

use super::format;
use crate::config::ServerConfig;
use crate::serve::ConfigurationError;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_bus::BusConfig;
use tidegate_bus::kafka::{ExaminedTopic, TopicsExamined, examine_topics};
use tidegate_runtime::config;

/// Kafka did not answer: the same may succeed later (`EX_TEMPFAIL`).
const TRY_AGAIN: u8 = 75;

#[derive(Debug, clap::Subcommand)]
pub enum TopicsCommand {
    /// Tell whether all topics are there, with the right partitions and cleanup policies
    ///
    /// Exit code 0: they are. 1: some are wrong or missing, and nothing may run on them. 2: the configuration is wrong.
    /// 75: Kafka did not answer; try again.
    #[command(
        after_help = "Examples:\n  tidegate topics check --config /etc/tidegate/tidegate.toml\n  tidegate topics check --config tidegate.toml --json | jq '.[] | select(.problems != [])'"
    )]
    Check(TopicsArgs),
    /// Make those that are missing, unless one that is there is wrong; otherwise as `check`
    #[command(after_help = "Example:\n  tidegate topics create --config /etc/tidegate/tidegate.toml")]
    Create(TopicsArgs),
}

#[derive(Debug, clap::Args)]
pub struct TopicsArgs {
    /// The server's configuration; of it only [log] counts, whatever its create_topics says
    #[arg(long, short, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
    /// One JSON value instead of text for people
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub async fn run(command: TopicsCommand) -> anyhow::Result<ExitCode> {
    let (args, create) = match command {
        TopicsCommand::Check(args) => (args, false),
        TopicsCommand::Create(args) => (args, true),
    };
    let config: ServerConfig = config::load(&args.config).map_err(ConfigurationError::new)?;
    let BusConfig::Kafka(kafka) = config.log else {
        let file = args.config.display();
        return Err(ConfigurationError::text(format!(
            "{file}: log.kind is \"embedded\"; only Kafka has topics to look at, the embedded log makes its own"
        ))
        .into());
    };
    let examined = match examine_topics(kafka, create).await {
        Ok(examined) => examined,
        Err(error) if error.is_retryable() => {
            eprintln!("tidegate: {:#}", anyhow::Error::new(error));
            return Ok(ExitCode::from(TRY_AGAIN));
        }
        Err(error) => return Err(error.into()),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&examined.topics.iter().map(topic_json).collect::<Vec<_>>())?);
    } else {
        tell(&examined);
    }
    Ok(if examined.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(examined: &TopicsExamined) {
    let mut table = format::table(&["TOPIC", "PARTITIONS", "REPLICAS", "CLEANUP", "STATE"]);
    let or_dash = |number: usize| if number == 0 { "-".to_owned() } else { number.to_string() };
    for topic in &examined.topics {
        let state = match topic {
            ExaminedTopic { partitions: 0, .. } => "missing",
            topic if !topic.problems.is_empty() => "wrong",
            ExaminedTopic { created: true, .. } => "created",
            _ => "fine",
        };
        let policy = topic.cleanup_policy.as_deref().unwrap_or("-");
        table.add_row([&topic.name, &or_dash(topic.partitions), &or_dash(topic.replicas), policy, state]);
    }
    println!("{table}");
    for topic in &examined.topics {
        for warning in &topic.warnings {
            eprintln!("tidegate: topic {}: {warning}", topic.name);
        }
    }
    let problems: Vec<String> = examined
        .topics
        .iter()
        .flat_map(|topic| topic.problems.iter().map(|problem| format!("  {}: {problem}", topic.name)))
        .collect();
    match problems.len() {
        0 => {}
        1 => eprintln!("tidegate: 1 problem with the topics\n{}", problems[0]),
        count => eprintln!("tidegate: {count} problems with the topics\n{}", problems.join("\n")),
    }
}

fn topic_json(topic: &ExaminedTopic) -> serde_json::Value {
    json!({
        "topic": topic.name,
        "partitions": topic.partitions,
        "replicas": topic.replicas,
        "cleanup_policy": topic.cleanup_policy,
        "created": topic.created,
        "problems": topic.problems,
        "warnings": topic.warnings,
    })
}
