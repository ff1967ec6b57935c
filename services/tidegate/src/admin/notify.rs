//! `tidegate notify`: see what people will be told, try a channel, and look after what could not be delivered.

use super::connect::ServerArgs;
use super::format;
use crate::config::ServerConfig;
use crate::serve::ConfigurationError;
use anyhow::{Context as _, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_notify::config::{MAIL_CHANNEL, WebhookTemplate};
use tidegate_notify::preview::sample;
use tidegate_notify::{Delivery, Kind, NotifyConfig, Outcome, Reader, Smtp, Templates, Webhook, compose, retry};
use tidegate_proto::v1;
use tidegate_runtime::config;

#[derive(Debug, clap::Subcommand)]
pub enum NotifyCommand {
    /// Show what would be sent, without sending it
    #[command(
        after_help = "Examples:\n  tidegate notify preview --kind lock --language de\n  tidegate notify preview --config tidegate.toml --kind unlock --administrator --html > unlock.html\n  tidegate notify preview --kind lock --webhook slack"
    )]
    Preview(PreviewArgs),
    /// Send one sample for real, to see whether a channel works
    #[command(
        after_help = "Examples:\n  tidegate notify test --config tidegate.toml --channel mail --to amy@example.org\n  tidegate notify test --config tidegate.toml --channel pager"
    )]
    Test(TestArgs),
    /// List what could not be delivered
    #[command(after_help = "Examples:\n  tidegate notify dead\n  tidegate notify dead --json | jq -r '.[].id'")]
    Dead(DeadArgs),
    /// Send one of them once more
    ///
    /// It is written to the log, from where whoever sends that partition's notifications takes it. The embedded log is
    /// open in one process at a time: stop `tidegate serve` for this, or use Kafka.
    #[command(after_help = "Example:\n  tidegate notify retry --config tidegate.toml 296c0a7ec9ba1b215d8deabda95d5953")]
    Retry(RetryArgs),
}

#[derive(Debug, clap::Args)]
pub struct PreviewArgs {
    /// The server's configuration, for its templates, name and contact; otherwise the shipped templates
    #[arg(long, short, env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// notice, throttle, lock, unlock or exemption
    #[arg(long, default_value = "lock")]
    kind: Kind,
    /// Language tag, e.g. de; otherwise the configured one
    #[arg(long)]
    language: Option<String>,
    /// The account that it is about
    #[arg(long, default_value = "jo@example.org")]
    account: String,
    /// As administrators get it, not the user
    #[arg(long)]
    administrator: bool,
    /// So many decisions in one message
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Only the HTML
    #[arg(long, conflicts_with_all = ["text", "webhook"])]
    html: bool,
    /// Only the plain text
    #[arg(long, conflicts_with = "webhook")]
    text: bool,
    /// The body for this webhook: a configured one's name, or generic, slack or alertmanager
    #[arg(long)]
    webhook: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// The server's configuration
    #[arg(long, short, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
    /// `mail`, or a webhook's name
    #[arg(long)]
    channel: String,
    /// Mail address
    #[arg(long, required_if_eq("channel", "mail"))]
    to: Option<String>,
    /// notice, throttle, lock, unlock or exemption
    #[arg(long, default_value = "lock")]
    kind: Kind,
    /// Language tag, e.g. de; otherwise the configured one
    #[arg(long)]
    language: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct DeadArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only about this account
    #[arg(long, default_value = "")]
    account: String,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// The server's configuration
    #[arg(long, short, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
    /// The notification's id
    id: String,
}

/// Runs the command.
pub async fn run(command: NotifyCommand) -> anyhow::Result<ExitCode> {
    match command {
        NotifyCommand::Preview(args) => preview(&args),
        NotifyCommand::Test(args) => test(&args).await,
        NotifyCommand::Dead(args) => dead(args).await,
        NotifyCommand::Retry(args) => send_once_more(&args).await,
    }
}

