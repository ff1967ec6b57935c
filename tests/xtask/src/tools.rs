//! Programs for tests and checks that come from a language's registry: built or unpacked once into the target folder.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};
use crate::parts::part;
use crate::paths::parts_dir;

/// The newest version that Debian 12's Go 1.19 builds.
const GRPCURL_VERSION: &str = "v1.9.1";
const BUF_VERSION: &str = "1.75.0";

/// `grpcurl`, a gRPC client that nobody here wrote; gives its path.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn grpcurl() -> Result<PathBuf> {
    let folder = part(&format!("grpcurl-{GRPCURL_VERSION}"), |folder| {
        run(Command::new("go")
            .arg("install")
            .arg(format!("github.com/fullstorydev/grpcurl/cmd/grpcurl@{GRPCURL_VERSION}"))
            .env("GOBIN", folder)
            // No other Go than the one that is installed.
            .env("GOTOOLCHAIN", "local"))
    })?;
    Ok(folder.join("grpcurl"))
}

/// `buf`, which checks protocol files; gives its path.
///
/// # Errors
/// When Python is missing or PyPI cannot be reached.
pub fn buf() -> Result<PathBuf> {
    // Not a `part`: a Python environment stays where it was made.
    let folder = parts_dir().join(format!("buf-{BUF_VERSION}"));
    let program = folder.join("bin/buf");
    if !program.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).arg(format!("buf-bin=={BUF_VERSION}")))?;
    }
    Ok(program)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context(|| format!("running {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::new(format!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said))))
}
