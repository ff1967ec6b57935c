//! The configuration files of the server and the edge.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_edge::EdgeConfig;
use tidegate_runtime::Validate;
use tidegate_runtime::config::{ConfigError, parse};

use crate::input::outcome;
use crate::{Outcome, Target};

/// The server is a program, not a library: its configuration is compiled in from there.
#[path = "../../../services/tidegate/src/config.rs"]
mod server;

use server::ServerConfig;

const EDGE_REFERENCE: &str = include_str!("../../../services/edge/tidegate-edge.toml");
const SERVER_REFERENCE: &str = include_str!("../../../services/tidegate/tidegate.toml");

/// An edge's configuration.
pub const EDGE: Target = Target {
    name: "edge-config",
    run: |octets| run::<EdgeConfig>(octets),
    seeds: || seeds(EDGE_REFERENCE, "node = \"mx1\"\nsite = \"ams\"\n"),
    words: &[
        "[milter]\n",
        "[policy]\n",
        "[control]\n",
        "[publish]\n",
        "[session]\n",
        "listen = [\"inet:127.0.0.1:1\"]\n",
        "endpoint = \"https://a:1\"\n",
        "tls = {}\n",
        "kind = \"kafka\"\n",
        "0",
        "-1",
        "9223372036854775807",
        "1e400",
        "''",
        "\"\"\"",
        "[]",
        "{}",
        "= ",
        "\n",
    ],
    max_octets: 6 * 1024,
    test_inputs: 5_000,
};

/// The server's configuration.
pub const SERVER: Target = Target {
    name: "server-config",
    run: |octets| run::<ServerConfig>(octets),
    seeds: || seeds(SERVER_REFERENCE, "[log]\nkind = \"embedded\"\n"),
    words: &[
        "[log]\n",
        "[stream]\n",
        "[control]\n",
        "[history]\n",
        "[ops]\n",
        "kind = \"kafka\"\n",
        "kind = \"embedded\"\n",
        "listen = \"0.0.0.0:1\"\n",
        "[log.properties]\n",
        "partitions = ",
        "0",
        "-1",
        "9223372036854775807",
        "1e400",
        "''",
        "\"\"\"",
        "[]",
        "{}",
        "= ",
        "\n",
    ],
    max_octets: 6 * 1024,
    test_inputs: 5_000,
};

fn run<T: DeserializeOwned + Serialize + Validate>(octets: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(octets);
    let path = Path::new("a-file.toml");
    match parse::<T>(path, &text) {
        Ok(config) => {
            let written = toml::to_string(&config).unwrap();
            let again = parse::<T>(path, &written).unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(toml::to_string(&again).unwrap(), written, "it is not the same when it is read again");
            outcome(0)
        }
        Err(ConfigError::Invalid { problems, .. }) => {
            let keys: Vec<String> = problems
                .iter()
                .map(|problem| {
                    assert!(!problem.key.is_empty() && !problem.message.is_empty());
                    problem.key.chars().filter(|c| !c.is_ascii_digit()).collect()
                })
                .collect();
            assert!(!keys.is_empty());
            outcome(keys)
        }
        Err(ConfigError::Syntax { message, .. }) => {
            assert!(!message.is_empty());
            outcome(
                message.lines().last().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect::<String>(),
            )
        }
        Err(error @ ConfigError::Read { .. }) => panic!("{error}"),
    }
}

/// The reference as it is, with its examples, and section by section.
fn seeds(reference: &str, must: &str) -> Vec<Vec<u8>> {
    let examples = reference.replace("#: ", "");
    let bare = |text: &str| {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
        lines.join("\n") + "\n"
    };
    let mut seeds = vec![bare(reference), bare(&examples), must.to_owned()];
    seeds.extend(bare(&examples).split("\n[").skip(1).map(|section| format!("{must}[{section}\n")));
    seeds.into_iter().map(String::into_bytes).collect()
}
