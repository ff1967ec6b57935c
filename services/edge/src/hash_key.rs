//! The secret under which subjects, recipients and texts are hashed.

use crate::config::EdgeConfig;
use crate::error::EdgeError;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Name of the file in the state directory.
const FILE: &str = "hash.key";
/// A secret that is shorter could be guessed.
const MIN_OCTETS: usize = 16;
const MAX_OCTETS: usize = 4096;

/// Reads the secret, or makes one when none is configured and none was made before.
pub(crate) fn load(config: &EdgeConfig) -> Result<Vec<u8>, EdgeError> {
    if let Some(file) = &config.hash_key_file {
        return read(file);
    }
    let file = config.state_directory.join(FILE);
    if !file.exists() {
        make(&file)?;
        tracing::info!(
            file = %file.display(),
            "made a secret for hashes; with several edges give all of them the same one (hash_key_file)"
        );
    }
    read(&file)
}

fn read(file: &Path) -> Result<Vec<u8>, EdgeError> {
    let key = std::fs::read(file).map_err(EdgeError::file("read the secret for hashes in", file))?;
    let key = key.trim_ascii();
    if !(MIN_OCTETS..=MAX_OCTETS).contains(&key.len()) {
        let problem = format!(
            "{} has {} octets; allowed: {MIN_OCTETS} to {MAX_OCTETS}, e.g. from: openssl rand -hex 32",
            file.display(),
            key.len()
        );
        return Err(EdgeError::Setting { key: "hash_key_file", problem });
    }
    Ok(key.to_vec())
}

/// Written whole under another name first, so that a half-written secret is never used.
fn make(file: &Path) -> Result<(), EdgeError> {
    let (high, low): (u128, u128) = rand::random();
    let text = format!("{high:032x}{low:032x}");
    let new = file.with_extension("key.new");
    let write = || {
        let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        writeln!(out, "{text}")?;
        out.sync_all()?;
        std::fs::rename(&new, file)
    };
    write().map_err(EdgeError::file("write the secret for hashes to", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = EdgeConfig { state_directory: directory.path().to_owned(), ..EdgeConfig::default() };
        let key = load(&config).unwrap();
        assert_eq!(key.len(), 64);
        assert_eq!(load(&config).unwrap(), key);
        let given = directory.path().join("given");
        std::fs::write(&given, "short\n").unwrap();
        config.hash_key_file = Some(given.clone());
        assert!(load(&config).unwrap_err().to_string().contains("has 5 octets"));
        std::fs::write(&given, "long enough to be a secret\n").unwrap();
        assert_eq!(load(&config).unwrap(), b"long enough to be a secret");
    }
}
