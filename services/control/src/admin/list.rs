//! Lists accounts page by page, and shows one.

use super::AdminApi;
use super::check::parse_account;
use super::filter::Filter;
use crate::accounts::{Cursor, Order};
use crate::admission::Call;
use crate::paging::page_size;
use prost::Message as _;
use std::sync::Arc;
use tidegate_domain::{Account, AccountState};
use tidegate_gate::now_ms;
use tidegate_proto::{state_to_proto, v1};
use tonic::Status;

/// Most octets of states in one page, well below the 4 MiB that gRPC clients take by default.
const MAX_PAGE_OCTETS: usize = 2 << 20;
impl AdminApi {
    pub(super) async fn list(
        &self,
        call: &Call,
        request: v1::ListAccountsRequest,
    ) -> Result<v1::ListAccountsResponse, Status> {
        self.view.ensure_ready()?;
        let filter = Filter::new(request.filter.clone(), &self.form, &call.scope)?;
        let order = order(&request)?;
        let page_size = page_size(request.page_size)?;
        let after = if request.page_token.is_empty() { None } else { Some(from_token(&request.page_token, order)?) };
        let (found, total) = self.find(&filter, order, after, page_size).await;
        let (states, next) = page(&found, order, page_size);
        Ok(v1::ListAccountsResponse {
            accounts: states,
            next_page_token: next.map(|cursor| to_token(&cursor)).unwrap_or_default(),
            total: total as u64,
        })
    }

    pub(super) fn get(&self, call: &Call, request: &v1::GetAccountRequest) -> Result<v1::GetAccountResponse, Status> {
        self.view.ensure_ready()?;
        let account = parse_account(&request.account, &self.form)?;
        call.check(&account)?;
        let position = self.view.accounts.read().position_of(&account);
        Ok(v1::GetAccountResponse {
            state: Some(state_to_proto(&self.view.state_of(&account))),
            edges: self.registry.applied(position),
        })
    }

    /// What matches after `after`: one more than the page, to know whether there is a next one. And how many match in
    /// all, for which a filter has to look at every account.
    async fn find(
        &self,
        filter: &Filter,
        order: Order,
        after: Option<Cursor>,
        page_size: usize,
    ) -> (Vec<Arc<AccountState>>, usize) {
        let now_ms = now_ms();
        let all = !filter.is_plain();
        let mut found = Vec::new();
        let mut total = 0;
        let from = if all { None } else { after.clone() };
        let visited = self.view.visit(filter.among(), order, from, |account, state| {
            if filter.matches_named(account, state, now_ms) {
                total += 1;
                if found.len() <= page_size && after.as_ref().is_none_or(|after| after.precedes(state)) {
                    found.push(Arc::clone(state));
                }
            }
            all || found.len() <= page_size
        });
        visited.await;
        if !all {
            total = self.view.accounts.read().count(filter.among());
        }
        (found, total)
    }
}

/// The page, as far as it fits into one answer, and where the next one begins; none: there is none.
fn page(found: &[Arc<AccountState>], order: Order, page_size: usize) -> (Vec<v1::AccountState>, Option<Cursor>) {
    let mut states = Vec::new();
    let mut octets = 0;
    for state in found.iter().take(page_size) {
        let state = state_to_proto(state);
        octets += state.encoded_len();
        if octets > MAX_PAGE_OCTETS && !states.is_empty() {
            break;
        }
        states.push(state);
    }
    let last = states.len().checked_sub(1).and_then(|last| found.get(last));
    let next = last.filter(|_| states.len() < found.len()).map(|state| Cursor::at(state, order));
    (states, next)
}

fn order(request: &v1::ListAccountsRequest) -> Result<Order, Status> {
    match v1::AccountOrder::try_from(request.order) {
        Ok(v1::AccountOrder::Unspecified | v1::AccountOrder::Name) => Ok(Order::Name),
        Ok(v1::AccountOrder::Changed) => Ok(Order::Changed),
        Err(_) => Err(Status::invalid_argument(format!("order is {}; allowed: name (1), changed (2)", request.order))),
    }
}

/// Where the next page begins, as text: it stays right whatever changes in between.
fn to_token(cursor: &Cursor) -> String {
    match cursor {
        Cursor::Name(account) => format!("name:{}", account.as_str()),
        Cursor::Changed(changed_ms, account) => format!("changed:{changed_ms}:{}", account.as_str()),
    }
}

fn from_token(token: &str, order: Order) -> Result<Cursor, Status> {
    let cursor = match order {
        Order::Name => token.strip_prefix("name:").and_then(|name| Account::parse(name).ok()).map(Cursor::Name),
        Order::Changed => token.strip_prefix("changed:").and_then(|rest| {
            let (changed_ms, name) = rest.split_once(':')?;
            Some(Cursor::Changed(changed_ms.parse().ok()?, Account::parse(name).ok()?))
        }),
    };
    cursor.ok_or_else(|| {
        Status::invalid_argument(
            "page_token is not one of this order; allowed: next_page_token of an answer to the same request, or empty",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_in_their_own_order_only() {
        let account = Account::parse("local:www:data").unwrap();
        for (cursor, order, other) in [
            (Cursor::Name(account.clone()), Order::Name, Order::Changed),
            (Cursor::Changed(-7, account), Order::Changed, Order::Name),
        ] {
            let token = to_token(&cursor);
            assert_eq!(from_token(&token, order).unwrap(), cursor);
            assert!(from_token(&token, other).unwrap_err().message().starts_with("page_token"));
        }
        assert!(from_token("changed:x:jo@example.org", Order::Changed).is_err());
    }
}
