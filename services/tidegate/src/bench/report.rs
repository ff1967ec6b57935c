//! Figures, as a table and as JSON.

use super::machine::Machine;
use super::stopwatch::Spent;
use crate::admin::format;
use serde::Serialize;
use std::fmt;
use std::time::SystemTime;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: &'static str,
    /// With what.
    pub settings: String,
    /// The figure; of times, the median.
    pub value: f64,
    /// The value that 99 of 100 do not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// Of both.
    pub unit: &'static str,
    /// How many were measured.
    pub n: u64,
    /// Wall time of the measurement.
    pub wall_s: f64,
    /// CPU time of this process in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<f64>,
}

/// All of them, and where they were measured.
#[derive(Debug, Serialize)]
pub struct Report {
    date: String,
    machine: Machine,
    quick: bool,
    figures: Vec<Figure>,
}

impl Figure {
    /// So many of something in a time.
    pub fn rate(what: &'static str, settings: String, unit: &'static str, n: u64, spent: Spent) -> Self {
        Self {
            what,
            settings,
            value: n as f64 / spent.wall_s,
            p99: None,
            unit,
            n,
            wall_s: spent.wall_s,
            cpu_s: spent.cpu_s,
        }
    }
}

impl Report {
    /// The report of this machine, today.
    pub fn new(quick: bool, figures: Vec<Figure>) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { date: format::time(since_1970.as_millis() as i64), machine: Machine::this(), quick, figures }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {} {}", self.what, self.settings, short(self.value), self.unit)?;
        if let Some(p99) = self.p99 {
            write!(f, " (p99 {})", short(p99))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.date, self.machine)?;
        if self.quick {
            writeln!(f, "--quick: a tenth of the work, rough figures")?;
        }
        let mut table = format::table(&["WHAT", "WITH", "VALUE", "P99", "UNIT", "N", "WALL s", "CPU s"]);
        for figure in &self.figures {
            table.add_row([
                figure.what.to_owned(),
                figure.settings.clone(),
                short(figure.value),
                figure.p99.map_or_else(String::new, short),
                figure.unit.to_owned(),
                figure.n.to_string(),
                short(figure.wall_s),
                figure.cpu_s.map_or_else(String::new, short),
            ]);
        }
        write!(f, "{table}")
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 4) };
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_count() {
        assert_eq!([0.0, 0.012_345, 1.234_5, 123.45, 23_456.7].map(short), ["0", "0.0123", "1.23", "123", "23457"]);
    }

    #[test]
    fn a_report_names_machine_figures_and_times() {
        let spent = Spent { wall_s: 2.0, cpu_s: Some(1.5) };
        let report = Report::new(true, vec![Figure::rate("detect", "20 rules".into(), "events/s", 1_000, spent)]);
        let text = report.to_string();
        assert!(text.contains("DataFusion") && text.contains("--quick") && text.contains("500"), "{text}");
        assert_eq!(serde_json::to_value(&report).unwrap()["figures"][0]["cpu_s"], 1.5);
    }
}
