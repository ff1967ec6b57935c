//! Debian in a folder, for packages to be installed into.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use xtask::error::Error;
use xtask::parts::part;

use crate::command;

/// How long a copy may take.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A minimal Debian 12 with these packages (with commas between them), made once by `debootstrap` and kept as the part
/// `name`. It is for copying, not for changing.
///
/// # Errors
/// What `debootstrap` says, when it fails.
pub fn debian(name: &str, packages: &str) -> Result<PathBuf, Error> {
    part(name, |folder| {
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", &format!("--include={packages}"), "bookworm"]).arg(folder);
        let output = debootstrap.output().map_err(|error| Error::new(format!("starting debootstrap: {error}")))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(()) } else { Err(Error::new(said)) }
    })
}

/// Copies such a root to `to`, which must not be there.
///
/// # Errors
/// When the copy fails.
pub fn copy_root(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    command::run(copy, TIMEOUT)?.succeeded().map(drop)
}
