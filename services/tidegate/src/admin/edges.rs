//! `tidegate edges`.

use super::connect::ServerArgs;
use super::format;
use serde_json::json;
use std::process::ExitCode;
use tidegate_proto::v1;

#[derive(Debug, clap::Args)]
pub struct EdgesArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Lists the edges as control sees them.
pub async fn run(args: EdgesArgs) -> anyhow::Result<ExitCode> {
    let edges = args.server.connect().await?.list_edges(v1::ListEdgesRequest {}).await?.into_inner().edges;
    if args.server.json {
        let values: Vec<_> = edges.iter().map(edge_json).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(ExitCode::SUCCESS);
    }
    if edges.is_empty() {
        println!("no edge has connected since control started");
        return Ok(ExitCode::SUCCESS);
    }
    let header = [
        "NODE",
        "SITE",
        "CONNECTED",
        "HEARD",
        "BEHIND",
        "P50 MS",
        "P99 MS",
        "SKEW MS",
        "SESSIONS",
        "REFUSED",
        "SPOOLED",
    ];
    let mut table = format::table(&header);
    let millis = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    for edge in &edges {
        let status = edge.status.unwrap_or_default();
        table.add_row([
            edge.node.clone(),
            edge.site.clone(),
            if edge.connected { "yes".to_owned() } else { format!("no, {}", format::ago(edge.since_ms)) },
            format::ago(edge.heard_ms),
            edge.behind.to_string(),
            millis(edge.propagation_p50_ms),
            millis(edge.propagation_p99_ms),
            edge.clock_skew_ms.to_string(),
            status.sessions.to_string(),
            status.refusals.to_string(),
            status.spooled.to_string(),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

fn edge_json(edge: &v1::Edge) -> serde_json::Value {
    json!({
        "node": edge.node,
        "site": edge.site,
        "version": edge.version,
        "connected": edge.connected,
        "since": format::time(edge.since_ms),
        "heard": format::time(edge.heard_ms),
        "behind": edge.behind,
        "propagation_p50_ms": edge.propagation_p50_ms,
        "propagation_p99_ms": edge.propagation_p99_ms,
        "clock_skew_ms": edge.clock_skew_ms,
        "status": edge.status.map(|status| json!({
            "sessions": status.sessions,
            "decisions": status.decisions,
            "refusals": status.refusals,
            "spooled": status.spooled,
            "lost": status.lost,
        })),
    })
}
