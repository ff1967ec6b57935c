//! The files that ship with Tidegate.

use tidegate_detect::{DEFAULT_RULES, DEFAULT_STATISTICS, Mode, Rules, Statistics};
use tidegate_domain::Action;

#[test]
fn the_shipped_files_have_no_problems_and_explain_themselves() {
    let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
    for statistic in statistics.list() {
        assert!(!statistic.description.is_empty() && !statistic.sql.is_empty(), "{}", statistic.name);
        assert!(!statistic.description.contains("An entry is"), "{}", statistic.name);
    }
    let columns = statistics.columns();
    assert_eq!(columns.len(), statistics.list().len() * 6);
    for name in [
        "messages_1m",
        "recipients_5m",
        "external_recipients_1h",
        "bytes_15m",
        "size_mean_6h",
        "size_cv_24h",
        "spam_1h",
        "client_ips_24h",
        "recipient_domains_1h",
        "same_content_15m",
        "sender_mismatches_1h",
        "hours_active_24h",
        "list_messages_1h",
    ] {
        assert!(columns.iter().any(|column| column == name), "{name}");
    }
    let rules = Rules::parse("rules.toml", DEFAULT_RULES, &statistics).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    });
    assert_eq!(rules.mode(), Mode::Observe, "a new installation only observes");
    for rule in rules.list() {
        assert!(rule.reason.ends_with('.') && rule.source.ends_with('.'), "{}", rule.name);
        assert!(!rule.when.contains('$') && !rule.when.contains('\n'), "{}", rule.when);
        let refuses = matches!(rule.action, Action::Lock { .. } | Action::Throttle { .. });
        assert_eq!(rule.reply.is_empty(), !refuses, "{}", rule.name);
    }
    let locks = rules.list().iter().filter(|rule| matches!(rule.action, Action::Lock { .. }));
    assert!(locks.count() >= 5);
}

#[test]
fn a_version_changes_with_what_is_effective_and_with_nothing_else() {
    let statistics = Statistics::parse("a.sql", "n = count(*); m = max(size);").unwrap();
    let same = Statistics::parse("b.sql", "-- A comment.\nN=count( * ) ;\n m = MAX(size);\n").unwrap();
    let other = Statistics::parse("a.sql", "n = count(*); m = min(size);").unwrap();
    assert_eq!(statistics.version(), same.version());
    assert_ne!(statistics.version(), other.version());

    let rule = |limit: u32, note: &str| {
        format!(
            "{note}\n[limits]\nmost = {limit}\n[[rule]]\nname = \"a\"\nwhen = \"n_1h > $most\"\naction = \"notify\"\n\
             reason = \"r\"\nsource = \"s\"\n"
        )
    };
    let version = |text: &str| Rules::parse("r.toml", text, &statistics).unwrap().version().to_owned();
    assert_eq!(version(&rule(5, "")), version(&rule(5, "# note")));
    assert_ne!(version(&rule(5, "")), version(&rule(6, "")));
    assert_ne!(version(&rule(5, "")), version(&rule(5, "mode = \"enforce\"")));
    let observed = Rules::parse("r.toml", &rule(5, ""), &statistics).unwrap();
    let enforced = observed.clone().in_mode(Mode::Enforce);
    assert_eq!(enforced.version(), version(&rule(5, "mode = \"enforce\"")));
    assert_eq!(observed.list()[0].when, "n_1h > 5");
}
