//! Plausible accounts, records and settings.

use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_proto::v1;

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

const NAMES: [&str; 24] = [
    "anna.berg",
    "b.novak",
    "carla",
    "d.okafor",
    "emil.svensson",
    "f.rossi",
    "gwen.hughes",
    "h.tanaka",
    "ines.pereira",
    "j.kowalski",
    "karin",
    "l.dubois",
    "marta.silva",
    "n.haddad",
    "office",
    "p.jensen",
    "q.li",
    "r.meyer",
    "sofia",
    "t.oconnor",
    "u.yilmaz",
    "vera.popova",
    "w.chen",
    "newsletter",
];
const DOMAINS: [&str; 5] = ["example.org", "example.com", "school.example", "clinic.example", "city.example"];
pub const RULES: [(&str, &str, &str, &str); 7] = [
    (
        "volume-alone",
        "lock",
        "recipients_1h >= $recipients_1h_lock",
        "500 external recipients in an hour, whatever they look like",
    ),
    (
        "burst-unknown",
        "lock",
        "recipients_15m >= 200 AND new_recipients_15m >= 150 AND size_cv_15m < 0.15",
        "Many recipients never written to before, one text",
    ),
    ("spam-verdicts", "lock", "spam_15m >= 5", "The filter called five messages spam"),
    ("many-countries", "lock", "countries_1h >= 3 AND messages_1h >= 20", "Mail from three countries within an hour"),
    (
        "unknown-recipients",
        "throttle",
        "unknown_recipients_1h >= 25 AND unknown_recipients_1h >= 0.3 * recipients_1h",
        "A bought list: a third of the addresses do not exist",
    ),
    (
        "burst",
        "throttle",
        "recipients_15m >= 100 OR recipients_15m > 10 * baseline_recipients_15m",
        "Far above the account's own past",
    ),
    ("warn-early", "notify", "recipients_15m >= 50", "A first look"),
];

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The same numbers at each run.
pub fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub fn accounts(count: u64) -> Vec<v1::AccountState> {
    (0..count).map(account).collect()
}

fn account(index: u64) -> v1::AccountState {
    let name = NAMES[(index % NAMES.len() as u64) as usize];
    let number = index / NAMES.len() as u64;
    let domain = DOMAINS[(mixed(index) % DOMAINS.len() as u64) as usize];
    let suffix = if number == 0 { String::new() } else { number.to_string() };
    let account = match index {
        7 => "local:www-data".to_owned(),
        11 => "\"<script>alert('name')</script>\"@example.org".to_owned(),
        _ => format!("{name}{suffix}@{domain}"),
    };
    let days = if index.is_multiple_of(5) { 1 } else { 28 * 24 };
    let since_ms = now_ms() - (mixed(index * 3) % (days * HOUR_MS as u64)) as i64 - 3 * MINUTE_MS;
    match mixed(index * 7) % 10 {
        0..=1 => locked(&account, index, since_ms),
        2 => throttled(&account, now_ms() - (mixed(index) % 50) as i64 * MINUTE_MS),
        _ => active(&account, index, since_ms),
    }
}

pub fn locked(account: &str, index: u64, since_ms: i64) -> v1::AccountState {
    let (rule, _, _, reason) = RULES[(mixed(index * 5) % 4) as usize];
    let id = format!("L-{:08X}", mixed(index * 13) as u32);
    let clients = (0..4_u64).map(|k| v1::ClientSeen {
        address: if k == 3 {
            vec![0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0x51, 9]
        } else {
            vec![203, 0, 113, (mixed(index + k) % 250) as u8]
        },
        messages: (mixed(index * 2 + k) % 180) as u32 + 1,
        last_ms: since_ms - (k as i64) * 40_000,
    });
    let evidence = |column: &str, value: f64| v1::Evidence { column: column.into(), value };
    let lock = v1::Lock {
        id: id.clone(),
        rule: Some(v1::RuleRef { name: rule.into(), rule_set: "7f3a9c21".into() }),
        reason: reason.into(),
        evidence: vec![
            evidence("recipients_15m", 412.0 + (mixed(index) % 300) as f64),
            evidence("new_recipients_15m", 398.0),
            evidence("size_cv_15m", 0.031),
            evidence("client_ips_15m", 4.0),
            evidence("countries_1h", 3.0),
        ],
        since_ms,
        reply: "Your account is locked, since it sent mail that looks stolen. Please call the help desk.".into(),
        queued_mail: v1::QueuedMail::Hold.into(),
        clients: clients.collect(),
        subjects: vec![
            "Re: invoice 20431 overdue".into(),
            "Your parcel could not be delivered".into(),
            "<script>alert('subject')</script>".into(),
        ],
        ..v1::Lock::default()
    };
    v1::AccountState {
        account: account.into(),
        status: v1::AccountStatus::Locked.into(),
        lock: Some(lock),
        version: 3,
        changed_ms: since_ms,
        timeline: vec![
            milestone(1, since_ms - 9 * MINUTE_MS, v1::Change::Noticed, "warn-early", "", "A first look", ""),
            milestone(
                2,
                since_ms - 4 * MINUTE_MS,
                v1::Change::Throttled,
                "burst",
                "",
                "Far above the account's own past",
                "",
            ),
            milestone(3, since_ms, v1::Change::Locked, rule, "", reason, &id),
        ],
        ..v1::AccountState::default()
    }
}

