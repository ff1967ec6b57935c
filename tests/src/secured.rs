//! An installation that asks who calls: its authority, certificates and tokens, made by its own commands.

use crate::command::{self, Ended};
use crate::installation::TIMEOUT;
use crate::programs;
use anyhow::{Context as _, Result};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `tidegate certificate ARGUMENTS` in a folder.
///
/// # Errors
/// When it fails.
pub fn certificate(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(programs::tidegate()?);
    command.arg("certificate").args(arguments).current_dir(folder);
    command::run(command, TIMEOUT)?.succeeded().map(drop)
}

/// Files with which an installation proves who is who.
#[derive(Debug, Clone)]
pub struct Credentials {
    directory: PathBuf,
}

impl Credentials {
    /// Makes an authority, the server's certificate, and an empty file of tokens in `directory`.
    ///
    /// # Errors
    /// When a command fails.
    pub fn make(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let credentials = Self { directory: directory.to_owned() };
        let (ca, server) = (credentials.text("ca")?, credentials.text("server")?);
        run(&["certificate", "authority", "--out", &ca])?;
        let names = ["--name", "localhost", "--name", "127.0.0.1"];
        run(&[&["certificate", "server", "--authority", &ca, "--out", &server][..], &names].concat())?;
        fs::write(credentials.file("tokens.toml"), "")?;
        fs::write(credentials.file("people.toml"), "")?;
        Ok(credentials)
    }

    /// A file of them, e.g. `ca.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Sections of a server's configuration that make it ask who calls. `[control]` must have been begun, and nothing
    /// after it.
    pub fn sections(&self) -> String {
        let file = |name| self.file(name);
        format!(
            "[control.tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n\n[access]\npeople = {:?}\ntokens = {:?}\n\n",
            file("server.pem"),
            file("server.key"),
            file("ca.pem"),
            file("people.toml"),
            file("tokens.toml"),
        )
    }

    /// Makes a token, and gives the file that it is in. `more` are further arguments, e.g. `--domain example.test`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn token(&self, name: &str, role: &str, more: &[&str]) -> Result<PathBuf> {
        let tokens = self.text("tokens.toml")?;
        let create = ["token", "create", "--file", &tokens, "--name", name, "--role", role, "--json"];
        let ended = run(&[&create[..], more].concat())?;
        let made: serde_json::Value = serde_json::from_str(&ended.stdout).context("reading what token create said")?;
        let token = made["token"].as_str().context("token create told no token")?;
        let file = self.file(&format!("{name}.token"));
        fs::write(&file, token)?;
        Ok(file)
    }

    /// Runs `tidegate ARGUMENTS` against the control at `server`, with the token in a file.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn admin(&self, server: SocketAddr, token: &Path, arguments: &[&str]) -> Result<Ended> {
        let mut command = Command::new(programs::tidegate()?);
        command
            .args(arguments)
            .env("TIDEGATE_SERVER", format!("https://{server}"))
            .env("TIDEGATE_CA", self.file("ca.pem"))
            .env("TIDEGATE_TOKEN_FILE", token);
        command::run(command, TIMEOUT)
    }

    fn text(&self, name: &str) -> Result<String> {
        self.file(name).into_os_string().into_string().ok().context("the folder's name is no UTF-8")
    }
}

fn run(arguments: &[&str]) -> Result<Ended> {
    let mut command = Command::new(programs::tidegate()?);
    command.args(arguments);
    command::run(command, TIMEOUT)?.succeeded()
}
