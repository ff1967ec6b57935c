//! Reads what a program tells Prometheus (the text format, and OpenMetrics).

use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::http;

/// All series of one program at one moment.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Asks `server` for `/metrics`.
    ///
    /// # Errors
    /// When there is no server, or it answers with something else than metrics.
    pub fn read(server: SocketAddr) -> Result<Self> {
        let response = http::get(server, "/metrics")?;
        if response.status != 200 {
            bail!("GET http://{server}/metrics: status {}: {}", response.status, response.body);
        }
        Self::parse(&response.body)
    }

    /// From the text of `/metrics`.
    ///
    /// # Errors
    /// When a line is neither a comment nor a series.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let sample = |line| parse_line(line).ok_or_else(|| anyhow::anyhow!("no metric: {line:?}"));
        Ok(Self(lines.map(sample).collect::<Result<_>>()?))
    }

    /// The sum of all series with this name, as it stands in the text (a counter's ends with `_total`), that have at
    /// least these labels. None when there is none: a series with labels appears when it is first counted.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample, label: &(&str, &str)| {
            sample.labels.iter().any(|(name, value)| (name.as_str(), value.as_str()) == *label)
        };
        let series = self.0.iter().filter(|sample| sample.name == name);
        let values = series.filter(|sample| labels.iter().all(|label| has(sample, label))).map(|sample| sample.value);
        values.reduce(|sum, value| sum + value)
    }

    /// The same, with 0 for a series that is not there. It cannot tell a misspelt name from one that was never
    /// counted, so a test that expects 0 should see the same series move elsewhere.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or(0.0)
    }

    /// The names of all series, each once, for an error's text.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `name{label="value",...} 1.5`, and perhaps a time and an exemplar after that.
fn parse_line(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => parse_labels(inside)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what comes after it.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(quoted)?;
        labels.push((name.to_owned(), value));
        rest = after;
    }
}

/// The text up to the closing quote, with `\\`, `\"` and `\n` resolved, and what comes after it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[position + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP refused Refused commands.
# TYPE refused counter
refused_total{stage="mail",account="a@b.test"} 3
refused_total{stage="rcpt",account="a@b.test"} 4 1700000000
refused_total{stage="rcpt",account="q\"u\\o}t,e=\n"} 5 # {trace="x"} 1
staleness_seconds 0.25
wait_seconds_bucket{le="+Inf"} 17
# EOF
"#;

    #[test]
    fn sums_the_series_that_have_the_labels() {
        let metrics = Metrics::parse(TEXT).unwrap();
        let refused = |labels: &[(&str, &str)]| metrics.find("refused_total", labels);
        assert_eq!(refused(&[]), Some(12.0));
        assert_eq!(refused(&[("stage", "rcpt")]), Some(9.0));
        assert_eq!(refused(&[("account", "a@b.test"), ("stage", "rcpt")]), Some(4.0));
        assert_eq!(refused(&[("account", "q\"u\\o}t,e=\n")]), Some(5.0));
        assert_eq!(refused(&[("stage", "data")]), None);
        assert_eq!(metrics.find("refused", &[]), None);
        assert_eq!(metrics.value("staleness_seconds", &[]), 0.25);
        assert_eq!(metrics.value("wait_seconds_bucket", &[("le", "+Inf")]), 17.0);
        assert_eq!(metrics.value("no_such_thing", &[]), 0.0);
        assert_eq!(metrics.names(), ["refused_total", "staleness_seconds", "wait_seconds_bucket"]);
    }

    #[test]
    fn a_line_that_is_no_metric_is_an_error() {
        for bad in ["<html>", "a{b=\"c\" 1", "a{b=c} 1", "a one", "{a=\"b\"} 1"] {
            assert!(Metrics::parse(bad).is_err(), "{bad}");
        }
    }
}