fn throttled(account: &str, since_ms: i64) -> v1::AccountState {
    let lock = v1::Lock {
        id: "L-5Q8WZK2T".into(),
        rule: Some(v1::RuleRef { name: "burst".into(), rule_set: "7f3a9c21".into() }),
        reason: "Far above the account's own past".into(),
        evidence: vec![v1::Evidence { column: "recipients_15m".into(), value: 121.0 }],
        since_ms,
        until_ms: Some(since_ms + HOUR_MS),
        reply: "Too much mail at a time; please try again later.".into(),
        ..v1::Lock::default()
    };
    v1::AccountState {
        account: account.into(),
        status: v1::AccountStatus::Throttled.into(),
        lock: Some(lock),
        version: 2,
        changed_ms: since_ms,
        timeline: vec![milestone(
            2,
            since_ms,
            v1::Change::Throttled,
            "burst",
            "",
            "Far above the account's own past",
            "",
        )],
        ..v1::AccountState::default()
    }
}

fn active(account: &str, index: u64, since_ms: i64) -> v1::AccountState {
    let mut state = v1::AccountState {
        account: account.into(),
        status: v1::AccountStatus::Active.into(),
        version: 4,
        changed_ms: since_ms,
        timeline: vec![
            milestone(
                3,
                since_ms - 5 * HOUR_MS,
                v1::Change::Locked,
                "spam-verdicts",
                "",
                "The filter called five messages spam",
                "L-0A1B2C3D",
            ),
            milestone(4, since_ms, v1::Change::Unlocked, "", "olaf", "Called back, password changed", "L-0A1B2C3D"),
        ],
        ..v1::AccountState::default()
    };
    if index.is_multiple_of(6) {
        state.probation_until_ms = Some(now_ms() + 30 * HOUR_MS);
    }
    if account.starts_with("newsletter") {
        state.exemptions = vec![v1::Exemption {
            rules: vec!["volume-alone".into(), "burst".into()],
            until_ms: Some(now_ms() + 90 * DAY_MS),
            actor: "amy".into(),
            reason: "Monthly newsletter, list is opt-in".into(),
        }];
    }
    state
}

fn milestone(
    version: u64,
    at_ms: i64,
    change: v1::Change,
    rule: &str,
    actor: &str,
    reason: &str,
    lock: &str,
) -> v1::Milestone {
    v1::Milestone {
        version,
        at_ms,
        change: change.into(),
        rule: rule.into(),
        actor: actor.into(),
        reason: reason.into(),
        lock_id: lock.into(),
    }
}

