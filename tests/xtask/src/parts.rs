//! Real parts that are fetched, not built by cargo: each in a folder of its own in the target folder, whole or not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Result};
use crate::paths::parts_dir;

/// The folder of the part `name`, which `fetch` fills when it is not there.
///
/// Threads take turns. Several processes may fetch at once: each into a folder of its own, and the first to finish gives it the name. A fetch
/// that was cut off leaves no part behind.
///
/// # Errors
/// When `fetch` fails, or a folder cannot be made.
pub fn part(name: &str, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = parts_dir().join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let own = parts_dir().join(format!("{name}.{}", std::process::id()));
    fs::create_dir_all(&own).context(|| format!("making {}", own.display()))?;
    let fetched = fetch(&own)
        .and_then(|()| fs::rename(&own, &folder).context(|| format!("naming the folder {}", folder.display())));
    if let Err(error) = fetched {
        let _ = fs::remove_dir_all(&own);
        // Another process was quicker.
        return if folder.is_dir() { Ok(folder) } else { Err(error) };
    }
    Ok(folder)
}

/// The same for a part that is fetched with the help of another one, which `helper` brings: only when it is needed, and
/// before it is this part's turn.
///
/// # Errors
/// When `helper` or `fetch` fails, or a folder cannot be made.
pub fn part_made_with<T>(
    name: &str,
    helper: impl FnOnce() -> Result<T>,
    fetch: impl FnOnce(&Path, T) -> Result<()>,
) -> Result<PathBuf> {
    let folder = parts_dir().join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let helper = helper()?;
    part(name, |folder| fetch(folder, helper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_part_is_fetched_once_and_whole() {
        let name = format!("sample-{}", std::process::id());
        let failed = part(&name, |folder| {
            fs::write(folder.join("half"), "").context(|| "writing".into())?;
            Err(Error::new("cut off"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "cut off");
        assert!(!parts_dir().join(&name).exists());

        let fetch = |folder: &Path| fs::write(folder.join("whole"), "").context(|| "writing".into());
        let folder = part(&name, fetch).unwrap();
        assert!(folder.join("whole").is_file() && !folder.join("half").exists());
        assert_eq!(part(&name, |_| Err(Error::new("fetched twice"))).unwrap(), folder);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_part_may_need_another_one() {
        let [outer, inner] = ["outer", "inner"].map(|name| format!("{name}-{}", std::process::id()));
        let made = part_made_with(
            &outer,
            || part(&inner, |_| Ok(())),
            |_, helper| {
                assert!(helper.ends_with(&inner));
                Ok(())
            },
        );
        let again = part_made_with(&outer, || Err::<(), _>(Error::new("needed twice")), |_, ()| Ok(()));
        assert_eq!(made.unwrap(), again.unwrap());
        for name in [outer, inner] {
            fs::remove_dir_all(parts_dir().join(name)).unwrap();
        }
    }
}
