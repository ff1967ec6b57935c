//! `tidegate token`: makes, lists and revokes tokens in the file that the service watches.

use super::format::{self, now_ms};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidegate_access::{NewToken, Role, TokenFile, TokenRecord};

/// How long a token counts unless something else is said: long enough to plan its exchange, short enough that one that
/// was forgotten ends.
const DEFAULT_LIFETIME: &str = "90d";

#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once
    #[command(
        after_help = "Examples:\n  tidegate token create --name jo --role operator > jo.token\n  tidegate token create --name shop --role viewer --domain example.org --domain example.net --expires 30d"
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
    #[arg(long)]
    name: String,
    /// What they may do
    #[arg(long, value_parser = role)]
    role: Role,
    /// Only about accounts of this domain (again for more); otherwise about all
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// How long it counts, e.g. 90d, 12h, or never
    #[arg(long, default_value = DEFAULT_LIFETIME, value_parser = lifetime)]
    expires: Lifetime,
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
    let CreateArgs { name, role, domains, expires: Lifetime(lifetime), file: FileArgs { file, json } } = args;
    let new = NewToken { name, role, domains: (!domains.is_empty()).then_some(domains), lifetime };
    let (token, record) = TokenFile::create(&file, new, now_ms())?;
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
            record.role.as_str(),
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
            None if token.is_expired(now_ms()) => "expired".to_owned(),
            None => "valid".to_owned(),
        };
        table.add_row([
            token.id.clone(),
            token.name.clone(),
            token.role.as_str().to_owned(),
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
        "role": token.role.as_str(),
        "domains": token.scope.limited_to(),
        "created": format::time(token.created_ms),
        "expires": token.expires_ms.map(format::time),
        "revoked": token.revoked_ms.map(format::time),
        "valid": token.is_valid(now_ms()),
    })
}

fn domains_text(token: &TokenRecord) -> String {
    match token.scope.limited_to() {
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
