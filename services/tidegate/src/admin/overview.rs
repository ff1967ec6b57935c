//! `tidegate whoami` and `tidegate overview`.

use super::connect::ServerArgs;
use super::format;
use serde_json::json;
use std::process::ExitCode;
use tidegate_proto::v1;

#[derive(Debug, clap::Args)]
pub struct WhoAmIArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct OverviewArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Tells who the caller is.
pub async fn who_am_i(args: WhoAmIArgs) -> anyhow::Result<ExitCode> {
    let who = args.server.connect().await?.who_am_i(v1::WhoAmIRequest {}).await?.into_inner();
    if args.server.json {
        let value = json!({
            "name": who.name,
            "role": who.role,
            "domains": who.domains,
            "credential": who.credential,
            "expires": who.expires_ms.map(format::time),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(ExitCode::SUCCESS);
    }
    let name = if who.name.is_empty() { "nobody in particular" } else { &who.name };
    let domains = if who.domains.is_empty() { "all domains".to_owned() } else { who.domains.join(", ") };
    let until = who.expires_ms.map_or_else(String::new, |ms| format!(", until {}", format::time(ms)));
    println!("{name}, {}, for {domains}, by {}{until}", who.role, who.credential);
    Ok(ExitCode::SUCCESS)
}

/// Tells how things are.
pub async fn overview(args: OverviewArgs) -> anyhow::Result<ExitCode> {
    let seen = args.server.connect().await?.get_overview(v1::GetOverviewRequest {}).await?.into_inner();
    let today = seen.locks_per_day.last().map_or(0, |day| day.count);
    if args.server.json {
        let days: serde_json::Map<_, _> = seen
            .locks_per_day
            .iter()
            .map(|day| (format::time(day.day_ms)[..10].to_owned(), json!(day.count)))
            .collect();
        let value = json!({
            "locked": seen.locked,
            "throttled": seen.throttled,
            "on_probation": seen.on_probation,
            "over_limits": seen.over_limits,
            "events_per_second": seen.events_per_second,
            "edges_connected": seen.edges_connected,
            "edges_gone": seen.edges_gone,
            "stalest_edge_ms": seen.stalest_edge_ms,
            "locks_per_day": days,
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("locked {}, throttled {}, on probation {}", seen.locked, seen.throttled, seen.on_probation);
    println!("over limits in the last hour {}, locks today {today}", seen.over_limits);
    if let Some(rate) = seen.events_per_second {
        println!("events per second {rate:.1}");
    }
    if let (Some(connected), Some(gone)) = (seen.edges_connected, seen.edges_gone) {
        println!("edges connected {connected}, gone {gone}");
    }
    Ok(ExitCode::SUCCESS)
}
