//! An account's statistics, asked of the owner of its partition over the log; and who was told of its decisions.

use super::AdminApi;
use super::check::{invalid, parse_account, wait};
use crate::admission::Call;
use crate::command_message::command_message;
use crate::paging::page_size;
use tidegate_bus::Topic;
use tidegate_domain::Account;
use tidegate_gate::append;
use tidegate_gate::new_id;
use tidegate_proto::v1;
use tidegate_proto::v1::command::Kind;
use tonic::Status;

/// Most points of each statistic's past.
const MAX_POINTS: u32 = 200;

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
        let wait = wait(request.wait_ms, &self.config)?;
        let command_id = new_id();
        let mut waiter = self.tails.inspections.wait_for(command_id.clone());
        let command = v1::Command {
            id: command_id,
            account: account.as_str().to_owned(),
            actor: "control".to_owned(),
            reason: "inspection".to_owned(),
            kind: Some(Kind::Inspect(v1::InspectCommand { points: request.points })),
        };
        let asked = append(&*self.bus, Topic::Commands, vec![command_message(&command)]).await;
        asked.map_err(|why| Status::unavailable(format!("the question could not be written: {why}")))?;
        let answer = tokio::time::timeout(wait, waiter.answer()).await;
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
        let most = page_size(request.page_size)?;
        let found = self.tails.notifications.newest(None, most, |notification| {
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
