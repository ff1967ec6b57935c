//! `tidegate rules`: what is in force, and whether a file would be taken.

use super::connect::{ServerArgs, actor};
use super::format;
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_proto::v1;
use tidegate_stream::{RuleFiles, StreamConfig};

/// Lists or checks rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// List the rules in force
    #[command(after_help = "Examples:\n  tidegate rules list\n  tidegate rules list --json")]
    List(ListArgs),
    /// Check a rules file (and a statistics file) before it goes live; exit 2 when it has problems
    #[command(
        after_help = "Examples:\n  tidegate rules check rules.toml\n  tidegate rules check rules.toml --statistics statistics.sql"
    )]
    Check(CheckArgs),
    /// Switch a rule off at once, whatever its file says
    #[command(after_help = "Example:\n  tidegate rules disable too-strict --reason 'locks newsletters'")]
    Disable(SwitchArgs),
    /// Let a rule be as its file says again
    #[command(after_help = "Example:\n  tidegate rules enable too-strict --reason 'limit was raised'")]
    Enable(SwitchArgs),
}

#[derive(Debug, clap::Args)]
pub struct SwitchArgs {
    /// Name of the rule
    rule: String,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: String,
    /// Who asks; the user of this shell when not given, and the name in your credentials when you have some
    #[arg(long, env = "TIDEGATE_ACTOR")]
    actor: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Rules file (TOML)
    rules: PathBuf,
    /// Statistics file (SQL); the shipped one when not given
    #[arg(long)]
    statistics: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub async fn run(command: RulesCommand) -> anyhow::Result<ExitCode> {
    match command {
        RulesCommand::List(args) => list(args).await,
        RulesCommand::Check(args) => Ok(check(&args)),
        RulesCommand::Disable(args) => switch(args, true).await,
        RulesCommand::Enable(args) => switch(args, false).await,
    }
}

async fn switch(args: SwitchArgs, off: bool) -> anyhow::Result<ExitCode> {
    let (actor, reason) = (actor(args.actor, &args.server)?, args.reason);
    let request = v1::SwitchRuleRequest { rule: args.rule.clone(), off, actor, reason, wait_ms: 0 };
    let applied = args.server.connect().await?.switch_rule(request).await?.into_inner().applied;
    let is = if off { "off" } else { "as its file says" };
    if args.server.json {
        println!("{}", json!({ "rule": args.rule, "off": off, "applied": applied }));
    } else if applied {
        println!("rule {} is {is}, everywhere", args.rule);
    } else {
        println!("rule {} will be {is}: it is durable, but not all workers have told so yet", args.rule);
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let sets = args.server.connect().await?.list_rules(v1::ListRulesRequest {}).await?.into_inner().rule_sets;
    if args.server.json {
        let values: Vec<_> = sets.iter().map(set_json).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(first) = sets.first() else {
        println!("no stream worker has told its rules yet");
        return Ok(ExitCode::SUCCESS);
    };
    println!("version {} ({}), since {}", first.version, mode(first), format::time(first.since_ms));
    for other in sets.iter().filter(|other| other.version != first.version) {
        println!("but partition {} has version {} ({})", other.partition, other.version, mode(other));
    }
    for problem in &first.problems {
        println!("a newer file was not taken: {problem}");
    }
    let mut table = format::table(&["RULE", "ON", "HELD", "ACTION", "FOR", "WHEN", "REASON"]);
    for rule in &first.rules {
        table.add_row([
            rule.name.clone(),
            match (rule.enabled, rule.switched_off) {
                (true, _) => "yes",
                (false, true) => "switched off",
                (false, false) => "no",
            }
            .to_owned(),
            held(&sets, &rule.name).to_string(),
            rule.action.clone(),
            rule.for_ms.map_or_else(|| "-".to_owned(), span),
            rule.predicate.clone(),
            rule.reason.clone(),
        ]);
    }
    println!("{table}");
    let mut limits: Vec<String> = first.limits.iter().map(|(name, number)| format!("{name}={number}")).collect();
    limits.sort();
    if !limits.is_empty() {
        println!("limits: {}", limits.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

/// How often a rule held in all partitions, since their owners started.
fn held(sets: &[v1::RuleSet], rule: &str) -> u64 {
    let activity = sets.iter().flat_map(|set| &set.activity).filter(|activity| activity.rule == rule);
    activity.map(|activity| activity.matches).sum()
}

/// Checks the files; everything that is wrong goes to standard error.
pub fn check(args: &CheckArgs) -> ExitCode {
    let files = StreamConfig {
        rules: Some(args.rules.clone()),
        statistics: args.statistics.clone(),
        ..StreamConfig::default()
    };
    let problems = match RuleFiles::load(&files) {
        Ok((_, rules)) => {
            if args.json {
                println!("{}", json!({ "version": rules.version(), "mode": rules.mode().as_str(), "problems": [] }));
            } else {
                let enabled = rules.list().iter().filter(|rule| rule.enabled).count();
                println!(
                    "{} rules, {enabled} of them on, mode {}, version {}",
                    rules.list().len(),
                    rules.mode().as_str(),
                    rules.version()
                );
            }
            return ExitCode::SUCCESS;
        }
        Err(error) => error.lines().to_vec(),
    };
    if args.json {
        println!("{}", json!({ "problems": problems }));
    } else {
        for problem in problems {
            eprintln!("{problem}");
        }
    }
    ExitCode::from(2)
}

fn mode(set: &v1::RuleSet) -> &'static str {
    match set.mode() {
        v1::RuleMode::Observe => "observe: rules are only counted",
        v1::RuleMode::Enforce => "enforce",
        v1::RuleMode::Unspecified => "unknown mode",
    }
}

fn span(ms: i64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms.unsigned_abs())).to_string()
}

fn set_json(set: &v1::RuleSet) -> serde_json::Value {
    json!({
        "partition": set.partition,
        "version": set.version,
        "mode": mode(set),
        "since": format::time(set.since_ms),
        "problems": set.problems,
        "limits": set.limits,
        "activity": set.activity.iter().map(|activity| json!({
            "rule": activity.rule,
            "matches": activity.matches,
            "last": format::time(activity.last_ms),
            "recent": activity.recent.iter().map(|found| json!({
                "account": found.account,
                "at": format::time(found.at_ms),
                "action": found.action,
                "observed": found.observed,
                "evidence": format::evidence_json(&found.evidence),
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "rules": set.rules.iter().map(|rule| json!({
            "name": rule.name,
            "enabled": rule.enabled,
            "switched_off": rule.switched_off,
            "action": rule.action,
            "for_ms": rule.for_ms,
            "when": rule.predicate,
            "reason": rule.reason,
            "reply": rule.reply,
            "source": rule.source,
            "domains": rule.domains,
        })).collect::<Vec<_>>(),
    })
}
