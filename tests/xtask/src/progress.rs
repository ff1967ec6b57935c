//! Says what is going on, with the time since the start, on standard error.

use std::time::Instant;

/// A clock that started with the command.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Starts the clock.
    #[expect(clippy::new_without_default, reason = "a clock that starts by default would surprise")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Prints one line.
    #[expect(clippy::print_stderr, reason = "this is the command's own output")]
    pub fn step(&self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.started.elapsed().as_secs_f32());
    }
}
