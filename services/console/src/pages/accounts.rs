//! The accounts of which something was decided: filter, order, pages, and the choice for a bulk action.

use super::View;
use crate::clock;
use crate::fields::{Fields, link};
use crate::layout::{Page, Section, form_token};
use crate::visitor::Visitor;
use crate::words::{self, Part, part};
use axum::extract::RawQuery;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use tidegate_access::Need;
use tidegate_proto::v1;
use tidegate_proto::v1::AccountStatus;
use tonic::Status;

const SIZES: [u32; 4] = [50, 100, 250, 1_000];

/// Which accounts, in which order, and which page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// `locked`, `throttled`, `refused` for both, `active`, or empty for all.
    status: String,
    domains: String,
    contains: String,
    rule: String,
    exempted: bool,
    by_change: bool,
    size: u32,
    page: String,
}

impl Query {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence for who typed it.
    pub fn parse(fields: &Fields) -> Result<Self, String> {
        let size = fields.number("size")?.unwrap_or(SIZES[1]).clamp(1, 1_000);
        Ok(Self {
            status: fields.get("status").to_owned(),
            domains: fields.get("domains").to_owned(),
            contains: fields.get("contains").to_owned(),
            rule: fields.get("rule").to_owned(),
            exempted: fields.has("exempted"),
            by_change: fields.get("order") == "changed",
            size,
            page: fields.get("page").to_owned(),
        })
    }

    /// Which accounts.
    pub fn filter(&self) -> v1::AccountFilter {
        let statuses = match self.status.as_str() {
            "locked" => vec![AccountStatus::Locked.into()],
            "throttled" => vec![AccountStatus::Throttled.into()],
            "refused" => vec![AccountStatus::Locked.into(), AccountStatus::Throttled.into()],
            "active" => vec![AccountStatus::Active.into()],
            _ => Vec::new(),
        };
        let domains = self.domains.split([',', ' ']).map(str::trim).filter(|domain| !domain.is_empty());
        v1::AccountFilter {
            statuses,
            domains: domains.map(str::to_lowercase).collect(),
            contains: self.contains.clone(),
            rule: self.rule.clone(),
            exempted: self.exempted,
        }
    }

    fn request(&self) -> v1::ListAccountsRequest {
        let order = if self.by_change { v1::AccountOrder::Changed } else { v1::AccountOrder::Name };
        v1::ListAccountsRequest {
            filter: Some(self.filter()),
            order: order.into(),
            page_size: self.size,
            page_token: self.page.clone(),
        }
    }

    /// Where the page `page` of it is.
    fn path(&self, page: &str) -> String {
        let size = if self.size == SIZES[1] { String::new() } else { self.size.to_string() };
        let mut pairs = self.pairs().to_vec();
        pairs.extend([("order", if self.by_change { "changed" } else { "" }), ("size", &size), ("page", page)]);
        link("/accounts", &pairs)
    }

    fn pairs(&self) -> [(&'static str, &str); 5] {
        [
            ("status", &self.status),
            ("domains", &self.domains),
            ("contains", &self.contains),
            ("rule", &self.rule),
            ("exempted", if self.exempted { "yes" } else { "" }),
        ]
    }

    /// The filter in hidden fields of another form.
    pub fn hidden(&self) -> Markup {
        html! {
            @for (name, value) in self.pairs().into_iter().filter(|(_, value)| !value.is_empty()) {
                input type="hidden" name=(name) value=(value);
            }
        }
    }

    /// The filter in words.
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        if !self.status.is_empty() {
            parts.push(self.status.replace("refused", "locked or throttled"));
        }
        if !self.domains.is_empty() {
            parts.push(format!("of {}", self.domains));
        }
        if !self.contains.is_empty() {
            parts.push(format!("with “{}” in the name", self.contains));
        }
        if !self.rule.is_empty() {
            parts.push(format!("by the rule {}", self.rule));
        }
        if self.exempted {
            parts.push("with an exemption".to_owned());
        }
        if parts.is_empty() { "all accounts".to_owned() } else { format!("accounts: {}", parts.join(", ")) }
    }
}

/// The page.
pub(crate) async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let query = match Query::parse(&fields) {
        Ok(query) => query,
        Err(problem) => return visitor.failed(&crate::failure::Failure::invalid(problem).back("/accounts")),
    };
    let view = View::Accounts(query.clone());
    let parts = match view.parts(&visitor).await {
        Ok(parts) => parts,
        Err(status) => {
            let failure = crate::failure::Failure::from(status);
            return visitor.failed(&failure.back("/accounts"));
        }
    };
    let live = query.path(&query.page);
    let body = html! {
        div.title {
            h1 { "Accounts" }
            @if visitor.can(Need::Act) { a.button href="/bulk" { "Act on a list…" } }
        }
        (filter_form(&query))
        @if visitor.can(Need::Act) {
            form method="post" action="/bulk" data-choice {
                (form_token(&visitor))
                (part(&parts, "list"))
                fieldset.bar {
                    legend { "With many at once" }
                    label.check { input type="radio" name="scope" value="chosen" checked; " those chosen above" }
                    label.check { input type="radio" name="scope" value="filter"; " all that the filter finds" }
                    button type="submit" name="what" value="unlock" { "Unlock…" }
                    button type="submit" name="what" value="lock" { "Lock…" }
                    span.hint { "A dry run comes first." }
                }
            }
        } @else { (part(&parts, "list")) }
    };
    Page { title: "Accounts", section: Section::Accounts, live: &live, body }.render(&visitor).into_response()
}

