//! Mail in each language, through a real Postfix over STARTTLS with a login, parsed back by a MIME parser.

use crate::lab::{Lab, config, locked, unlocked, until};
use mail_parser::{Message, MessageParser, MimeHeaders as _, PartType};
use std::sync::{Arc, Mutex};
use tidegate_notify::NotifyConfig;
use tidegate_proto::v1::NotificationStatus;
use xtask::dovecot::User;
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;

/// Language, and words that a lock's subject, text and HTML have in it.
const LANGUAGES: [(&str, &str, &str); 5] = [
    ("en", "has been locked", "Change your password now"),
    ("de", "wurde gesperrt", "Ändern Sie sofort Ihr Passwort"),
    ("fr", "a été bloqué", "Changez tout de suite votre mot de passe"),
    ("es", "Se ha bloqueado el envío", "Cambie su contraseña de inmediato"),
    ("zh-Hans", "已被暂停发信", "请立即修改密码"),
];

type Arrived = Arc<Mutex<Vec<Vec<u8>>>>;

/// A Postfix that takes mail from `tidegate` only, and where all of it ends.
fn postfix(dir: &std::path::Path) -> (PostfixRig, Sink, Arrived) {
    let arrived = Arrived::default();
    let noting = Arc::clone(&arrived);
    let sink = Sink::start_on("127.0.0.1:0".parse().unwrap(), move |message| {
        let content = [message.headers.as_bytes(), b"\r\n", &message.body].concat();
        noting.lock().unwrap().push(content);
    });
    let sink = sink.unwrap();
    let users = vec![User::new("tidegate@mail.test", "its password")];
    let options = PostfixOptions { users, ..PostfixOptions::relaying_to(sink.address()) };
    let rig = tokio::task::block_in_place(|| PostfixRig::start(dir, &options).unwrap());
    (rig, sink, arrived)
}

fn settings(lab: &Lab, rig: &PostfixRig, more: &str) -> NotifyConfig {
    let password = lab.file("password", "its password\n");
    let domains: Vec<String> = LANGUAGES
        .iter()
        .map(|(tag, ..)| format!("[domains.\"{}.test\"]\nlanguage = \"{tag}\"\n", tag.to_lowercase()))
        .collect();
    let domains = domains.concat();
    config(&format!(
        "provider = \"Beispiel & Söhne\"\ncontact = \"+49 30 1234 <help@example.org>\"\n{more}\n\
         [smtp]\nhost = \"localhost\"\nport = {}\nca = {:?}\nusername = \"tidegate@mail.test\"\npassword_file = {password:?}\n\
         from = \"Beispiel & Söhne <no-reply@example.org>\"\nreply_to = \"help@example.org\"\n{domains}",
        rig.address().port(),
        rig.certificate(),
    ))
}

