//! `tidegate-edge enrol`, as it is typed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a person at a terminal asked for")]

use crate::ConfigArguments;
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};
use tidegate_edge::enrol::{self, Enrolled, Enrolment, Renewal};
use tidegate_edge::{Clock, EdgeConfig};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  # where control runs\n  tidegate token create --enrol ams/mx1.example.org --expires 1h\n  \
                  # on the mail host; paste the token, then Ctrl-D\n  \
                  tidegate-edge enrol --control control.example.org:7710 --ca /etc/tidegate/ca.pem --token-file - --site ams --node mx1.example.org\n  \
                  # what the timer does every day\n  tidegate-edge enrol --renew\n\n\
                  The token is never taken from the command line, which everybody on this machine can read."
)]
pub struct EnrolArguments {
    /// Control's address
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "renew", conflicts_with = "renew")]
    control: Option<String>,
    /// PEM file with the authority that signed control's certificate
    #[arg(long, value_name = "FILE", required_unless_present = "renew", conflicts_with = "renew")]
    ca: Option<PathBuf>,
    /// File with the token for enrolment; - is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "renew", conflicts_with = "renew")]
    token_file: Option<PathBuf>,
    /// Name in control's certificate, when it is not the host's
    #[arg(long, value_name = "NAME", conflicts_with = "renew")]
    server_name: Option<String>,
    /// Where to: PATH.pem and PATH.key are written; otherwise "edge" in the configuration's state directory
    #[arg(long, value_name = "PATH", conflicts_with = "renew")]
    out: Option<PathBuf>,
    /// Replace files that are there already
    #[arg(long, conflicts_with = "renew")]
    replace: bool,
    /// Renew the configuration's certificate, when less than a third of its time is left
    #[arg(long)]
    renew: bool,
    /// Renew it however much of its time is left
    #[arg(long, requires = "renew")]
    force: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

/// What enrolment needs of the configuration, which need not be complete before there is a certificate.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Names {
    node: String,
    site: String,
    state_directory: Option<PathBuf>,
}

/// Runs the command: 0 when all went well, 2 when the configuration is wrong, 1 for everything else.
pub fn run(arguments: EnrolArguments) -> ExitCode {
    let done = if arguments.renew {
        match arguments.config.load() {
            Ok(config) => renew(&config, arguments.force),
            Err(error) => {
                eprintln!("tidegate-edge: {:#}", anyhow::Error::new(error));
                return ExitCode::from(2);
            }
        }
    } else {
        first(arguments)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn renew(config: &EdgeConfig, force: bool) -> anyhow::Result<()> {
    match enrol::renew(config, force, Clock::system().now_ms()).await? {
        Renewal::Renewed(Enrolled { certificate, not_after_ms, .. }) => {
            println!("{} was renewed; it counts until {}", certificate.display(), time(not_after_ms));
        }
        Renewal::NotDue { due_ms, not_after_ms } => {
            println!("nothing to do: it counts until {}, and is renewed from {} on", time(not_after_ms), time(due_ms));
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn first(arguments: EnrolArguments) -> anyhow::Result<()> {
    let EnrolArguments { control, ca, token_file, server_name, out, replace, config, .. } = arguments;
    let ConfigArguments { config, node, site } = config;
    let (Some(control), Some(ca), Some(token_file)) = (control, ca, token_file) else {
        bail!("--control, --ca and --token-file are needed");
    };
    if control.contains("://") {
        bail!("--control {control:?}: write HOST:PORT; it is always reached by TLS");
    }
    let names = names(&config)?;
    let given = |flag: &str, given: Option<String>, configured: String| {
        let name = given.unwrap_or(configured);
        if name.is_empty() {
            bail!("--{flag} is needed: the configuration does not say it either");
        }
        Ok(name)
    };
    let (site, node) = (given("site", site, names.site)?, given("node", node, names.node)?);
    let state_directory = names.state_directory.unwrap_or_else(|| EdgeConfig::default().state_directory);
    let out = out.unwrap_or_else(|| state_directory.join("edge"));
    let out = std::path::absolute(&out).with_context(|| format!("finding the whole path of {}", out.display()))?;
    let ca = std::path::absolute(&ca).with_context(|| format!("finding the whole path of {}", ca.display()))?;
    let asked = Enrolment {
        control: control.clone(),
        ca: ca.clone(),
        server_name: server_name.clone(),
        token_file,
        site: site.clone(),
        node: node.clone(),
        out,
        replace,
    };
    let Enrolled { certificate, key, not_after_ms } = enrol::enrol(asked).await?;
    eprintln!(
        "{} and {} were written; they count until {}, and `tidegate-edge enrol --renew` renews them in time.\n\
         The configuration needs these lines:\n",
        certificate.display(),
        key.display(),
        time(not_after_ms)
    );
    // Alone on standard output, so that it can go straight into a file.
    println!("node = {node:?}\nsite = {site:?}\n\n[control]\nendpoint = \"https://{control}\"\n");
    println!("[control.tls]\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}");
    if let Some(name) = server_name {
        println!("server_name = {name:?}");
    }
    Ok(())
}

/// What the configuration says already; nothing when there is none yet.
fn names(config: &Path) -> anyhow::Result<Names> {
    match std::fs::read_to_string(config) {
        Ok(text) => toml::from_str(&text).with_context(|| format!("reading {}", config.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Names::default()),
        Err(error) => Err(error).with_context(|| format!("reading {}", config.display())),
    }
}

fn time(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
