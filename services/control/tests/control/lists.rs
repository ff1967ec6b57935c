//! Lists, one account, rules.

use crate::harness::{Control, active, locked, names, until};
use prost::Message as _;
use tidegate_bus::{Bus, Message, Topic};
use tidegate_proto::v1;

async fn pages(control: &Control, request: v1::ListAccountsRequest) -> (Vec<String>, Vec<usize>, u64) {
    let mut request = request;
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = control.admin().list_accounts(request.clone()).await.unwrap().into_inner();
        all.extend(names(&page.accounts).into_iter().map(str::to_owned));
        sizes.push(page.accounts.len());
        if page.next_page_token.is_empty() {
            return (all, sizes, page.total);
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_thousand_accounts_are_listed_once_each_in_either_order() {
    let states = (0..1_050).map(|n| active(&format!("user{n:04}@example.org"), 2_000 - n)).collect();
    let control = Control::start(states).await;
    let expected: Vec<String> = (0..1_050).map(|n| format!("user{n:04}@example.org")).collect();
    for order in [v1::AccountOrder::Unspecified, v1::AccountOrder::Name, v1::AccountOrder::Changed] {
        let request = v1::ListAccountsRequest { order: order.into(), page_size: 500, ..Default::default() };
        let (all, sizes, total) = pages(&control, request).await;
        // The later the name, the longer ago the change.
        assert_eq!(all, expected);
        assert_eq!((sizes, total), (vec![500, 500, 50], 1_050));
    }
    let (all, sizes, _) = pages(&control, v1::ListAccountsRequest::default()).await;
    assert_eq!((all.len(), sizes.len(), sizes[0]), (1_050, 11, 100));
}

#[tokio::test]
async fn a_page_token_stays_right_while_accounts_come_and_go() {
    let control = Control::start((0..10).map(|n| active(&format!("user{n}@example.org"), 1)).collect()).await;
    let first = v1::ListAccountsRequest { page_size: 4, ..Default::default() };
    let page = control.admin().list_accounts(first.clone()).await.unwrap().into_inner();
    assert_eq!(page.next_page_token, "name:user3@example.org");
    control.bus.append(Topic::Accounts, vec![Message::new("user3@example.org".into(), None)]).await.unwrap();
    control.put(vec![active("a@example.org", 1)]).await;
    let control = &control;
    until("both are read", || async {
        let request = v1::ListAccountsRequest::default();
        names(&control.admin().list_accounts(request).await.unwrap().into_inner().accounts)[0] == "a@example.org"
    })
    .await;
    let next = v1::ListAccountsRequest { page_token: page.next_page_token, ..first };
    let page = control.admin().list_accounts(next).await.unwrap().into_inner();
    assert_eq!(names(&page.accounts)[0], "user4@example.org");
}

#[tokio::test]
async fn filters_narrow_the_list_and_the_total() {
    let control = Control::start(vec![
        active("al@example.org", 1),
        locked("bo@example.org", 1),
        locked("cy@example.net", 1),
        active("dee@example.net", 1),
    ])
    .await;
    let list = |filter: v1::AccountFilter| {
        let request = v1::ListAccountsRequest { filter: Some(filter), page_size: 1, ..Default::default() };
        pages(&control, request)
    };
    let locked = vec![v1::AccountStatus::Locked.into()];
    let (all, _, total) = list(v1::AccountFilter { statuses: locked.clone(), ..Default::default() }).await;
    assert_eq!((all, total), (vec!["bo@example.org".to_owned(), "cy@example.net".to_owned()], 2));
    let domains = vec!["example.net".to_owned()];
    let (all, sizes, total) = list(v1::AccountFilter { statuses: locked, domains, ..Default::default() }).await;
    assert_eq!((all, sizes, total), (vec!["cy@example.net".to_owned()], vec![1], 1));
    let (all, _, _) =
        list(v1::AccountFilter { rule: "burst".into(), contains: "bo".into(), ..Default::default() }).await;
    assert_eq!(all, ["bo@example.org"]);
    let (all, _, total) = list(v1::AccountFilter { exempted: true, ..Default::default() }).await;
    assert_eq!((all.len(), total), (0, 0));
}

#[tokio::test]
async fn what_cannot_be_listed_is_named() {
    let control = Control::start(Vec::new()).await;
    for (request, expected) in [
        (v1::ListAccountsRequest { page_size: 1_001, ..Default::default() }, "page_size is 1001; allowed: 0 to 1000"),
        (v1::ListAccountsRequest { page_token: "x".into(), ..Default::default() }, "page_token"),
        (v1::ListAccountsRequest { order: 9, ..Default::default() }, "order is 9"),
    ] {
        let status = control.admin().list_accounts(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with(expected), "{status}");
    }
    let unknown = v1::GetAccountRequest { account: "nobody@example.org".into() };
    let state = control.admin().get_account(unknown).await.unwrap().into_inner().state.unwrap();
    assert_eq!((state.version, state.status()), (0, v1::AccountStatus::Active));
}

#[tokio::test]
async fn records_that_do_not_decode_are_skipped_and_rules_are_listed() {
    let control = Control::start(vec![active("al@example.org", 1)]).await;
    let junk = |key: &'static str, value: &'static [u8]| Message::new(key.into(), Some(value.into()));
    let other = locked("cy@example.org", 1);
    let other = tidegate_proto::state_to_proto(&other).encode_to_vec();
    control
        .bus
        .append(
            Topic::Accounts,
            vec![
                junk("al@example.org", b"\xff\xff"),
                junk("not an account", b"\x0a\x00"),
                Message::new("bo@example.org".into(), Some(other.into())),
            ],
        )
        .await
        .unwrap();
    let rule_set = |partition| v1::RuleSet { partition, version: "ab12".into(), ..Default::default() };
    let rules = [3, 0, 99].map(|n| Message::new(n.to_string().into(), Some(rule_set(n).encode_to_vec().into())));
    control.bus.append(Topic::Rules, rules.to_vec()).await.unwrap();
    let control = &control;
    until("all is read", || async {
        control.metric("tidegate_control_records_skipped_total{topic=\"accounts\"}") > 2.5
            && control.metric("tidegate_control_records_skipped_total{topic=\"rules\"}") > 0.5
    })
    .await;
    let rule_sets = control.admin().list_rules(v1::ListRulesRequest {}).await.unwrap().into_inner().rule_sets;
    let partitions: Vec<u32> = rule_sets.iter().map(|rule_set| rule_set.partition).collect();
    assert_eq!(partitions, [0, 3]);
    let accounts = control.admin().list_accounts(v1::ListAccountsRequest::default()).await.unwrap().into_inner();
    assert_eq!(names(&accounts.accounts), ["al@example.org"]);
}
