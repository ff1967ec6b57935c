//! The service is killed in the middle: what it cannot know to have arrived is sent again, under the same id.

use crate::hooks::{Answer, Hooks};
use crate::lab::{Lab, config, locked, smtp, until};
use crate::mail_server::{MailServer, Mode};
use std::collections::BTreeSet;
use tidegate_proto::v1::NotificationStatus;

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_was_taken_without_an_answer_is_repeated_octet_by_octet() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    let settings = || config(&smtp(server.port()));
    lab.start(settings()).await;
    server.set(Mode::TakeAndVanish);
    lab.publish([locked("jo@example.org", 1)]).await;
    until("it arrived without an answer", async || !server.taken().is_empty()).await;
    lab.kill().await;
    server.set(Mode::Take);
    // Meanwhile there is more to tell the same person.
    lab.publish([locked("jo@example.org", 2)]).await;
    lab.start(settings()).await;
    lab.until_status(NotificationStatus::Sent, 2).await;

    let taken = server.taken();
    let first = &taken[0];
    let repeats = taken.iter().filter(|one| one.id() == first.id());
    assert!(repeats.clone().count() >= 2, "it was repeated");
    assert!(repeats.clone().all(|one| one.content == first.content && one.to == first.to && one.from == first.from));
    let ids: BTreeSet<String> = taken.iter().map(crate::mail_server::Taken::id).collect();
    assert_eq!(ids.len(), 2, "one id for each notification");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_was_on_its_way_is_repeated_with_the_same_others() {
    let hooks = Hooks::start();
    let mut lab = Lab::new();
    let settings = || {
        config(&format!(
            "[[webhook]]\nname = \"pager\"\nurl = \"http://{}/x\"\ngroup_window_ms = 500\ntimeout_ms = 60000\n",
            hooks.address
        ))
    };
    lab.start(settings()).await;
    hooks.answer(Answer::Nothing);
    lab.publish((0..20).map(|number| locked(&format!("jo{number}@example.org"), 1))).await;
    until("the digest is on its way", async || !hooks.posted().is_empty()).await;
    lab.kill().await;
    hooks.answer(Answer::Status(200));
    lab.publish((20..25).map(|number| locked(&format!("jo{number}@example.org"), 1))).await;
    lab.start(settings()).await;
    lab.until_status(NotificationStatus::Sent, 25).await;

    let posted = hooks.posted();
    let told = |index: usize| -> BTreeSet<String> {
        let json = posted[index].json();
        json["notifications"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let repeat =
        (1..posted.len()).find(|index| posted[*index].header("tidegate-id") == posted[0].header("tidegate-id"));
    assert_eq!(told(repeat.expect("it was repeated")), told(0));
    let all: usize = (1..posted.len()).map(|index| told(index).len()).sum();
    assert_eq!(all, 25, "after the restart everything came once");
    lab.stop().await;
}