fn header(message: &Message<'_>, name: &str) -> String {
    message.header_raw(name).unwrap_or_default().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn arrives_readable_in_each_language_with_both_alternatives() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, _sink, arrived) = postfix(dir.path());
    let mut lab = Lab::new();
    lab.start(settings(&lab, &rig, "")).await;
    let account = |tag: &str| format!("jo@{}.test", tag.to_lowercase());
    let states: Vec<_> = LANGUAGES.iter().map(|(tag, ..)| locked(&account(tag), 1)).collect();
    lab.publish(states.clone()).await;
    lab.until_status(NotificationStatus::Sent, LANGUAGES.len()).await;
    until("Postfix has passed all on", async || arrived.lock().unwrap().len() == LANGUAGES.len()).await;

    let ids = lab.newest().await;
    let mails = arrived.lock().unwrap().clone();
    for (tag, in_subject, in_text) in LANGUAGES {
        let account = account(tag);
        let is_to = |message: &Message<'_>| message.to().unwrap().first().unwrap().address().unwrap() == account;
        let octets = mails.iter().find(|octets| is_to(&MessageParser::default().parse(*octets).unwrap())).unwrap();
        assert!(octets.is_ascii(), "{tag}: everything is encoded");
        assert!(octets.split(|&byte| byte == b'\n').all(|line| line.len() <= 999), "{tag}: RFC 5322's line length");
        let message = MessageParser::default().parse(octets).unwrap();
        let subject = message.subject().unwrap();
        assert!(subject.contains(in_subject) && subject.contains(&account), "{tag}: {subject}");
        let from = message.from().unwrap().first().unwrap();
        assert_eq!((from.name(), from.address()), (Some("Beispiel & Söhne"), Some("no-reply@example.org")), "{tag}");

        let record = ids.values().find(|record| record.account == account).unwrap();
        assert_eq!(header(&message, "Message-ID"), format!("<{}@example.org>", record.id), "{tag}");
        assert_eq!(message.date().unwrap().to_timestamp(), record.due_ms / 1000, "{tag}");
        assert_eq!(header(&message, "Content-Language"), tag);
        assert_eq!(header(&message, "Auto-Submitted"), "auto-generated");
        assert_eq!(header(&message, "Reply-To"), "help@example.org");
        for absent in ["Precedence", "List-Id", "List-Unsubscribe", "In-Reply-To"] {
            assert!(message.header_raw(absent).is_none(), "{tag}: {absent}");
        }

        let kind = message.content_type().unwrap();
        assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("alternative")), "{tag}");
        let parts: Vec<_> = message.parts.iter().filter(|part| !matches!(part.body, PartType::Multipart(_))).collect();
        let kinds: Vec<_> = parts.iter().map(|part| part.content_type().unwrap().subtype().unwrap()).collect();
        assert_eq!(kinds, ["plain", "html"], "{tag}: the best one comes last");
        let charset =
            |part: &&mail_parser::MessagePart<'_>| part.content_type().unwrap().attribute("charset") == Some("utf-8");
        assert!(parts.iter().all(charset), "{tag}");
        let (text, html) = (message.body_text(0).unwrap(), message.body_html(0).unwrap());
        for body in [&text, &html] {
            for words in [in_text, &account, "L-1"] {
                assert!(body.contains(words), "{tag}: {words} is not in\n{body}");
            }
        }
        assert!(text.contains("+49 30 1234 <help@example.org>") && text.contains("Beispiel & Söhne"), "{tag}: {text}");
        assert!(html.contains("+49 30 1234 &lt;help@example.org&gt;"), "{tag}: {html}");
        assert!(html.contains("Beispiel &amp; Söhne") && html.contains(&format!("lang=\"{tag}\"")), "{tag}: {html}");
        assert!(html.replace("\r\n", "\n").contains("<ul>\n<li>"), "{tag}: {html}");
    }

    // The unlock answers the lock, in the same language.
    lab.publish([unlocked(states[1].clone())]).await;
    lab.until_status(NotificationStatus::Sent, LANGUAGES.len() + 1).await;
    until("the unlock's mail is there", async || arrived.lock().unwrap().len() > LANGUAGES.len()).await;
    let octets = arrived.lock().unwrap().last().unwrap().clone();
    let message = MessageParser::default().parse(&octets).unwrap();
    assert!(message.subject().unwrap().contains("wieder senden"));
    let lock = ids.values().find(|record| record.account == "jo@de.test").unwrap();
    for name in ["In-Reply-To", "References"] {
        assert_eq!(header(&message, name), format!("<{}@example.org>", lock.id));
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_loses_nothing_and_the_right_one_is_taken_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, _sink, arrived) = postfix(dir.path());
    let mut lab = Lab::new();
    let settings = settings(&lab, &rig, "max_attempts = 2");
    lab.file("password", "another one\n");
    lab.start(settings).await;
    lab.publish([locked("jo@en.test", 1)]).await;
    until("it was tried more often than a message may be refused", async || {
        lab.metric("tidegate_notify_attempts_total{channel=\"mail\",result=\"unreachable\"}") >= 3.0
    })
    .await;
    lab.file("password", "its password\n");
    lab.until_status(NotificationStatus::Sent, 1).await;
    until("Postfix has passed it on", async || arrived.lock().unwrap().len() == 1).await;
    lab.stop().await;
}