fn preview(args: &PreviewArgs) -> anyhow::Result<ExitCode> {
    let config = match &args.config {
        Some(file) => load(file)?.1,
        None => NotifyConfig::default(),
    };
    let templates = templates(&config)?;
    check_language(&templates, args.language.as_deref())?;
    let reader = if args.administrator || args.kind == Kind::Exemption { Reader::Administrator } else { Reader::User };
    let now_ms = now_ms();
    let notifications: Vec<v1::Notification> =
        (0..args.count).map(|number| sample(args.kind, &args.account, now_ms - i64::from(number) * 1000)).collect();
    if let Some(name) = &args.webhook {
        let configured = config.webhook.iter().find(|webhook| webhook.name == *name).map(|one| one.template.clone());
        let template = configured.unwrap_or_else(|| WebhookTemplate::from(name.clone()));
        if let WebhookTemplate::File(_) = &template
            && !config.webhook.iter().any(|webhook| webhook.name == *name)
        {
            bail!("there is no webhook {name:?} in the configuration, nor is it generic, slack or alertmanager");
        }
        let delivery = delivery(name, "preview", notifications);
        println!("{}", templates.body(&delivery, &template)?);
        return Ok(ExitCode::SUCCESS);
    }
    let written = templates.mail(&notifications, reader, args.language.as_deref(), &config.contact)?;
    if args.html {
        print!("{}", written.html);
    } else if args.text {
        print!("{}", written.text);
    } else {
        println!("Subject: {}\nContent-Language: {}\n\n{}", written.subject, written.language, written.text);
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let (file, config) = (&args.config, load(&args.config)?.1);
    let templates = templates(&config)?;
    check_language(&templates, args.language.as_deref())?;
    let to = args.to.clone().unwrap_or_default();
    let account = if to.is_empty() { "jo@example.org" } else { &to };
    let mut one = sample(args.kind, account, now_ms());
    if args.kind == Kind::Exemption {
        one.set_audience(v1::Audience::Provider);
    }
    // Each test is a message of its own.
    let mut message = delivery(&args.channel, &to, vec![one]);
    message.id = format!("test-{:032x}", rand::random::<u128>());
    let outcome = if args.channel == MAIL_CHANNEL {
        let Some(smtp) = &config.smtp else { bail!("{} has no [notify.smtp]", file.display()) };
        let mail = compose(&message, args.language.as_deref(), &config.contact, smtp, &templates)?;
        Smtp::new(smtp.clone()).send(&mail).await
    } else {
        let Some(webhook) = config.webhook.iter().find(|webhook| webhook.name == args.channel) else {
            let names: Vec<&str> = config.webhook.iter().map(|webhook| webhook.name.as_str()).collect();
            bail!("{} has no webhook {:?}; it has {}", file.display(), args.channel, names.join(", "));
        };
        let body = templates.body(&message, &webhook.template)?;
        Webhook::new(webhook.clone())?.send(&message, body).await
    };
    match outcome {
        Outcome::Sent => {
            println!("sent; its id is {}", message.id);
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Refused(why) => bail!("refused for good: {why}"),
        Outcome::Busy(why, _) => bail!("refused for now: {why}"),
        Outcome::Unreachable(why) => bail!("the channel cannot be used: {why}"),
    }
}

async fn dead(args: DeadArgs) -> anyhow::Result<ExitCode> {
    let mut request =
        v1::ListNotificationsRequest { account: args.account, page_size: args.limit, ..Default::default() };
    request.set_status(v1::NotificationStatus::Dead);
    let found = args.server.connect().await?.list_notifications(request).await?.into_inner().notifications;
    if args.server.json {
        let values: Vec<_> = found.iter().map(notification_json).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        println!("nothing; what was to be told was told, or still is to be");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = format::table(&["ID", "ACCOUNT", "WHAT", "CHANNEL", "TO", "GIVEN UP", "TRIES", "WHY"]);
    for one in &found {
        table.add_row([
            one.id.clone(),
            one.account.clone(),
            Kind::of(one).as_str().to_owned(),
            one.channel.clone(),
            one.recipient.clone(),
            format::ago(one.time_ms),
            one.attempts.to_string(),
            one.error.clone(),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

async fn send_once_more(args: &RetryArgs) -> anyhow::Result<ExitCode> {
    let (server, _) = load(&args.config)?;
    let bus = server.log.connect().await.context(
        "opening the log; the embedded one is open in one process at a time, so `tidegate serve` must be stopped for this",
    )?;
    let again = retry(bus.as_ref(), &args.id, now_ms()).await?;
    println!("to be sent once more: {} to {} through {}", again.id, again.recipient, again.channel);
    Ok(ExitCode::SUCCESS)
}

/// The configuration with its `[notify]`.
fn load(file: &Path) -> Result<(ServerConfig, NotifyConfig), ConfigurationError> {
    let server: ServerConfig = config::load(file).map_err(ConfigurationError::new)?;
    let notify = server.notify.clone();
    let notify = notify.ok_or_else(|| ConfigurationError::text(format!("{} has no [notify]", file.display())))?;
    Ok((server, notify))
}

fn templates(config: &NotifyConfig) -> Result<Templates, ConfigurationError> {
    Templates::load(config).map_err(ConfigurationError::new)
}

fn check_language(templates: &Templates, language: Option<&str>) -> anyhow::Result<()> {
    let Some(language) = language else { return Ok(()) };
    if templates.languages().any(|(tag, _)| tag == language) {
        return Ok(());
    }
    let all: Vec<String> = templates.languages().map(|(tag, name)| format!("{tag} ({name})")).collect();
    bail!("there is no language {language:?}; there are {}", all.join(", "))
}

fn delivery(channel: &str, recipient: &str, notifications: Vec<v1::Notification>) -> Delivery {
    let notifications: Vec<v1::Notification> = notifications
        .into_iter()
        .map(|one| v1::Notification { channel: channel.to_owned(), recipient: recipient.to_owned(), ..one })
        .collect();
    let id = notifications.first().map(|first| first.id.clone()).unwrap_or_default();
    Delivery { id, channel: channel.to_owned(), recipient: recipient.to_owned(), attempt: 1, notifications }
}

fn notification_json(one: &v1::Notification) -> serde_json::Value {
    json!({
        "id": one.id,
        "account": one.account,
        "kind": Kind::of(one).as_str(),
        "lock_id": one.lock_id,
        "channel": one.channel,
        "recipient": one.recipient,
        "due": format::time(one.due_ms),
        "given_up": format::time(one.time_ms),
        "attempts": one.attempts,
        "error": one.error,
    })
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
