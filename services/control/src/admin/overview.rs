//! How things are, in a few numbers.

use super::{AdminApi, Filter};
use crate::accounts::{Among, Order};
use crate::admission::Call;
use std::collections::HashSet;
use tidegate_domain::{Account, Status as AccountStatus};
use tidegate_gate::now_ms;
use tidegate_proto::v1;
use tonic::Status;

const HOUR_MS: i64 = 60 * 60 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How many days are told.
const DAYS: i64 = 30;

impl AdminApi {
    pub(super) async fn overview(&self, call: &Call) -> Result<v1::GetOverviewResponse, Status> {
        self.view.ensure_ready()?;
        let now_ms = now_ms();
        let within = Filter::new(None, &self.form, &call.scope)?;
        let mut answer = v1::GetOverviewResponse::default();
        let refused = self.view.visit(Among::Refused, Order::Name, None, |_, state| {
            if within.matches(state, now_ms) {
                match state.status {
                    AccountStatus::Locked(_) => answer.locked += 1,
                    AccountStatus::Throttled(_) => answer.throttled += 1,
                    AccountStatus::Active => {}
                }
            }
            true
        });
        refused.await;
        let on_probation = self.view.visit(Among::OnProbation, Order::Name, None, |_, state| {
            let is_on = state.probation_until_ms.is_some_and(|until_ms| now_ms < until_ms);
            answer.on_probation += u64::from(is_on && within.matches(state, now_ms));
            true
        });
        on_probation.await;
        let today_ms = now_ms - now_ms.rem_euclid(DAY_MS);
        let days = (0..DAYS).rev().map(|back| today_ms - back * DAY_MS);
        let accounts = self.view.accounts.read();
        let locks = days.map(|day_ms| (day_ms, accounts.locks_on(day_ms, call.scope.limited_to())));
        answer.locks_per_day = locks.map(|(day_ms, count)| v1::DayCount { day_ms, count }).collect();
        drop(accounts);
        answer.over_limits = self.over_limits(call, now_ms - HOUR_MS);
        if call.scope.is_all() {
            let edges = self.registry.list();
            let connected = edges.iter().filter(|edge| edge.connected);
            answer.stalest_edge_ms = connected.clone().map(|edge| (now_ms - edge.heard_ms).max(0)).max();
            let connected = connected.count();
            answer.edges_connected = Some(connected as u32);
            answer.edges_gone = Some((edges.len() - connected) as u32);
            answer.events_per_second = self.event_rate.per_second();
        }
        Ok(answer)
    }

    /// Accounts for which a rule held since `since_ms`, as far as the rules' owners still tell.
    fn over_limits(&self, call: &Call, since_ms: i64) -> u64 {
        let rule_sets = self.view.rule_sets();
        let matches = rule_sets.iter().flat_map(|set| &set.activity).flat_map(|activity| &activity.recent);
        let accounts: HashSet<&str> = matches
            .filter(|found| found.at_ms >= since_ms)
            .filter(|found| Account::parse(&found.account).is_ok_and(|account| call.scope.has(&account)))
            .map(|found| found.account.as_str())
            .collect();
        accounts.len() as u64
    }
}
