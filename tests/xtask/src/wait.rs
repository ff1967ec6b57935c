//! Waiting for a condition, never for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long to let pass between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until `look` gives a value, and gives it back; after `timeout` an error that names `what` was waited for.
///
/// # Errors
/// When `timeout` has passed.
pub fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!("waited {} s in vain for {what}", timeout.as_secs_f32())));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Polls until `condition` holds.
///
/// # Errors
/// When `timeout` has passed.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, timeout, || condition().then_some(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_it_waited_for() {
        let mut looks = 0;
        let value = wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn says_what_never_came() {
        let error = wait_until("a blue moon", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("a blue moon"), "{error}");
    }
}
