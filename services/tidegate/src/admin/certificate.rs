//! `tidegate certificate`: a small certificate authority, for providers without one of their own.

use super::format::{self, now_ms};
use anyhow::{Context as _, bail};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tidegate_access::{Authority, CertificateName, Issued};

#[derive(Debug, clap::Subcommand)]
pub enum CertificateCommand {
    /// Make an authority that signs the certificates of servers, edges and users
    #[command(
        after_help = "Example:\n  tidegate certificate authority --out /etc/tidegate/ca\n\nKeep the .key file where nothing but this command needs it; the .pem file goes to every server and client."
    )]
    Authority(AuthorityArgs),
    /// Make a certificate for control: host names and addresses under which it is reached
    #[command(
        after_help = "Example:\n  tidegate certificate server --authority ca --out control --name control.example.org --name 192.0.2.1"
    )]
    Server(ServerCertificateArgs),
    /// Make a certificate for an edge, which can act for this node and site only
    #[command(
        after_help = "Example:\n  tidegate certificate edge --authority ca --out mx1 --trust-domain example.org --site ams --node mx1.example.org\n\nRenew it with --replace; the edge takes the new one without a restart.\nRevoke it by name: revoked = [\"edge/ams/mx1.example.org\"] in the file of people (access.people)."
    )]
    Edge(EdgeArgs),
    /// Make a certificate for a person, whose role stands in the file of people (access.people)
    #[command(
        after_help = "Example:\n  tidegate certificate user --authority ca --out jo --trust-domain example.org --name jo --expires 30d"
    )]
    User(UserArgs),
}

#[derive(Debug, clap::Args)]
pub struct AuthorityArgs {
    /// What it is called in its certificate
    #[arg(long, default_value = "Tidegate")]
    name: String,
    /// How long it counts
    #[arg(long, default_value = "10y", value_parser = humantime::parse_duration)]
    expires: Duration,
    #[command(flatten)]
    out: OutArgs,
}

#[derive(Debug, clap::Args)]
pub struct ServerCertificateArgs {
    /// A host name or an address (again for more)
    #[arg(long = "name", required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    issue: IssueArgs,
}

#[derive(Debug, clap::Args)]
pub struct EdgeArgs {
    /// The edge's name, as in its configuration
    #[arg(long)]
    node: String,
    /// Its site, as in its configuration
    #[arg(long)]
    site: String,
    /// Your own domain, which the names in certificates bear
    #[arg(long)]
    trust_domain: String,
    #[command(flatten)]
    issue: IssueArgs,
}

#[derive(Debug, clap::Args)]
pub struct UserArgs {
    /// The person's name, as in the file of people
    #[arg(long)]
    name: String,
    /// Your own domain, which the names in certificates bear
    #[arg(long)]
    trust_domain: String,
    #[command(flatten)]
    issue: IssueArgs,
}

#[derive(Debug, clap::Args)]
struct IssueArgs {
    /// The authority: AUTHORITY.pem and AUTHORITY.key are read
    #[arg(long)]
    authority: PathBuf,
    /// How long it counts; no longer than the authority
    #[arg(long, default_value = "1y", value_parser = humantime::parse_duration)]
    expires: Duration,
    #[command(flatten)]
    out: OutArgs,
}

#[derive(Debug, clap::Args)]
struct OutArgs {
    /// Where to: OUT.pem and OUT.key are written, for their owner only
    #[arg(long)]
    out: PathBuf,
    /// Replace files that are there already
    #[arg(long)]
    replace: bool,
    /// One JSON value instead of text for people
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: CertificateCommand) -> anyhow::Result<ExitCode> {
    match command {
        CertificateCommand::Authority(AuthorityArgs { name, expires, out }) => {
            let (_, issued) = Authority::create(&name, expires, now_ms())?;
            out.write(&issued)?;
        }
        CertificateCommand::Server(ServerCertificateArgs { names, issue }) => {
            issue.out.write(&issue.open()?.server(&names, issue.expires, now_ms())?)?;
        }
        CertificateCommand::Edge(EdgeArgs { node, site, trust_domain, issue }) => {
            issue.client(&CertificateName::Edge { site, node }, &trust_domain)?;
        }
        CertificateCommand::User(UserArgs { name, trust_domain, issue }) => {
            issue.client(&CertificateName::User(name), &trust_domain)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl IssueArgs {
    fn open(&self) -> anyhow::Result<Authority> {
        let read = |extension| {
            let path = with_extension(&self.authority, extension);
            fs::read_to_string(&path).with_context(|| {
                format!("reading {}; `tidegate certificate authority` makes an authority", path.display())
            })
        };
        Ok(Authority::from_pem(&read("pem")?, &read("key")?)?)
    }

    fn client(&self, name: &CertificateName, trust_domain: &str) -> anyhow::Result<()> {
        self.out.write(&self.open()?.client(name, trust_domain, self.expires, now_ms())?)
    }
}

impl OutArgs {
    /// Writes both files. A service that watches them goes on with the old pair until both are new.
    fn write(&self, issued: &Issued) -> anyhow::Result<()> {
        let (certificate, key) = (with_extension(&self.out, "pem"), with_extension(&self.out, "key"));
        if !self.replace
            && let Some(there) = [&certificate, &key].into_iter().find(|path| path.exists())
        {
            bail!("{} is there already; --replace replaces it", there.display());
        }
        write(&key, &issued.key_pem)?;
        write(&certificate, &issued.certificate_pem)?;
        if self.json {
            let value = json!({
                "certificate": certificate,
                "key": key,
                "expires": format::time(issued.not_after_ms),
            });
            println!("{}", serde_json::to_string_pretty(&value)?);
        } else {
            let until = format::time(issued.not_after_ms);
            println!("{} and {} were written; they count until {until}", certificate.display(), key.display());
        }
        Ok(())
    }
}

/// Puts a file in place, whole or not at all, for its owner only.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = with_extension(path, "new");
    let writing = || -> std::io::Result<()> {
        // Left behind by one that was ended.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        // It stays the service's, also when root renews it.
        if let Ok(old) = fs::metadata(path) {
            let own = file.metadata()?;
            if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    writing().with_context(|| format!("writing {}", path.display()))
}

/// The path with `.extension` behind it: names of hosts have dots of their own.
fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(extension);
    path.into()
}