/// What of it can change.
pub(super) async fn parts(visitor: &Visitor, query: &Query) -> Result<Vec<Part>, Status> {
    let answer = visitor.calls.list_accounts(query.request()).await?;
    Ok(vec![Part { id: "list", markup: list(visitor, query, &answer) }])
}

fn filter_form(query: &Query) -> Markup {
    let option = |value: &str, word: &str, now: &str| html! { option value=(value) selected[value == now] { (word) } };
    html! {
        form.filter method="get" action="/accounts" role="search" aria-label="Filter" data-filter="list" {
            div {
                label for="contains" { "Name contains" }
                input #contains type="search" name="contains" value=(query.contains) data-first
                    autocapitalize="none" spellcheck="false";
            }
            div {
                label for="status" { "Status" }
                select #status name="status" {
                    (option("", "any", &query.status)) (option("refused", "locked or throttled", &query.status))
                    (option("locked", "locked", &query.status)) (option("throttled", "throttled", &query.status))
                    (option("active", "active", &query.status))
                }
            }
            div {
                label for="domains" { "Domains" }
                input #domains name="domains" value=(query.domains) placeholder="example.org, …"
                    autocapitalize="none" spellcheck="false";
            }
            div {
                label for="rule" { "Rule" }
                input #rule name="rule" value=(query.rule) autocapitalize="none" spellcheck="false";
            }
            div {
                label for="order" { "Order" }
                select #order name="order" {
                    (option("", "by name", "-"))
                    option value="changed" selected[query.by_change] { "last changed first" }
                }
            }
            div {
                label for="size" { "Per page" }
                select #size name="size" {
                    @for size in SIZES { option value=(size) selected[size == query.size] { (size) } }
                }
            }
            div.end {
                label.check { input type="checkbox" name="exempted" value="yes" checked[query.exempted]; " exempted" }
                button.primary type="submit" { "Filter" }
                a href="/accounts" { "Reset" }
            }
        }
    }
}

fn list(visitor: &Visitor, query: &Query, answer: &v1::ListAccountsResponse) -> Markup {
    let can_choose = visitor.can(Need::Act);
    let found = words::count(answer.total, "account", "accounts");
    html! {
        // Within the part, so that "all that the filter finds" is always the filter of what is seen.
        @if can_choose { (query.hidden()) }
        p.found { (found) @if answer.total > answer.accounts.len() as u64 { ", " (answer.accounts.len()) " on this page" } }
        @if answer.accounts.is_empty() {
            (words::nothing("No account fits. Only accounts of which something was decided are listed."))
        } @else {
            (words::cards("Accounts", &html! {
                thead { tr {
                    @if can_choose { th.choose scope="col" { span.hidden { "Choose" } } }
                    th scope="col" { "Account" } th scope="col" { "Status" } th scope="col" { "Why" }
                    th scope="col" { "Changed" } th scope="col" { "Until" } th scope="col" { "Also" }
                } }
                tbody { @for state in &answer.accounts { (row(state, can_choose)) } }
            }))
        }
        nav.pages aria-label="Pages" {
            @if !query.page.is_empty() { a.button href=(query.path("")) { "First page" } }
            @if !answer.next_page_token.is_empty() {
                a.button rel="next" href=(query.path(&answer.next_page_token)) { "Next page" }
            }
        }
    }
}

fn row(state: &v1::AccountState, can_choose: bool) -> Markup {
    let now_ms = clock::now_ms();
    let lock = state.lock.as_ref();
    html! {
        tr {
            @if can_choose {
                td.choose {
                    input type="checkbox" name="account" value=(state.account) aria-label={ "Choose " (state.account) };
                }
            }
            th scope="row" { (words::account(&state.account)) }
            td.state { (words::status(state.status)) }
            td.why { @if let Some(lock) = lock { (words::why(lock)) } }
            td.time data-label="changed" { (words::short_time(state.changed_ms)) }
            td.time data-label=[lock.map(|_| "until")] {
                @match lock.map(|lock| lock.until_ms) {
                    Some(Some(until_ms)) => (words::short_time(until_ms)),
                    Some(None) => "unlocked",
                    None => "",
                }
            }
            td.also {
                @if !state.exemptions.is_empty() { span.mark { "exempted" } " " }
                @if state.probation_until_ms.is_some_and(|until_ms| until_ms > now_ms) { span.mark { "probation" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(&Fields::parse(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_query_becomes_a_filter_and_its_own_address() {
        let text = "status=refused&domains=Example.org%2C+b.test&contains=jo&rule=burst&exempted=yes&order=changed\
                    &size=50&page=abc";
        let query = query(text);
        let filter = query.filter();
        assert_eq!(filter.statuses, [3, 2]);
        assert_eq!(filter.domains, ["example.org", "b.test"]);
        assert_eq!((filter.contains.as_str(), filter.rule.as_str(), filter.exempted), ("jo", "burst", true));
        let again = Fields::parse(query.path("abc").split_once('?').unwrap().1.as_bytes());
        assert_eq!(Query::parse(&again).unwrap(), query);
        assert_eq!(query.request().page_size, 50);
    }

    #[test]
    fn nothing_set_is_all_accounts() {
        let query = query("");
        assert_eq!(query.filter(), v1::AccountFilter::default());
        assert_eq!((query.path("").as_str(), query.words().as_str()), ("/accounts", "all accounts"));
        assert!(Query::parse(&Fields::parse(b"size=many")).is_err());
    }
}
