//! A Go that is new enough, whatever Go is installed: Go's own toolchains are modules, which even an old one can fetch.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::parts::part;
use crate::tools::{output, run};

/// What Helm and Kubernetes need at least.
const WANTED: (u32, u32) = (1, 26);
/// What is fetched where there is an older one.
const TOOLCHAIN: &str = "1.26.8";

/// The program `go`, of a version that builds everything here; gives its path.
///
/// # Errors
/// When there is no Go at all (`cargo xtask setup` installs one), or the module proxy cannot be reached.
pub fn program() -> Result<PathBuf> {
    let installed = output(Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
    if version(&installed).is_some_and(|version| version >= WANTED) {
        return Ok("go".into());
    }
    let folder = part(&format!("go-{TOOLCHAIN}"), |folder| {
        let arch = output(Command::new("go").args(["env", "GOARCH"]))?;
        let module = format!("golang.org/toolchain@v0.0.1-go{TOOLCHAIN}.linux-{}", arch.trim());
        let fetched = module_folder(Command::new("go").current_dir(folder), &module)?;
        run(Command::new("cp").args(["-R"]).arg(fetched.join(".")).arg(folder))?;
        // A module's files are read-only, and none may be run.
        run(Command::new("chmod").args(["-R", "u+w"]).arg(folder))?;
        let mut programs = files(&folder.join("bin"))?;
        for platform in files(&folder.join("pkg/tool"))? {
            programs.extend(files(&platform)?);
        }
        let allow = |file: &PathBuf| fs::set_permissions(file, fs::Permissions::from_mode(0o755));
        programs.iter().try_for_each(allow).context(|| format!("making programs of {}", folder.display()))
    })?;
    Ok(folder.join("bin/go"))
}

/// Fetches a module, `path@version`, into Go's own cache; gives its folder there.
///
/// # Errors
/// When the module proxy cannot be reached.
pub fn module_folder(go: &mut Command, module: &str) -> Result<PathBuf> {
    // The cache is where every Go of this user has it.
    let told =
        output(go.args(["mod", "download", "-json", module]).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod"))?;
    let folder = told.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \"")?.split('"').next());
    folder.map(PathBuf::from).ok_or_else(|| Error::new(format!("go mod download {module} told no folder:\n{told}")))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).context(|| format!("reading {}", folder.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// `(1, 26)` of `go1.26.8`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split(['.', '-', 'r', 'b']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(version("go1.19.8\n"), Some((1, 19)));
        assert_eq!(version("go1.26"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("devel go"), None);
    }
}
