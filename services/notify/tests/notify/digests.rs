//! Many decisions at once are few messages to the same person.

use crate::lab::{Lab, config, locked, smtp, unlocked};
use crate::mail_server::MailServer;
use mail_parser::MessageParser;
use tidegate_proto::v1::NotificationStatus;

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_locks_are_few_mails_to_the_same_administrator() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    let many = 500;
    // Users are not told, so that what arrives is what administrators get.
    lab.start(config(&format!(
        "user_changes = []\nadministrators = [\"abuse@example.org\"]\n{}\
         [domains.\"example.org\"]\nadministrators = [\"boss@example.org\"]\nlanguage = \"fr\"\n",
        smtp(server.port())
    )))
    .await;
    lab.publish((0..many).map(|number| locked(&format!("jo{number}@example.org"), 1))).await;
    lab.until_status(NotificationStatus::Sent, 2 * many).await;
    let taken = server.taken();
    for (to, words) in [("abuse@example.org", "locked"), ("boss@example.org", "blocages")] {
        let mails: Vec<_> = taken.iter().filter(|one| one.to == to).collect();
        assert!(mails.len() <= 2, "{} mails to {to}", mails.len());
        let message = MessageParser::default().parse(&mails[0].content).unwrap();
        assert!(message.subject().unwrap().contains(words), "{:?}", message.subject());
        let text = message.body_text(0).unwrap();
        assert!(text.contains("jo0@example.org") && text.lines().count() > 200, "{text}");
        assert!(mails[0].content.len() < 200_000, "it names some, and counts the rest");
    }
    // A group's id is one of its own, and all of its records say it.
    let newest = lab.newest().await;
    let groups: std::collections::BTreeSet<_> = newest.values().map(|one| one.group_id.clone()).collect();
    let ids: std::collections::BTreeSet<_> = taken.iter().map(|one| one.id().replace("@example.org", "")).collect();
    assert_eq!(groups, ids);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_goes_to_and_fro_is_not_told_without_end() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    lab.start(config(&format!("max_per_account_hour = 2\n{}", smtp(server.port())))).await;
    let mut state = locked("jo@example.org", 1);
    lab.publish([state.clone()]).await;
    lab.until_status(NotificationStatus::Sent, 1).await;
    state = unlocked(state);
    lab.publish([state.clone()]).await;
    lab.until_status(NotificationStatus::Sent, 2).await;
    // The timeline goes on; beyond the limit only the newest waits, the others are noted as left out.
    for version in 3..8 {
        let mut next = locked("jo@example.org", version);
        state.timeline.append(&mut next.timeline);
        next.timeline.clone_from(&state.timeline);
        state = next;
        lab.publish([state.clone()]).await;
    }
    lab.until_status(NotificationStatus::Suppressed, 4).await;
    let newest = lab.newest().await;
    let waiting: Vec<_> = newest.values().filter(|one| one.status() == NotificationStatus::Pending).collect();
    assert_eq!((waiting.len(), waiting[0].version), (1, 7));
    assert_eq!(server.taken().len(), 2);
    assert!(
        lab.metric("tidegate_notify_notifications_total{channel=\"mail\",kind=\"lock\",result=\"suppressed\"}") >= 4.0
    );
    lab.stop().await;
}
