//! Our two programs, built when a test first needs them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};
use xtask::paths::{target_dir, workspace_root};

/// Names a folder with both programs. Tests use them as they are, e.g. what `cargo xtask test` has built with
/// everything else, or what a package has installed.
pub const FOLDER_VARIABLE: &str = "TIDEGATE_PROGRAMS";

/// The server, `tidegate`.
///
/// # Errors
/// When it cannot be built.
pub fn tidegate() -> Result<PathBuf> {
    program("tidegate")
}

/// The agent beside a mail server, `tidegate-edge`.
///
/// # Errors
/// When it cannot be built.
pub fn tidegate_edge() -> Result<PathBuf> {
    program("tidegate-edge")
}

fn program(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")));
    let program = folder.as_ref().map_err(|error| anyhow!("{error}"))?.join(name);
    if !program.is_file() {
        bail!("there is no program {}", program.display());
    }
    Ok(program)
}

/// The folder that has both. Test processes that build at the same time wait for each other in cargo.
fn find_or_build() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return Ok(folder.into());
    }
    let folder = profile_folder(&std::env::current_exe().context("finding this test's own program")?)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "-p", "tidegate", "-p", "tidegate-edge", "--target-dir"]).arg(target_dir());
    // The folder of the profile `dev` has another name; all others are called as their profile.
    if folder.file_name() != Some(OsStr::new("debug")) {
        command.arg("--profile").arg(folder.file_name().unwrap_or_default());
    }
    let output = command.current_dir(workspace_root()).stdin(Stdio::null()).output().context("running cargo build")?;
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder)
}

/// `target/debug` for a test at `target/debug/deps/name`.
fn profile_folder(test: &Path) -> Result<PathBuf> {
    let deps = test.ancestors().find(|folder| folder.file_name() == Some(OsStr::new("deps")));
    let folder = deps.and_then(Path::parent).with_context(|| format!("{} is not in a deps folder", test.display()))?;
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_lie_beside_the_folder_of_the_tests() {
        let found = profile_folder(Path::new("/somewhere/target/release/deps/e2e-0123")).unwrap();
        assert_eq!(found, Path::new("/somewhere/target/release"));
        assert!(profile_folder(Path::new("/usr/bin/e2e")).is_err());
    }
}
