//! Names, reasons and subjects that somebody else chose do not break out of headers, HTML or JSON.

use crate::hooks::Hooks;
use crate::lab::{Lab, config, locked, smtp};
use crate::mail_server::MailServer;
use mail_parser::MessageParser;
use tidegate_proto::v1;
use tidegate_proto::v1::NotificationStatus;

const NASTY: &str = "x\r\nBcc: victim@example.com\r\n\r\n<script>alert(1)</script> \"}],{{ 7*7 }} &amp; <!channel> \u{202e}gpj.exe \u{0} '`";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_thief_chooses_stays_text() {
    let server = MailServer::start();
    let hooks = Hooks::start();
    let mut lab = Lab::new();
    let custom = lab
        .file("own.json", "{\"who\": {{ notifications[0].account }}, \"why\": {{ \"a \" ~ notifications[0].reason }}}");
    let hook = |name: &str, template: &str| {
        format!(
            "[[webhook]]\nname = \"{name}\"\nurl = \"http://{}/{name}\"\ntemplate = {template:?}\ngroup_window_ms = 0\n",
            hooks.address
        )
    };
    let all = [
        hook("generic", "generic"),
        hook("slack", "slack"),
        hook("alerts", "alertmanager"),
        hook("own", custom.to_str().unwrap()),
    ]
    .concat();
    lab.start(config(&format!("administrators = [\"abuse@example.org\"]\n{all}{}", smtp(server.port())))).await;

    let account = "\"<b>jo</b>\"@example.org";
    let mut state = locked(account, 1);
    let lock = state.lock.as_mut().unwrap();
    lock.reason = NASTY.into();
    lock.reply = NASTY.into();
    lock.subjects = vec![NASTY.into(), "Re: <img src=x onerror=alert(1)>".into()];
    lock.rule = Some(v1::RuleRef { name: NASTY.into(), rule_set: "1".into() });
    lock.evidence.push(v1::Evidence { column: NASTY.into(), value: f64::NAN });
    let milestone = state.timeline.last_mut().unwrap();
    milestone.reason = NASTY.into();
    milestone.rule = NASTY.into();
    milestone.actor = NASTY.into();
    milestone.lock_id = NASTY.into();
    lock.id = NASTY.into();
    lab.publish([state]).await;
    let expected = recipients(account);
    crate::lab::until("nothing is pending", async || {
        let newest = lab.newest().await;
        newest.len() == expected && newest.values().all(|one| one.status() != NotificationStatus::Pending)
    })
    .await;
    let newest = lab.newest().await;
    let failed: Vec<_> = newest.values().filter(|one| one.status() != NotificationStatus::Sent).collect();
    assert!(failed.is_empty(), "{failed:?}");

    for taken in server.taken() {
        let message = MessageParser::default().parse(&taken.content).unwrap();
        let headers = message.parts[0].headers.iter().map(|header| header.name().to_owned()).collect::<Vec<_>>();
        assert!(!headers.iter().any(|name| name.eq_ignore_ascii_case("Bcc")), "{headers:?}");
        assert_eq!(headers.iter().filter(|name| name.eq_ignore_ascii_case("Subject")).count(), 1);
        assert_eq!(message.to().unwrap().iter().count(), 1);
        let subject = message.subject().unwrap();
        assert!(!subject.contains(['\r', '\n', '\u{202e}', '\u{0}']), "{subject:?}");
        let (text, html) = (message.body_text(0).unwrap(), message.body_html(0).unwrap());
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<b>jo"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
        for body in [&text, &html] {
            assert!(!body.contains('\u{202e}') && !body.contains('\u{0}'), "{body}");
            // A user's mail has the lock's id of it all, and that is cut.
            let is_whole = taken.to != "abuse@example.org" || body.contains("{{ 7*7 }}");
            assert!(is_whole && !body.contains("49 &amp;"), "a value is no template: {body}");
            assert!(!body.lines().any(|line| line.starts_with("Bcc:")), "{body}");
        }
    }
    let by_path = |name: &str| {
        let id = hooks.taken().into_iter().find(|posted| {
            let json = posted.json();
            match name {
                "generic" => json["channel"] == "generic",
                "slack" => json["blocks"].is_array(),
                "alerts" => json.is_array(),
                _ => json["who"].is_string(),
            }
        });
        id.unwrap().json()
    };
    let clean = "x  Bcc: victim@example.com    <script>alert(1)</script> \"}],{{ 7*7 }} &amp; <!channel> gpj.exe   '`";
    let generic = by_path("generic");
    assert_eq!(
        (&generic["notifications"][0]["account"], &generic["notifications"][0]["reason"]),
        (&account.into(), &clean.into())
    );
    assert_eq!(generic["notifications"][0]["evidence"][1]["value"], "-");
    let slack = by_path("slack").to_string();
    assert!(
        !slack.contains("<!channel>") && slack.contains("&lt;!channel&gt;") && slack.contains("&amp;amp;"),
        "{slack}"
    );
    let alert = &by_path("alerts")[0];
    assert_eq!((&alert["labels"]["account"], &alert["annotations"]["reason"]), (&account.into(), &clean.into()));
    let own = by_path("own");
    assert_eq!((&own["who"], &own["why"]), (&account.into(), &format!("a {clean}").into()));
    lab.stop().await;
}

/// The user (if the name is an address at all), the administrator and four webhooks.
fn recipients(account: &str) -> usize {
    usize::from(account.parse::<lettre::Address>().is_ok()) + 1 + 4
}
