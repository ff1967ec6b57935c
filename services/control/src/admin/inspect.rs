//! An account's statistics, asked of the owner of its partition over the log; and who was told of its decisions.

use super::AdminApi;
use super::check::{invalid, parse_account};
use crate::admission::Call;
use crate::audit::{WRITE_WAIT, new_id};
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;
use tidegate_bus::{Message, Topic};
use tidegate_domain::Account;
use tidegate_proto::v1;
use tidegate_proto::v1::command::Kind;
use tidegate_runtime::error_line;
use tonic::Status;

/// Most points of each statistic's past.
const MAX_POINTS: u32 = 200;
const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;

impl AdminApi {
    pub(super) async fn inspect(
        &self,
        call: &Call,
        request: &v1::InspectAccountRequest,
    ) -> Result<v1::InspectAccountResponse, Status> {
        let account = parse_account(&request.account, &self.form)?;
        call.check(&account)?;
        if request.points > MAX_POINTS {
            return Err(invalid("points", &format!("is {}", request.points), &format!("0 to {MAX_POINTS}")));
        }
        let wait_ms = match request.wait_ms {
            0 => self.config.command_wait_ms,
            wait_ms if wait_ms <= self.config.max_command_wait_ms => wait_ms,
            wait_ms => {
                let allowed = format!("0 to {}", self.config.max_command_wait_ms);
                return Err(invalid("wait_ms", &format!("is {wait_ms}"), &allowed));
            }
        };
        let command_id = new_id();
        let mut waiter = self.tails.inspections.wait_for(command_id.clone());
        let command = v1::Command {
            id: command_id,
            account: account.as_str().to_owned(),
            actor: "control".to_owned(),
            reason: "inspection".to_owned(),
            kind: Some(Kind::Inspect(v1::InspectCommand { points: request.points })),
        };
        let key = Bytes::copy_from_slice(account.as_str().as_bytes());
        let message = Message { key, value: Some(command.encode_to_vec().into()) };
        match tokio::time::timeout(WRITE_WAIT, self.bus.append(Topic::Commands, vec![message])).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(Status::unavailable(format!("the question could not be written: {}", error_line(&error))));
            }
            Err(_) => return Err(Status::unavailable("the question could not be written in time")),
        }
        let answer = tokio::time::timeout(Duration::from_millis(wait_ms.into()), waiter.answer()).await;
        let inspection = answer.map_err(|_| {
            Status::unavailable(
                "the owner of the account's partition has not answered in time; is a stream worker running?",
            )
        })?;
        Ok(v1::InspectAccountResponse { inspection: Some(inspection) })
    }

    pub(super) fn notifications(
        &self,
        call: &Call,
        request: &v1::ListNotificationsRequest,
    ) -> Result<v1::ListNotificationsResponse, Status> {
        let account = match request.account.as_str() {
            "" => None,
            name => Some(parse_account(name, &self.form)?),
        };
        if let Some(account) = &account {
            call.check(account)?;
        }
        let most = match request.page_size {
            0 => DEFAULT_PAGE,
            size if size <= MAX_PAGE => size,
            size => return Err(invalid("page_size", &format!("is {size}"), &format!("0 to {MAX_PAGE}"))),
        };
        let found = self.tails.notifications.newest(None, most as usize, |notification| {
            let is_meant = match &account {
                Some(account) => notification.account == account.as_str(),
                None => Account::parse(&notification.account).is_ok_and(|account| call.scope.has(&account)),
            };
            let unset = i32::from(v1::NotificationStatus::Unspecified);
            is_meant && (request.status == unset || request.status == notification.status)
        });
        let notifications = found.into_iter().map(|(_, notification)| (*notification).clone()).collect();
        Ok(v1::ListNotificationsResponse { notifications })
    }
}
