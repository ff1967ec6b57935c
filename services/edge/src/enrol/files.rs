//! Two files that are exchanged together: a certificate and its key.
//!
//! Two renames are not one. The key goes first; should the process end between them, the new certificate lies beside the
//! old one, and [`Pair::recover`] puts it in place. A service that looks meanwhile finds a pair that does not fit, and goes
//! on with what it has.

use super::EnrolError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use tidegate_runtime::tls::key_belongs;

/// A certificate's file and its key's.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    /// PEM file with the certificate.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// A pair that is being exchanged: the new key is on the disk.
#[derive(Debug)]
pub(super) struct Exchange<'a>(&'a Pair);

impl Pair {
    /// `OUT.pem` and `OUT.key`.
    pub fn at(out: &Path) -> Self {
        Self { certificate: with_extension(out, "pem"), key: with_extension(out, "key") }
    }

    /// One of the files that is there.
    pub fn there(&self) -> Option<&Path> {
        [self.certificate.as_path(), self.key.as_path()].into_iter().find(|path| path.exists())
    }

    /// Writes a new key beside the one in use.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, key_pem: &str) -> Result<Exchange<'_>, EnrolError> {
        write(&new(&self.key), key_pem)?;
        Ok(Exchange(self))
    }

    /// Brings an exchange to its end that was cut off between the two renames; takes away what else one left behind.
    ///
    /// # Errors
    /// When files cannot be read or renamed.
    pub fn recover(&self) -> Result<(), EnrolError> {
        let waiting = new(&self.certificate);
        let Some(certificate) = read(&waiting)? else { return Ok(()) };
        let key = read(&self.key)?.unwrap_or_default();
        if key_belongs(&certificate, &key) {
            return rename(&waiting, &self.certificate);
        }
        // Nothing was exchanged: the pair in use is whole.
        let _ = fs::remove_file(&waiting);
        let _ = fs::remove_file(new(&self.key));
        Ok(())
    }
}

impl Exchange<'_> {
    /// Puts the new key and its certificate in place.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(self, certificate_pem: &str) -> Result<(), EnrolError> {
        let Self(pair) = self;
        write(&new(&pair.certificate), certificate_pem)?;
        rename(&new(&pair.key), &pair.key)?;
        rename(&new(&pair.certificate), &pair.certificate)
    }

    /// Takes the new key away.
    pub fn give_up(self) {
        let _ = fs::remove_file(new(&self.0.key));
    }
}

/// Writes a file for its owner only: the owner of the folder, when root writes it.
fn write(path: &Path, text: &str) -> Result<(), EnrolError> {
    let writing = || -> io::Result<()> {
        // Left behind by one that was ended.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let (folder, own) = (fs::metadata(folder(path))?, file.metadata()?);
        if own.uid() == 0 && folder.uid() != 0 {
            fchown(&file, Some(folder.uid()), Some(folder.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    writing().map_err(|source| EnrolError::File { action: "write", path: path.to_owned(), source })
}

fn rename(from: &Path, to: &Path) -> Result<(), EnrolError> {
    fs::rename(from, to).and_then(|()| File::open(folder(to))?.sync_all()).map_err(|source| EnrolError::File {
        action: "put in place",
        path: to.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, EnrolError> {
    match fs::read(path) {
        Ok(octets) => Ok(Some(octets)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EnrolError::File { action: "read", path: path.to_owned(), source }),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn new(path: &Path) -> PathBuf {
    with_extension(path, "new")
}

/// The path with `.extension` behind it: names of hosts have dots of their own.
fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(extension);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    /// Certificate and key.
    fn certified() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::default().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn held(pair: &Pair) -> (String, String) {
        (fs::read_to_string(&pair.certificate).unwrap(), fs::read_to_string(&pair.key).unwrap())
    }

    #[test]
    fn an_exchange_that_is_cut_off_anywhere_leaves_a_pair_that_fits() {
        let folder = TempDir::new().unwrap();
        let pair = Pair::at(&folder.path().join("mx1.example.org"));
        let (old, renewed) = (certified(), certified());
        // How many of the four steps were done.
        for steps in 0..=4 {
            for file in fs::read_dir(folder.path()).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
            pair.begin(&old.1).unwrap().finish(&old.0).unwrap();
            assert_eq!(held(&pair), old);
            if steps >= 1 {
                write(&new(&pair.key), &renewed.1).unwrap();
            }
            if steps >= 2 {
                write(&new(&pair.certificate), &renewed.0).unwrap();
            }
            if steps >= 3 {
                rename(&new(&pair.key), &pair.key).unwrap();
            }
            if steps >= 4 {
                rename(&new(&pair.certificate), &pair.certificate).unwrap();
            }
            pair.recover().unwrap();
            assert_eq!(held(&pair), if steps >= 3 { renewed.clone() } else { old.clone() }, "after {steps} steps");
            // What is left beside it does not keep the next one from its end.
            pair.begin(&renewed.1).unwrap().finish(&renewed.0).unwrap();
            assert_eq!((held(&pair), fs::read_dir(folder.path()).unwrap().count()), (renewed.clone(), 2));
        }
    }

    #[test]
    fn files_are_for_their_owner_only_and_nothing_is_left_of_what_was_given_up() {
        let folder = TempDir::new().unwrap();
        let pair = Pair::at(&folder.path().join("edge"));
        pair.begin("key").unwrap().give_up();
        assert_eq!((pair.there(), fs::read_dir(folder.path()).unwrap().count()), (None, 0));
        pair.begin("key").unwrap().finish("certificate").unwrap();
        assert_eq!(pair.there(), Some(pair.certificate.as_path()));
        for file in [&pair.certificate, &pair.key] {
            assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
        }
        let nowhere = Pair::at(&folder.path().join("none/edge"));
        let error = nowhere.begin("key").unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.ends_with("edge.key.new"), "{error}");
    }
}