pub fn inspection(account: &str, points: u32) -> v1::Inspection {
    let now_ms = now_ms();
    let seed = account.bytes().map(u64::from).sum::<u64>();
    let columns: [(&str, f64); 9] = [
        ("recipients_15m", 520.0),
        ("recipients_1h", 610.0),
        ("new_recipients_15m", 470.0),
        ("messages_1h", 88.0),
        ("spam_15m", 3.0),
        ("countries_1h", 3.0),
        ("unknown_recipients_1h", 31.0),
        ("size_cv_15m", 0.04),
        ("client_ips_1h", 4.0),
    ];
    let series = columns.iter().enumerate().map(|(index, (column, high))| v1::StatisticSeries {
        column: (*column).into(),
        points: (0..points)
            .map(|point| {
                let x = f64::from(point) / f64::from(points);
                let noise = (mixed(seed + u64::from(point) * 17 + index as u64) % 100) as f64 / 100.0;
                let rise = if x < 0.7 { 0.02 + 0.05 * noise } else { (x - 0.7) / 0.3 * (0.9 + 0.1 * noise) };
                let value = if (10..14).contains(&point) { f64::NAN } else { high * rise };
                let value = if *high > 10.0 { value.round() } else { value };
                v1::StatisticPoint { at_ms: now_ms - i64::from(points - point) * MINUTE_MS, value }
            })
            .collect(),
    });
    let limit = |rule: &str, action: &str, column: &str, comparison: &str, limit: f64| v1::LimitInForce {
        rule: rule.into(),
        action: action.into(),
        column: column.into(),
        comparison: comparison.into(),
        limit,
    };
    let more = [
        "messages_5m",
        "messages_15m",
        "messages_24h",
        "recipients_24h",
        "bounces_1h",
        "login_failures_1h",
        "hours_of_day_24h",
    ];
    v1::Inspection {
        account: account.into(),
        at_ms: now_ms,
        values: columns
            .iter()
            .map(|(column, high)| v1::StatisticValue { column: (*column).into(), value: *high })
            .chain(more.iter().map(|column| v1::StatisticValue {
                column: (*column).into(),
                value: (mixed(seed + column.len() as u64) % 90) as f64,
            }))
            .chain([v1::StatisticValue { column: "baseline_recipients_15m".into(), value: f64::NAN }])
            .collect(),
        series: series.collect(),
        limits: vec![
            limit("volume-alone", "lock", "recipients_1h", ">=", 500.0),
            limit("burst-unknown", "lock", "recipients_15m", ">=", 200.0),
            limit("burst-unknown", "lock", "new_recipients_15m", ">=", 150.0),
            limit("burst-unknown", "lock", "size_cv_15m", "<", 0.15),
            limit("burst", "throttle", "recipients_15m", ">=", 100.0),
            limit("warn-early", "notify", "recipients_15m", ">=", 50.0),
            limit("spam-verdicts", "lock", "spam_15m", ">=", 5.0),
            limit("many-countries", "lock", "countries_1h", ">=", 3.0),
            limit("unknown-recipients", "throttle", "unknown_recipients_1h", ">=", 25.0),
        ],
        clients: vec![
            v1::ClientSeen { address: vec![203, 0, 113, 77], messages: 61, last_ms: now_ms - MINUTE_MS },
            v1::ClientSeen { address: vec![198, 51, 100, 9], messages: 27, last_ms: now_ms - 3 * MINUTE_MS },
        ],
        ..v1::Inspection::default()
    }
}

pub fn edges() -> Vec<v1::Edge> {
    let now_ms = now_ms();
    let edge = |node: &str, site: &str, connected, behind, skew| v1::Edge {
        node: node.into(),
        site: site.into(),
        version: "0.1.0".into(),
        connected,
        since_ms: now_ms - 5 * DAY_MS,
        heard_ms: if connected { now_ms - 900 } else { now_ms - 42 * MINUTE_MS },
        behind,
        propagation_p50_ms: connected.then_some(4.2),
        propagation_p99_ms: connected.then_some(31.0),
        clock_skew_ms: skew,
        status: Some(v1::EdgeStatus {
            sessions: 41,
            decisions: 918_231,
            refusals: 5_112,
            spooled: if connected { 0 } else { 1_830 },
            lost: 0,
        }),
    };
    vec![
        edge("mx1", "berlin", true, 0, 3),
        edge("mx2", "berlin", true, 0, -12),
        edge("smtp-a", "porto", false, 212, 3_400),
    ]
}

