//! Where things are: the workspace, its target folder, and what is fetched into it.

use std::env;
use std::path::{Path, PathBuf};

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Cargo's target folder, whatever `CARGO_TARGET_DIR` or configuration made it: cargo marks it with a `CACHEDIR.TAG`,
/// and this program lies in it.
pub fn target_dir() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    if let Some(marked) = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()) {
        return marked.to_owned();
    }
    workspace_root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The folder for real parts that are fetched, not built by cargo (Kafka's jars, grpcurl). Lives in the target folder.
pub fn parts_dir() -> PathBuf {
    target_dir().join("parts")
}

/// The full path of a program: in `PATH`, or where Debian keeps servers, which is not in an ordinary user's `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_workspace_and_its_target_folder() {
        assert!(workspace_root().join("Cargo.lock").is_file());
        assert!(target_dir().join("CACHEDIR.TAG").is_file());
    }

    #[test]
    fn finds_programs() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-here"), None);
    }
}
