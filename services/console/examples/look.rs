//! Serves the console over an API that is made up, to look at its pages: `cargo run -p tidegate-console --example look`.
//!
//! Sign in with one of the tokens `admin`, `operator`, `viewer` and `domain`; with the argument `open` nothing is asked
//! for. A new lock comes every ten seconds.

#[path = "../tests/api/mod.rs"]
mod api;

use prometheus_client::registry::Registry;
use std::time::Duration;
use tidegate_console::{Console, ConsoleConfig};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_open = std::env::args().any(|argument| argument == "open");
    let api = api::Api::plausible(is_open);
    let console = Console::bind(ConsoleConfig::default(), api.routes(), &mut Registry::default()).await?;
    tokio::spawn(async move {
        for number in 1.. {
            tokio::time::sleep(Duration::from_secs(10)).await;
            api.locked(&format!("live{number}@example.org"));
        }
    });
    #[allow(clippy::print_stdout)]
    {
        println!("http://{}", console.local_addr());
    }
    console.run(CancellationToken::new()).await;
    Ok(())
}
