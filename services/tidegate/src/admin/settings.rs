//! `tidegate settings`: what administrators set at run time beside the files.

use super::actions::millis;
use super::connect::{ServerArgs, actor};
use super::format;
use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_proto::v1::setting::Kind;

/// Lists settings, exempts domains, sets other limits.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// List what was set
    #[command(after_help = "Examples:\n  tidegate settings list\n  tidegate settings list --json")]
    List(ListArgs),
    /// Let rules pass all accounts of a domain by for a time
    #[command(
        after_help = "Example:\n  tidegate settings exempt-domain news.example.org --rule same-size-burst --for 90d --reason 'newsletter contract'"
    )]
    ExemptDomain(ExemptDomainArgs),
    /// Take a domain's exemption back
    #[command(after_help = "Example:\n  tidegate settings clear-domain news.example.org --reason 'contract ended'")]
    ClearDomain(ClearArgs),
    /// Set other limits for a domain or an account
    #[command(
        after_help = "Examples:\n  tidegate settings limits example.org recipients_1h_corroborated=2000 --reason 'large customer'\n  tidegate rules list   # names and numbers of the limits"
    )]
    Limits(LimitsArgs),
    /// Take the other limits of a domain or an account back
    #[command(after_help = "Example:\n  tidegate settings clear-limits jo@example.org --reason 'campaign is over'")]
    ClearLimits(ClearArgs),
}

#[derive(Debug, clap::Args)]
struct WhyArgs {
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
pub struct ExemptDomainArgs {
    /// The domain
    domain: String,
    /// Only this rule (may be repeated); all rules when not given
    #[arg(long)]
    rule: Vec<String>,
    /// For how long, e.g. 180d; until it is taken back when not given
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
    #[command(flatten)]
    why: WhyArgs,
}

#[derive(Debug, clap::Args)]
pub struct ClearArgs {
    /// The domain, or the account
    subject: String,
    #[command(flatten)]
    why: WhyArgs,
}

#[derive(Debug, clap::Args)]
pub struct LimitsArgs {
    /// A domain, or an account
    subject: String,
    /// A limit of the rules file and its number
    #[arg(required = true, value_name = "NAME=NUMBER", value_parser = limit)]
    limits: Vec<(String, f64)>,
    #[command(flatten)]
    why: WhyArgs,
}

/// Runs one of the commands.
pub async fn run(command: SettingsCommand) -> anyhow::Result<ExitCode> {
    match command {
        SettingsCommand::List(args) => list(args).await,
        SettingsCommand::ExemptDomain(args) => {
            let until_ms = args.span.map(|span| format::now_ms().saturating_add(millis(span)));
            exempt(v1::DomainExemption { domain: args.domain, rules: args.rule, until_ms }, false, args.why).await
        }
        SettingsCommand::ClearDomain(args) => {
            let exemption = v1::DomainExemption { domain: args.subject, ..Default::default() };
            exempt(exemption, true, args.why).await
        }
        SettingsCommand::Limits(args) => set_limits(args.subject, args.limits.into_iter().collect(), args.why).await,
        SettingsCommand::ClearLimits(args) => set_limits(args.subject, HashMap::new(), args.why).await,
    }
}

async fn exempt(exemption: v1::DomainExemption, remove: bool, why: WhyArgs) -> anyhow::Result<ExitCode> {
    let (actor, reason) = (actor(why.actor, &why.server)?, why.reason);
    let request = v1::ExemptDomainRequest { exemption: Some(exemption), remove, actor, reason };
    why.server.connect().await?.exempt_domain(request).await?;
    Ok(done(&why.server))
}

async fn set_limits(subject: String, limits: HashMap<String, f64>, why: WhyArgs) -> anyhow::Result<ExitCode> {
    let (actor, reason) = (actor(why.actor, &why.server)?, why.reason);
    let request = v1::SetLimitsRequest { limits: Some(v1::LimitsFor { subject, limits }), actor, reason };
    why.server.connect().await?.set_limits(request).await?;
    Ok(done(&why.server))
}

fn done(server: &ServerArgs) -> ExitCode {
    if server.json {
        println!("{}", json!({ "written": true }));
    } else {
        println!("it is durable, and in force within a second");
    }
    ExitCode::SUCCESS
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let settings = args.server.connect().await?.list_settings(v1::ListSettingsRequest {}).await?.into_inner().settings;
    if args.server.json {
        let values: Vec<_> = settings.iter().map(setting_json).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(ExitCode::SUCCESS);
    }
    if settings.is_empty() {
        println!("nothing was set: everything is as in the files");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = format::table(&["SETTING", "VALUE", "SINCE", "BY", "WHY"]);
    for setting in &settings {
        let since = format::ago(setting.set_ms);
        table.add_row([&setting.key, &value(setting), &since, &setting.actor, &setting.reason]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

fn value(setting: &v1::Setting) -> String {
    match &setting.kind {
        Some(Kind::RuleSwitch(switch)) => if switch.off { "off" } else { "on" }.to_owned(),
        Some(Kind::DomainExemption(exemption)) => {
            let rules = if exemption.rules.is_empty() { "all rules".to_owned() } else { exemption.rules.join(", ") };
            let until =
                exemption.until_ms.map_or_else(|| "for good".to_owned(), |ms| format!("until {}", format::time(ms)));
            format!("exempt from {rules}, {until}")
        }
        Some(Kind::Limits(limits)) => {
            sorted(limits).map(|(name, number)| format!("{name}={number}")).collect::<Vec<_>>().join(" ")
        }
        None => "of a newer version".to_owned(),
    }
}

fn setting_json(setting: &v1::Setting) -> Value {
    let value = match &setting.kind {
        Some(Kind::RuleSwitch(switch)) => json!({ "rule": switch.rule, "off": switch.off }),
        Some(Kind::DomainExemption(exemption)) => json!({
            "domain": exemption.domain,
            "rules": exemption.rules,
            "until": exemption.until_ms.map(format::time),
        }),
        Some(Kind::Limits(limits)) => {
            let numbers: serde_json::Map<_, _> =
                sorted(limits).map(|(name, number)| (name.clone(), json!(number))).collect();
            json!({ "subject": limits.subject, "limits": numbers })
        }
        None => Value::Null,
    };
    json!({
        "key": setting.key,
        "value": value,
        "set": format::time(setting.set_ms),
        "actor": setting.actor,
        "reason": setting.reason,
    })
}

fn sorted(limits: &v1::LimitsFor) -> impl Iterator<Item = (&String, &f64)> {
    let mut sorted: Vec<_> = limits.limits.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    sorted.into_iter()
}

fn limit(text: &str) -> anyhow::Result<(String, f64)> {
    let (name, number) = text.split_once('=').context("write NAME=NUMBER, e.g. recipients_1h_corroborated=2000")?;
    let number = number.parse().with_context(|| format!("{number:?} is no number"))?;
    Ok((name.to_owned(), number))
}