pub fn rule_sets(settings: &[v1::Setting]) -> Vec<v1::RuleSet> {
    let is_off = |name: &str| {
        settings.iter().any(|setting| {
        matches!(&setting.kind, Some(v1::setting::Kind::RuleSwitch(switch)) if switch.rule == name && switch.off)
    })
    };
    let rule = |(name, action, predicate, reason): &(&str, &str, &str, &str)| v1::Rule {
        name: (*name).into(),
        predicate: (*predicate).into(),
        action: (*action).into(),
        for_ms: (*action == "throttle").then_some(HOUR_MS),
        reason: (*reason).into(),
        reply: if *action == "lock" {
            "Your account is locked; please call the help desk.".into()
        } else {
            String::new()
        },
        source: "Microsoft 365: 500 external recipients an hour".into(),
        enabled: !is_off(name),
        domains: Vec::new(),
        switched_off: is_off(name),
    };
    let held = |index: u64, action: &str| v1::RuleMatch {
        account: account(index).account,
        at_ms: now_ms() - (index as i64) * 7 * MINUTE_MS,
        action: action.into(),
        observed: true,
        evidence: vec![v1::Evidence { column: "recipients_15m".into(), value: 200.0 + index as f64 }],
    };
    (0..4)
        .map(|partition| v1::RuleSet {
            partition,
            version: "7f3a9c21".into(),
            mode: v1::RuleMode::Observe.into(),
            rules: RULES.iter().map(rule).collect(),
            since_ms: now_ms() - 2 * DAY_MS,
            problems: if partition == 2 {
                vec!["rules.toml, line 41: rule \"late\": no column recipient_15m; did you mean recipients_15m?".into()]
            } else {
                Vec::new()
            },
            activity: vec![
                v1::RuleActivity {
                    rule: "burst-unknown".into(),
                    matches: 14,
                    last_ms: now_ms() - 4 * MINUTE_MS,
                    recent: (0..3).map(|k| held(k + u64::from(partition) * 3, "lock")).collect(),
                },
                v1::RuleActivity {
                    rule: "warn-early".into(),
                    matches: 132,
                    last_ms: now_ms() - MINUTE_MS,
                    recent: vec![held(u64::from(partition), "notify")],
                },
            ],
            limits: [("recipients_1h_lock".to_owned(), 500.0), ("recipients_15m_throttle".to_owned(), 100.0)].into(),
        })
        .collect()
}

pub fn audit() -> Vec<v1::AuditRecord> {
    let methods = ["UnlockAccount", "LockAccount", "ExemptAccount", "SwitchRule", "ListAccounts", "ActOnMany"];
    (0..60_u64)
        .map(|index| {
            let method = methods[(mixed(index) % 6) as usize];
            let denied = index % 9 == 4;
            v1::AuditRecord {
                id: format!("{index}"),
                time_ms: now_ms() - (60 - index as i64) * 23 * MINUTE_MS,
                actor: ["amy", "olaf", "dora", "vera"][(mixed(index * 5) % 4) as usize].into(),
                role: ["admin", "operator", "admin", "viewer"][(mixed(index * 5) % 4) as usize].into(),
                peer: format!("192.0.2.{}", mixed(index) % 30 + 1),
                method: format!("tidegate.v1.AdminService/{method}"),
                account: if method.ends_with("Account") { account(index).account } else { String::new() },
                reason: if method == "ListAccounts" { String::new() } else { "Ticket 48112: user called back".into() },
                allowed: !denied,
                result: if denied {
                    "vera is viewer; this needs the role operator or admin".into()
                } else {
                    String::new()
                },
                before: (method == "UnlockAccount").then(|| v1::AccountState { status: 3, ..Default::default() }),
                after: (method == "UnlockAccount").then(|| v1::AccountState { status: 1, ..Default::default() }),
                request: if method == "SwitchRule" { "volume-alone off".into() } else { String::new() },
                ..v1::AuditRecord::default()
            }
        })
        .collect()
}

pub fn settings() -> Vec<v1::Setting> {
    let setting = |key: &str, kind| v1::Setting {
        key: key.into(),
        actor: "amy".into(),
        reason: "Contract of the city".into(),
        set_ms: now_ms() - 6 * DAY_MS,
        kind: Some(kind),
    };
    vec![
        setting(
            "exemption/school.example",
            v1::setting::Kind::DomainExemption(v1::DomainExemption {
                domain: "school.example".into(),
                rules: vec!["burst".into()],
                until_ms: Some(now_ms() + 9 * DAY_MS),
            }),
        ),
        setting(
            "limits/city.example",
            v1::setting::Kind::Limits(v1::LimitsFor {
                subject: "city.example".into(),
                limits: [("recipients_1h_lock".to_owned(), 2_000.0)].into(),
            }),
        ),
    ]
}

pub fn notifications(account: &str) -> Vec<v1::Notification> {
    let told = |channel: &str, recipient: &str, status: v1::NotificationStatus, error: &str| v1::Notification {
        account: account.into(),
        change: v1::Change::Locked.into(),
        channel: channel.into(),
        recipient: recipient.into(),
        status: status.into(),
        attempts: if error.is_empty() { 1 } else { 12 },
        error: error.into(),
        time_ms: now_ms() - 2 * MINUTE_MS,
        ..v1::Notification::default()
    };
    vec![
        told("mail-user", account, v1::NotificationStatus::Sent, ""),
        told("chat", "https://chat.example/hooks", v1::NotificationStatus::Dead, "503 Service Unavailable"),
    ]
}
