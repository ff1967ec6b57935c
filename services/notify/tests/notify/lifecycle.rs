//! What is told and what is not: first starts, restarts, dead letters, reminders, contacts, an operator's templates.

use crate::lab::{Lab, config, locked, now_ms, smtp, unlocked, until};
use crate::mail_server::{MailServer, Mode};
use bytes::Bytes;
use mail_parser::MessageParser;
use prost::Message as _;
use tidegate_bus::{Bus as _, Message, Topic};
use tidegate_notify::{Templates, retry};
use tidegate_proto::v1;
use tidegate_proto::v1::NotificationStatus;

const DAY_MS: i64 = 86_400_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_the_first_start_is_not_told_and_restarts_tell_nothing_twice() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    let settings = || config(&smtp(server.port()));
    let before = locked("jo@example.org", 1);
    lab.publish([before.clone()]).await;
    lab.start(settings()).await;
    lab.until_status(NotificationStatus::Suppressed, 1).await;
    // The next state of it has the old decision in its timeline, too.
    let after = unlocked(before);
    lab.publish([after.clone()]).await;
    lab.until_status(NotificationStatus::Sent, 1).await;
    lab.stop().await;

    // While nobody is there an account goes through three states; only the last one is in the log, perhaps.
    let mut again = locked("jo@example.org", 3);
    again.timeline.splice(0..0, after.timeline);
    let last = unlocked(again);
    lab.publish([last.clone()]).await;
    lab.start(settings()).await;
    lab.until_status(NotificationStatus::Sent, 3).await;
    lab.stop().await;
    lab.start(settings()).await;
    // The same state once more, as a new owner of the stream might write it.
    lab.publish([last, locked("amy@example.org", 1)]).await;
    lab.until_status(NotificationStatus::Sent, 4).await;
    let subjects: Vec<String> = server
        .taken()
        .iter()
        .map(|taken| MessageParser::default().parse(&taken.content).unwrap().subject().unwrap().to_owned())
        .collect();
    // The lock and the unlock of the time between came together: the user hears of both.
    assert_eq!(subjects.len(), 3, "{subjects:?}");
    assert!(
        subjects[0].contains("again") && subjects[1].starts_with("2 messages") && subjects[2].contains("locked"),
        "{subjects:?}"
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_can_be_sent_once_more_under_its_old_id() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    let settings = || config(&smtp(server.port()));
    lab.start(settings()).await;
    server.set(Mode::Refuse);
    lab.publish([locked("jo@example.org", 1)]).await;
    lab.until_status(NotificationStatus::Dead, 1).await;
    let (id, dead) = lab.newest().await.into_iter().next().unwrap();
    assert!(dead.error.contains("550"), "{}", dead.error);

    server.set(Mode::Take);
    retry(&*lab.bus, &id, now_ms()).await.unwrap();
    lab.until_status(NotificationStatus::Sent, 1).await;
    assert_eq!(server.taken()[0].id(), format!("{id}@example.org"));
    let error = retry(&*lab.bus, &id, now_ms()).await.unwrap_err().to_string();
    assert!(error.ends_with("this one is sent"), "{error}");
    let error = retry(&*lab.bus, "nothing", now_ms()).await.unwrap_err().to_string();
    assert!(error.starts_with("there is no notification \"nothing\""), "{error}");

    // The same while nobody is there.
    server.set(Mode::Refuse);
    lab.publish([locked("amy@example.org", 1)]).await;
    lab.until_status(NotificationStatus::Dead, 1).await;
    lab.stop().await;
    let newest = lab.newest().await;
    let id = &newest.values().find(|one| one.status() == NotificationStatus::Dead).unwrap().id;
    retry(&*lab.bus, id, now_ms()).await.unwrap();
    server.set(Mode::Take);
    lab.start(settings()).await;
    lab.until_status(NotificationStatus::Sent, 2).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_are_reminded_once_before_exemptions_end() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    let settings = || {
        config(&format!(
            "administrators = [\"abuse@example.org\"]\n{}[domains.\"example.com\"]\nlanguage = \"de\"\nadministrators = [\"boss@example.com\"]\n",
            smtp(server.port())
        ))
    };
    let exempted = |account: &str, days: i64| v1::AccountState {
        account: account.into(),
        version: 1,
        exemptions: vec![v1::Exemption {
            rules: vec!["burst".into()],
            until_ms: Some(now_ms() + days * DAY_MS),
            actor: "amy".into(),
            reason: "newsletter".into(),
        }],
        ..Default::default()
    };
    // One is there before the first start, one comes later, one is not due.
    lab.publish([exempted("news@example.org", 3)]).await;
    lab.start(settings()).await;
    lab.until_status(NotificationStatus::Sent, 1).await;
    let setting = v1::Setting {
        key: "exemption/example.com".into(),
        actor: "amy".into(),
        reason: "migration".into(),
        kind: Some(v1::setting::Kind::DomainExemption(v1::DomainExemption {
            domain: "example.com".into(),
            rules: Vec::new(),
            until_ms: Some(now_ms() + 2 * DAY_MS),
        })),
        ..Default::default()
    };
    let key = Bytes::from(setting.key.clone());
    let message = Message::new(key, Some(setting.encode_to_vec().into()));
    lab.bus.append(Topic::Settings, vec![message]).await.unwrap();
    lab.publish([exempted("later@example.org", 30)]).await;
    lab.until_status(NotificationStatus::Sent, 3).await;
    lab.stop().await;
    lab.start(settings()).await;
    lab.publish([locked("mark@example.com", 1)]).await;
    // The lock is told to the user and two administrators; no reminder comes again.
    lab.until_status(NotificationStatus::Sent, 6).await;
    let reminders = server.taken().into_iter().filter_map(|taken| {
        let subject = MessageParser::default().parse(&taken.content).unwrap().subject().unwrap().to_owned();
        (subject.contains("xempt") || subject.contains("Ausnahme")).then_some((taken.to, subject))
    });
    let reminders: Vec<_> = reminders.collect();
    assert_eq!(reminders.len(), 3, "{reminders:?}");
    assert!(reminders[0].1.starts_with("The exemption of news@example.org ends on"), "{reminders:?}");
    assert!(reminders.iter().any(|(to, subject)| to == "boss@example.com" && subject.starts_with("Die Ausnahme für @example.com endet")));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_and_an_operators_templates_go_over_what_is_shipped() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    let contacts = lab.file("contacts.csv", "account,address,language\njo@example.org,jo@home.test,nl\n");
    let folder = lab.file("marker", "").parent().unwrap().join("templates");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(
        folder.join("nl.toml"),
        "language = \"Nederlands\"\n[user.lock]\nsubject = \"Geblokkeerd: {{ account }}\"\n",
    )
    .unwrap();
    std::fs::write(folder.join("layout.txt"), "{{ content }}\n\nEen eigen voet\n").unwrap();
    let settings = config(&format!(
        "max_per_account_hour = 1000\nmax_per_recipient_hour = 10000\ncontacts = {contacts:?}\ntemplates = {folder:?}\n{}",
        smtp(server.port())
    ));
    lab.start(settings.clone()).await;
    lab.publish([locked("jo@example.org", 1), locked("local:cron", 1)]).await;
    lab.until_status(NotificationStatus::Sent, 1).await;
    let taken = server.taken();
    assert_eq!(taken[0].to, "jo@home.test");
    let message = MessageParser::default().parse(&taken[0].content).unwrap();
    assert_eq!(message.subject(), Some("Geblokkeerd: jo@example.org"));
    let text = message.body_text(0).unwrap();
    assert!(text.contains("Change your password now") && text.trim_end().ends_with("Een eigen voet"), "{text}");

    // A contact that changes is taken without a restart.
    lab.file("contacts.csv", "jo@example.org,jo@work.test,de\n");
    let mut version = 1;
    until("the new address is used", async || {
        version += 1;
        let sent = lab.newest().await.len();
        lab.publish([locked(&format!("jo{version}@example.org"), 1)]).await;
        lab.until_status(NotificationStatus::Sent, sent + 1).await;
        let mut state = locked("jo@example.org", version);
        state.timeline[0].version = version;
        lab.publish([state]).await;
        lab.until_status(NotificationStatus::Sent, sent + 2).await;
        server.taken().iter().any(|taken| taken.to == "jo@work.test")
    })
    .await;
    lab.stop().await;

    std::fs::write(
        folder.join("nl.toml"),
        "[user.lock]\nbody = \"{{ acount }} {% if %}\"\n[user.lokc]\nsubject = \"x\"\n",
    )
    .unwrap();
    let error = Templates::load(&settings).unwrap_err().to_string();
    assert!(error.contains("nl/user.lock.txt line 1") && error.contains("there is no text user.lokc"), "{error}");
    std::fs::write(folder.join("nl.toml"), "[user.lock]\nbody = \"{{ acount }}\"\n").unwrap();
    let error = Templates::load(&settings).unwrap_err().to_string();
    assert!(error.contains("nl/user.lock.txt line 1: undefined"), "{error}");
}
