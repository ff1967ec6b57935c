//! A program on a pseudo terminal, as a person sits before it: types, reads, presses Ctrl-C.

use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use xtask::leash::Leash;
use xtask::wait::wait_for;

/// What the key Ctrl-C sends.
pub const CTRL_C: &str = "\u{3}";
/// What the key Tab sends.
pub const TAB: &str = "\t";
/// What the key Enter sends.
pub const ENTER: &str = "\r";

/// A program on a terminal of 120 columns, made by `script` of util-linux.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
    /// What was waited for so far ends here.
    read: usize,
    _leash: Leash,
}

impl Terminal {
    /// Starts `program` with these variables in its environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let words = std::iter::once(program.to_str().context("the program's path is no UTF-8")?);
        let quoted = words.chain(arguments.iter().copied()).map(|word| format!("'{}'", word.replace('\'', r"'\''")));
        let line = format!("stty cols 120 rows 40; exec {}", quoted.collect::<Vec<_>>().join(" "));
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting script, of util-linux")?;
        let leash = Leash::on_group(child.id())?;
        let shown = Arc::new(Mutex::new(String::new()));
        let mut screen = child.stdout.take().context("script has no standard output")?;
        let writer = Arc::clone(&shown);
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut octets) {
                let text = String::from_utf8_lossy(&octets[..count]).into_owned();
                writer.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Self { child, shown, read: 0, _leash: leash })
    }

    /// Presses these keys.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        let keyboard = self.child.stdin.as_mut().context("script has no standard input")?;
        keyboard.write_all(keys.as_bytes()).and_then(|()| keyboard.flush()).context("pressing keys")
    }

    /// Waits until this is shown, behind what was waited for before. Gives what was shown up to there.
    ///
    /// # Errors
    /// When it is not.
    pub fn wait_for(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let begin = self.read;
        let found = wait_for(&format!("{text:?} on the terminal"), timeout, || {
            let shown = self.shown();
            let at = shown.get(begin..)?.find(text)?;
            let end = begin + at + text.len();
            Some((end, shown[begin..end].to_owned()))
        });
        match found {
            Ok((end, shown)) => {
                self.read = end;
                Ok(shown)
            }
            Err(error) => bail!("{error}; it shows:\n{}", &self.shown()[begin..]),
        }
    }

    /// Waits until the program has ended, and gives its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait_for_end(&mut self, timeout: Duration) -> Result<i32> {
        let child = &mut self.child;
        let ended = wait_for("the program's end", timeout, || child.try_wait().transpose())?;
        Ok(ended?.code().unwrap_or(-1))
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
