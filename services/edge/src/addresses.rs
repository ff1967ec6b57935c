//! Where the edge listens, for people and programs that gave it port 0.

use crate::error::EdgeError;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;

/// Name of the file in the state directory that says where the edge listens.
pub const ADDRESSES_FILE: &str = "addresses.json";

/// Where the edge listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Milter sockets, `unix:/path` or `inet:address:port`.
    pub milter: Vec<String>,
    /// Policy delegation sockets, in the same form.
    pub policy: Vec<String>,
    /// Where rspamd posts.
    pub rspamd: Option<SocketAddr>,
    /// Health and metrics.
    pub ops: SocketAddr,
}

impl Addresses {
    /// Writes them to the state directory and to the log.
    pub(crate) fn tell(&self, directory: &Path) -> Result<(), EdgeError> {
        for address in &self.milter {
            tracing::info!(protocol = "milter", address, "listening");
        }
        for address in &self.policy {
            tracing::info!(protocol = "policy", address, "listening");
        }
        if let Some(address) = self.rspamd {
            tracing::info!(protocol = "rspamd", %address, "listening");
        }
        tracing::info!(protocol = "ops", address = %self.ops, "listening");
        let (file, new) = (directory.join(ADDRESSES_FILE), directory.join("addresses.json.new"));
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &file))
            .map_err(EdgeError::file("write the addresses to", file))
    }
}
