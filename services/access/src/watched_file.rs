//! A small text file that is looked at again and again.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Largest file that is read, in octets: some ten thousand people or tokens.
const MAX_OCTETS: u64 = 8 << 20;

/// A file, what it held when it was last looked at, and what was last wrong with it. A change is seen by what it holds,
/// whatever its time stamp says, and counts when two looks found the same: an editor that writes in place leaves half a
/// file for a moment, in which nobody would be revoked.
#[derive(Debug)]
pub(crate) struct WatchedFile {
    path: PathBuf,
    last_text: String,
    /// What it has held for one look.
    fresh_text: Option<String>,
    last_error: Option<String>,
}

/// What a look at the file gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing new, or the same trouble as before.
    Same,
    /// It holds something else now.
    Changed(String),
    /// It cannot be read, which it could before.
    Unreadable(String),
}

impl WatchedFile {
    /// Reads it for the first time.
    pub fn open(path: &Path) -> io::Result<(Self, String)> {
        let text = read(path)?;
        let last_text = text.clone();
        Ok((Self { path: path.to_owned(), last_text, fresh_text: None, last_error: None }, text))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks again.
    pub fn look(&mut self) -> Look {
        match read(&self.path) {
            Ok(text) => {
                self.last_error = None;
                let is_settled = self.fresh_text.take().is_some_and(|fresh| fresh == text);
                if text == self.last_text {
                    return Look::Same;
                }
                if !is_settled {
                    self.fresh_text = Some(text);
                    return Look::Same;
                }
                self.last_text.clone_from(&text);
                Look::Changed(text)
            }
            Err(error) => {
                self.fresh_text = None;
                let error = error.to_string();
                if self.last_error.as_ref() == Some(&error) {
                    return Look::Same;
                }
                self.last_error = Some(error.clone());
                Look::Unreadable(error)
            }
        }
    }
}

/// The text of a file that is not too large.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let octets = std::fs::File::open(path)?.take(MAX_OCTETS + 1).read_to_string(&mut text)?;
    if octets as u64 > MAX_OCTETS {
        let message = format!("it has more than {MAX_OCTETS} octets, which is the most allowed");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_troubles_are_told_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let (mut file, text) = WatchedFile::open(&path).unwrap();
        assert_eq!((text.as_str(), file.look()), ("one", Look::Same));
        for half in ["", "t", "tw"] {
            std::fs::write(&path, half).unwrap();
            assert_eq!(file.look(), Look::Same, "it is being written");
        }
        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.look(), Look::Same);
        assert_eq!(file.look(), Look::Changed("two".into()));
        assert_eq!(file.look(), Look::Same);
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.look(), Look::Same);
        std::fs::write(&path, "two").unwrap();
        assert_eq!((file.look(), file.look()), (Look::Same, Look::Same), "it is what it was");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(), Look::Unreadable(_)));
        assert_eq!(file.look(), Look::Same);
        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.look(), Look::Same);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(), Look::Unreadable(_)), "it was there between");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        std::fs::File::create(&path).unwrap().set_len(MAX_OCTETS + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
