//! `cargo xtask upgrade`: programs of an earlier revision and of this one, and the test that rolls from one to the other
//! and back under traffic.

use crate::pipeline::{build_for_tests, cargo, cargo_into, failure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use xtask::error::{Context as _, Error, Result};
use xtask::paths::{target_dir, workspace_root};
use xtask::progress::Progress;

const PROGRAMS: [&str; 2] = ["tidegate", "tidegate-edge"];

/// Builds both, and runs the test.
pub fn run(revision: &str, progress: &Progress) -> Result<ExitCode> {
    let older = programs_of(revision, progress)?;
    build_for_tests(progress)?;
    progress.step("each service becomes this version, and then the older one again, under traffic");
    let mut test = cargo(&["test", "--workspace", "--test", "upgrade", "--", "--nocapture"]);
    test.env("TIDEGATE_PROGRAMS", older).env("TIDEGATE_UPGRADE_TO", target_dir().join("debug"));
    Ok(failure(&mut test)?.unwrap_or(ExitCode::SUCCESS))
}

/// The folder with the programs of a revision, built unless they are here.
fn programs_of(revision: &str, progress: &Progress) -> Result<PathBuf> {
    let commit = git(&["rev-parse", "--verify", &format!("{revision}^{{commit}}")])?;
    let home = target_dir().join("versions").join(&commit);
    let (sources, programs) = (home.join("sources"), home.join("programs"));
    if PROGRAMS.iter().all(|name| programs.join(name).is_file()) {
        return Ok(programs);
    }
    progress.step(&format!("building {revision} ({}; a quarter of an hour)", &commit[..12]));
    unpack(&commit, &sources)?;
    // In a target folder of its own, so that neither version's build can be taken for the other's.
    let target = home.join("target");
    let mut build = cargo_into(&target, &["build", "-p", PROGRAMS[0], "-p", PROGRAMS[1]]);
    if failure(build.current_dir(&sources))?.is_some() {
        return Err(Error::new(format!("{revision} cannot be built; see above")));
    }
    fs::create_dir_all(&programs).context(|| format!("making {}", programs.display()))?;
    for name in PROGRAMS {
        let (from, to) = (target.join("debug").join(name), programs.join(name));
        fs::copy(&from, &to).context(|| format!("copying {}", from.display()))?;
    }
    fs::remove_dir_all(&target).context(|| format!("removing {}", target.display()))?;
    fs::remove_dir_all(&sources).context(|| format!("removing {}", sources.display()))?;
    Ok(programs)
}

/// Puts the files of a commit into a new folder.
fn unpack(commit: &str, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
    let mut archive = Command::new("git")
        .args(["archive", commit])
        .current_dir(workspace_root())
        .stdout(Stdio::piped())
        .spawn()
        .context(|| "running git archive".into())?;
    let files = archive.stdout.take().ok_or_else(|| Error::new("git archive has no output"))?;
    let mut tar = Command::new("tar");
    let unpacked = tar.arg("-x").arg("-C").arg(folder).stdin(files).status().context(|| "running tar".into())?;
    let archived = archive.wait().context(|| "waiting for git archive".into())?;
    if unpacked.success() && archived.success() {
        return Ok(());
    }
    Err(Error::new(format!("the files of {commit} could not be unpacked")))
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).current_dir(workspace_root()).output();
    let output = output.context(|| "running git".into())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("git {}: {}", arguments.join(" "), said.trim())))
}
