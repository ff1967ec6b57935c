//! Another version, and what changes with it: processes that are restarted become it.

use crate::faults::Victim;
use crate::process::Process;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

/// A version that is rolled out.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Folder with its two programs.
    pub programs: PathBuf,
    /// The collector that its processes send traces of all messages to, if it knows of traces: `host:port`.
    pub traces: Option<String>,
}

impl Rollout {
    /// The process, which has ended, becomes this version.
    pub(super) fn reach(&self, victim: Victim, process: &mut Process) -> Result<()> {
        let (program, file) = match victim {
            Victim::Edge(_) => ("tidegate-edge", "edge.toml"),
            _ => ("tidegate", "tidegate.toml"),
        };
        process.becomes(self.programs.join(program));
        let config = process.log().with_file_name(file);
        let text = fs::read_to_string(&config).with_context(|| format!("reading {}", config.display()))?;
        // On a line of its own at the top, where it belongs to no section.
        let rest = text.lines().filter(|line| !line.starts_with("traces = "));
        let traces = self
            .traces
            .as_ref()
            .map(|collector| format!("traces = {{ endpoint = \"http://{collector}\", sample_ratio = 1.0 }}"));
        let lines: Vec<&str> = traces.as_deref().into_iter().chain(rest).collect();
        fs::write(&config, lines.join("\n")).with_context(|| format!("writing {}", config.display()))
    }
}
