//! What it was measured on.

use serde::Serialize;
use std::fs;

/// The machine and the versions.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: Option<f64>,
    system: String,
    tidegate: &'static str,
    build: &'static str,
    datafusion: &'static str,
    sqlite: &'static str,
    librdkafka: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let cpu = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let memory_kib = line_of("/proc/meminfo", "MemTotal");
        let memory_kib = memory_kib.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: memory_kib.map(|kib| (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0),
            system: format!("{} {}", std::env::consts::OS, kernel.trim()),
            tidegate: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "not a release build" } else { "release" },
            datafusion: tidegate_detect::DATAFUSION_VERSION,
            sqlite: tidegate_journal::sqlite_version(),
            librdkafka: tidegate_bus::kafka::client_version(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memory = self.memory_gib.map_or_else(String::new, |gib| format!(", {gib} GiB"));
        writeln!(f, "{}, {} cores{memory}, {}", self.cpu, self.cores, self.system)?;
        write!(
            f,
            "tidegate {} ({}), DataFusion {}, SQLite {}, librdkafka {}",
            self.tidegate, self.build, self.datafusion, self.sqlite, self.librdkafka
        )
    }
}

fn line_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
