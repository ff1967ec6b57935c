//! The three sites: a `tidegate-edge` process each.

use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// The sites' names.
pub const SITES: [&str; 3] = ["amsterdam", "berlin", "paris"];
/// The secret that all edges hash under, so that one text is one content wherever it is sent.
const HASH_KEY: &str = "hash.key";
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes the secret that all edges share.
pub fn make_hash_key(directory: &Path) -> anyhow::Result<()> {
    let file = directory.join(HASH_KEY);
    let secret: u128 = rand::random();
    std::fs::write(&file, format!("{secret:032x}\n")).with_context(|| format!("writing {}", file.display()))
}

/// One site's edge, ended when dropped.
pub struct EdgeProcess {
    /// Its milter socket.
    pub socket: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    log: PathBuf,
    child: Child,
}

impl EdgeProcess {
    /// Starts the edge of `site`, with everything that it keeps below `directory`.
    pub async fn start(directory: &Path, site: &str, control: SocketAddr) -> anyhow::Result<Self> {
        let home = directory.join(site);
        std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
        let (socket, config, log) = (home.join("milter.sock"), home.join("edge.toml"), home.join("edge.log"));
        std::fs::write(&config, configuration(site, &home, &socket, control))?;
        let program = program()?;
        let log_file = std::fs::File::create(&log)?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut edge = Self { socket, config, log, child };
        edge.wait_until_it_listens(site).await?;
        Ok(edge)
    }

    async fn wait_until_it_listens(&mut self, site: &str) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            if tokio::net::UnixStream::connect(&self.socket).await.is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || tokio::time::Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the edge of {site} did not start ({ended:?}); its log:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn configuration(site: &str, home: &Path, socket: &Path, control: SocketAddr) -> String {
    let key = home.with_file_name(HASH_KEY);
    let internal: Vec<String> = super::people::DOMAINS.iter().map(|domain| format!("{domain:?}")).collect();
    format!(
        "node = \"mx1.{site}.example\"\n\
         site = \"{site}\"\n\
         state_directory = {home:?}\n\
         hash_key_file = {key:?}\n\
         internal_domains = [{}]\n\n\
         [milter]\n\
         listen = [\"unix:{}\"]\n\n\
         [control]\n\
         endpoint = \"http://{control}\"\n\n\
         [ops]\n\
         listen = \"127.0.0.1:0\"\n",
        internal.join(", "),
        socket.display(),
    )
}

/// `tidegate-edge` lies beside this program.
fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("tidegate-edge");
    if !path.exists() {
        bail!("{} is missing; build it with `cargo build -p tidegate-edge`", path.display());
    }
    Ok(path)
}
