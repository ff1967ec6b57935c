//! An analyst who asks a history service over Arrow Flight SQL, and an administrator who has it forget an account.

use anyhow::{Context as _, Result};
use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow_flight::Action;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt as _;
use std::net::SocketAddr;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

/// Asks one history service, on loopback without credentials.
pub struct Analyst {
    runtime: Runtime,
    channel: Channel,
}

impl Analyst {
    /// Connects when something is asked.
    ///
    /// # Errors
    /// When there can be no runtime.
    pub fn new(history: SocketAddr) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let channel = runtime.block_on(async {
            Endpoint::from_shared(format!("http://{history}")).map(|endpoint| endpoint.connect_lazy())
        });
        Ok(Self { runtime, channel: channel? })
    }

    /// The rows that a query gives, each column as text; empty for NULL.
    ///
    /// # Errors
    /// When it is refused, or the service does not answer.
    pub fn ask(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let batches: Vec<RecordBatch> = self.runtime.block_on(async {
            let mut client = FlightSqlServiceClient::new(self.channel.clone());
            let info = client.execute(sql.to_owned(), None).await?;
            let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
            let rows = client.do_get(ticket.context("no ticket")?).await?;
            Ok::<_, anyhow::Error>(rows.try_collect().await?)
        })?;
        let mut rows = Vec::new();
        for batch in batches {
            let columns = batch.columns().iter().map(|column| cast(column, &DataType::Utf8));
            let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
            for row in 0..batch.num_rows() {
                let cell = |column: &arrow::array::ArrayRef| {
                    let texts = column.as_string::<i32>();
                    if texts.is_null(row) { String::new() } else { texts.value(row).to_owned() }
                };
                rows.push(columns.iter().map(cell).collect());
            }
        }
        Ok(rows)
    }

    /// Has an account forgotten. Gives what is told of each table.
    ///
    /// # Errors
    /// When it is refused, or the service does not answer.
    pub fn erase(&self, account: &str) -> Result<Vec<String>> {
        let body = serde_json::json!({ "account": account, "reason": "asked to" }).to_string();
        let action = Action { r#type: "tidegate.erase".to_owned(), body: body.into() };
        self.runtime.block_on(async {
            let mut client = FlightSqlServiceClient::new(self.channel.clone());
            let mut answer = client.inner_mut().do_action(action).await?.into_inner();
            let mut told = Vec::new();
            while let Some(one) = answer.message().await? {
                told.push(String::from_utf8(one.body.to_vec())?);
            }
            Ok(told)
        })
    }
}
