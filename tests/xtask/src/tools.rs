//! Programs for tests and checks that come from a language's registry: built or unpacked once into the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};
use crate::paths::parts_dir;

/// The newest version that Debian 12's Go 1.19 builds.
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.1";
const BUF: &str = "buf-bin==1.75.0";

/// `grpcurl`, a gRPC client that nobody here wrote; gives its path.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn grpcurl() -> Result<PathBuf> {
    let folder = parts_dir().join("grpcurl");
    let program = folder.join("grpcurl");
    if !program.is_file() {
        // `local`: no other Go than the one that is installed.
        run(Command::new("go").args(["install", GRPCURL]).env("GOBIN", &folder).env("GOTOOLCHAIN", "local"))?;
    }
    Ok(program)
}

/// `buf`, which checks protocol files; gives its path.
///
/// # Errors
/// When Python is missing or PyPI cannot be reached.
pub fn buf() -> Result<PathBuf> {
    let folder = parts_dir().join("buf");
    let program = folder.join("bin/buf");
    if !program.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", BUF]))?;
    }
    Ok(program)
}

fn run(command: &mut Command) -> Result<()> {
    fs::create_dir_all(parts_dir()).context(|| format!("making {}", parts_dir().display()))?;
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().context(|| format!("running {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::new(format!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said))))
}
