//! `tidegate token`: makes, lists and revokes tokens in the file that the service watches.

use super::format::{self, now_ms};
use anyhow::{Error, bail};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidegate_access::{Grant, NewEnrolment, NewToken, Role, TokenFile, TokenRecord};

/// How long a token counts unless something else is said: long enough to plan its exchange, short enough that one that
/// was forgotten ends.
const DEFAULT_LIFETIME: &str = "90d";
/// How long a token for enrolment counts: it is used at once, or the host is not ready.
const DEFAULT_ENROLMENT_LIFETIME: Duration = Duration::from_hours(1);

#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once
    #[command(
        after_help = "Examples:\n  tidegate token create --name jo --role operator > jo.token\n  tidegate token create --name shop --role viewer --domain example.org --domain example.net --expires 30d\n  tidegate token create --enrol ams/mx1.example.org --expires 1h | ssh mx1 tidegate-edge enrol --token-file - --control control.example.org:7710 --ca /etc/tidegate/ca.pem"
    )]
    Create(CreateArgs),
    /// List tokens, without their secrets
    #[command(after_help = "Example:\n  tidegate token list --json | jq '.[] | select(.valid | not)'")]
    List(FileArgs),
    /// Revoke a token: within a second nobody gets in with it, and what was open with it ends
    #[command(after_help = "Example:\n  tidegate token revoke 0123456789ab")]
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Who will use it: the name that stands in the audit
    #[arg(long, required_unless_present = "enrol")]
    name: Option<String>,
    /// What they may do
    #[arg(long, value_parser = role, required_unless_present = "enrol")]
    role: Option<Role>,
    /// Instead: one mail host gets its certificate with it, once (`tidegate-edge enrol`)
    #[arg(long, value_name = "SITE/NODE", conflicts_with_all = ["name", "role", "domains"])]
    enrol: Option<String>,
    /// Only about accounts of this domain (again for more); otherwise about all
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// How long it counts, e.g. 90d, 12h, or never; 90d unless said, for enrolment 1h
    #[arg(long, alias = "ttl", value_parser = lifetime)]
    expires: Option<Lifetime>,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    /// The token's id, as `tidegate token list` shows it
    id: String,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// The file of tokens, as `access.tokens` of the service says
    #[arg(long, env = "TIDEGATE_TOKENS", default_value = "/etc/tidegate/tokens.toml")]
    file: PathBuf,
    /// One JSON value instead of text for people
    #[arg(long)]
    json: bool,
}

/// None: without end.
#[derive(Debug, Clone, Copy)]
struct Lifetime(Option<Duration>);

/// Runs the command.
pub fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Create(args) => create(args)?,
        TokenCommand::List(args) => list(&args)?,
        TokenCommand::Revoke(args) => revoke(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: CreateArgs) -> anyhow::Result<()> {
    let CreateArgs { name, role, enrol, domains, expires, file: FileArgs { file, json } } = args;
    let (token, record) = match (enrol, name, role) {
        (Some(edge), _, _) => {
            let lifetime = match expires {
                Some(Lifetime(None)) => bail!("a token for enrolment has an end: --expires 1h"),
                Some(Lifetime(Some(lifetime))) => lifetime,
                None => DEFAULT_ENROLMENT_LIFETIME,
            };
            let Some((site, node)) = edge.split_once('/') else { bail!("--enrol {edge}: write SITE/NODE") };
            let new = NewEnrolment { site: site.to_owned(), node: node.to_owned(), lifetime };
            TokenFile::create_enrolment(&file, new, now_ms())?
        }
        (None, Some(name), Some(role)) => {
            let Lifetime(lifetime) = expires.map_or_else(|| lifetime(DEFAULT_LIFETIME), Ok).map_err(Error::msg)?;
            let new = NewToken { name, role, domains: (!domains.is_empty()).then_some(domains), lifetime };
            TokenFile::create(&file, new, now_ms())?
        }
        _ => bail!("--name and --role are needed, or --enrol"),
    };
    if json {
        let mut value = token_json(&record);
        value["token"] = token.reveal().into();
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        // Alone on standard output, so that it can go straight into a file.
        println!("{}", token.reveal());
        let until =
            record.expires_ms.map_or_else(|| "without end".to_owned(), |ms| format!("until {}", format::time(ms)));
        eprintln!(
            "token {} of {} ({}, {}) counts {until}; it is shown this once and not kept in {}",
            record.id,
            record.name,
            role_text(&record),
            domains_text(&record),
            file.display(),
        );
    }
    Ok(())
}

fn list(args: &FileArgs) -> anyhow::Result<()> {
    let file = TokenFile::load(&args.file)?;
    let tokens = file.list();
    if args.json {
        let values: Vec<_> = tokens.into_iter().map(token_json).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(());
    }
    if tokens.is_empty() {
        println!("there are no tokens in {}", args.file.display());
        return Ok(());
    }
    let mut table = format::table(&["ID", "NAME", "ROLE", "DOMAINS", "CREATED", "EXPIRES", "STATE"]);
    for token in tokens {
        let state = match token.revoked_ms {
            Some(ms) => format!("revoked {}", format::time(ms)),
            None if token.used_ms.is_some() => "used".to_owned(),
            None if token.is_expired(now_ms()) => "expired".to_owned(),
            None => "valid".to_owned(),
        };
        table.add_row([
            token.id.clone(),
            token.name.clone(),
            role_text(token).to_owned(),
            domains_text(token),
            format::time(token.created_ms),
            token.expires_ms.map_or_else(|| "never".to_owned(), format::time),
            state,
        ]);
    }
    println!("{table}");
    Ok(())
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let record = TokenFile::revoke(&args.file.file, &args.id, now_ms())?;
    if args.file.json {
        println!("{}", serde_json::to_string_pretty(&token_json(&record))?);
    } else {
        println!("token {} of {} is revoked", record.id, record.name);
    }
    Ok(())
}

fn token_json(token: &TokenRecord) -> serde_json::Value {
    json!({
        "id": token.id,
        "name": token.name,
        "role": role_text(token),
        "domains": match &token.grant {
            Grant::Person { scope, .. } => scope.limited_to(),
            Grant::Enrol { .. } => None,
        },
        "enrols": match &token.grant {
            Grant::Person { .. } => None,
            Grant::Enrol { site, node } => Some(format!("{site}/{node}")),
        },
        "created": format::time(token.created_ms),
        "expires": token.expires_ms.map(format::time),
        "revoked": token.revoked_ms.map(format::time),
        "used": token.used_ms.map(format::time),
        "valid": token.is_valid(now_ms()),
    })
}

/// `enrolment` for one that is no person's.
fn role_text(token: &TokenRecord) -> &'static str {
    match &token.grant {
        Grant::Person { role, .. } => role.as_str(),
        Grant::Enrol { .. } => "enrolment",
    }
}

fn domains_text(token: &TokenRecord) -> String {
    let scope = match &token.grant {
        Grant::Person { scope, .. } => scope,
        Grant::Enrol { site, node } => return format!("{site}/{node}, once"),
    };
    match scope.limited_to() {
        None => "all domains".to_owned(),
        Some(domains) => domains.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

fn role(text: &str) -> Result<Role, String> {
    let roles = Role::ALL.map(Role::as_str);
    Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| format!("allowed: {}", roles.join(", ")))
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    humantime::parse_duration(text).map(|lifetime| Lifetime(Some(lifetime))).map_err(|error| error.to_string())
}
