//! Every method of every service, called with every kind of credential: who may, who may not, and that nobody learns
//! anything by being refused.
//!
//! The table `roles.txt` is made by this test, and is what the reference for administrators shows. After a change of what
//! methods need, write it anew: `TIDEGATE_WRITE_ROLES=1`.

use crate::harness::{PATIENCE, active, locked, until};
use crate::secured::{Secured, now_ms};
use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use tidegate_access::{NewEnrolment, NewToken, Role, TokenFile};
use tidegate_bus::{Bus, Message, Topic};
use tidegate_proto::v1;
use tidegate_proto::v1::act_on_many_request::Kind as Many;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// The account that everything is asked about.
const ACCOUNT: &str = "jo@example.org";
/// What only those may read who may see the account.
const SECRETS: [&str; 4] = ["L-00000003", "burst", "a secret of amy's", "al@example.org"];
const DAY_MS: i64 = 86_400_000;

/// A credential of the table's columns.
struct Credential {
    name: &'static str,
    channel: Channel,
    token: Option<String>,
}

struct Method {
    path: String,
    streams_in: bool,
}

#[tokio::test]
async fn every_method_lets_in_whom_it_should_and_nobody_else() {
    let control = Secured::start().await;
    fill(&control).await;
    let credentials = credentials(&control).await;
    let methods = methods();
    let mut table = BTreeMap::new();
    for method in &methods {
        for credential in &credentials {
            let answer = call(method, credential).await;
            let told = match &answer {
                Err(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => "no",
                // With another error it was let in, and then something else was wrong with what it asked.
                Ok(_) | Err(_) => "yes",
            };
            table.entry(method.path.clone()).or_insert_with(Vec::new).push(told);
            if told == "no" {
                refused(&control, method, credential, &answer.unwrap_err()).await;
            } else if credential.name.ends_with("of another domain") {
                tells_nothing(method, credential, &answer);
            }
        }
    }
    let names: Vec<&str> = credentials.iter().map(|credential| credential.name).collect();
    compare(&shown(&names, &table));
}

/// What was refused stands in the audit, and the refusal tells nothing.
async fn refused(control: &Secured, method: &Method, credential: &Credential, status: &Status) {
    let what = format!("{} with {}", method.path, credential.name);
    for secret in SECRETS {
        assert!(!status.message().contains(secret), "{what} tells {secret}: {status}");
    }
    let (name, actor) = (method.path.trim_start_matches('/'), actor(credential.name));
    let record = control.denied_to(name, actor).await;
    assert!(record.after.is_none() && record.command_id.is_empty(), "{what} did something: {record:?}");
}

/// Who was let in, but is limited to another domain, got nothing of this one.
fn tells_nothing(method: &Method, credential: &Credential, answer: &Result<Vec<Bytes>, Status>) {
    let what = format!("{} with {}", method.path, credential.name);
    let told = match answer {
        Ok(messages) => messages.iter().map(|message| String::from_utf8_lossy(message).into_owned()).collect(),
        Err(status) => vec![status.message().to_owned()],
    };
    for secret in SECRETS.into_iter().filter(|secret| *secret != "burst") {
        assert!(told.iter().all(|told| !told.contains(secret)), "{what} tells {secret}");
    }
    if method.path.ends_with("/ListAccounts") {
        let answer = v1::ListAccountsResponse::decode(answer.as_ref().unwrap()[0].clone()).unwrap();
        assert_eq!((answer.total, answer.accounts.len()), (0, 0), "{what}");
    }
    if method.path.ends_with("/GetOverview") {
        let answer = v1::GetOverviewResponse::decode(answer.as_ref().unwrap()[0].clone()).unwrap();
        assert_eq!((answer.locked, answer.edges_connected, answer.events_per_second), (0, None, None), "{what}");
    }
}

/// The name that stands in the audit for a credential.
fn actor(credential: &str) -> &str {
    match credential {
        "none" | "wrong" | "expired" | "revoked" => "",
        "edge" | "enrolment" => "mx1",
        role => role,
    }
}

async fn fill(control: &Secured) {
    let mut secret = locked("jo@example.org", 3);
    secret.last_command = Some(tidegate_domain::CommandOutcome {
        id: "c".into(),
        actor: "amy".into(),
        reason: "a secret of amy's".into(),
        at_ms: 1,
        evidence: None,
        refused: None,
    });
    crate::harness::put(&*control.bus, vec![secret, active("al@example.org", 1)]).await;
    let rule = v1::Rule { name: "burst".into(), domains: vec!["example.org".into()], ..Default::default() };
    let rule_set = v1::RuleSet { rules: vec![rule], version: "1".into(), ..Default::default() };
    let message = Message::new("0".into(), Some(rule_set.encode_to_vec().into()));
    control.bus.append(Topic::Rules, vec![message]).await.unwrap();
    until("the states are read", || async { control.metric("tidegate_control_accounts") > 1.5 }).await;
}

async fn credentials(control: &Secured) -> Vec<Credential> {
    let plain = control.connect(None).await.unwrap();
    let edge = control.connect(Some(&control.edge_certificate("ams", "mx1"))).await.unwrap();
    let token = |name: &'static str, role, domains: Option<&str>| {
        let domains = domains.map(|domain| vec![domain.to_owned()]);
        let new = NewToken { name: name.into(), role, domains, lifetime: Some(crate::secured::DAY) };
        let (token, _) = TokenFile::create(&control.path("tokens.toml"), new, now_ms()).unwrap();
        Credential { name, channel: plain.clone(), token: Some(token.reveal()) }
    };
    let (_, expired) = control.token_since(Role::Admin, now_ms() - 2 * DAY_MS);
    let (revoked_id, revoked) = control.token(Role::Admin);
    TokenFile::revoke(&control.path("tokens.toml"), &revoked_id, now_ms()).unwrap();
    let new = NewEnrolment { site: "ams".into(), node: "mx1".into(), lifetime: crate::secured::DAY };
    let (enrolment, _) = TokenFile::create_enrolment(&control.path("tokens.toml"), new, now_ms()).unwrap();
    let with = |name, token: Option<String>| Credential { name, channel: plain.clone(), token };
    let credentials = vec![
        with("none", None),
        with("wrong", Some(format!("{}x", &revoked[..revoked.len() - 1]))),
        with("expired", Some(expired)),
        with("revoked", Some(revoked)),
        Credential { name: "edge", channel: edge, token: None },
        with("enrolment", Some(enrolment.reveal())),
        token("viewer", Role::Viewer, None),
        token("analyst", Role::Analyst, None),
        token("operator", Role::Operator, None),
        token("admin", Role::Admin, None),
        token("viewer of the domain", Role::Viewer, Some("example.org")),
        token("operator of the domain", Role::Operator, Some("example.org")),
        token("admin of the domain", Role::Admin, Some("example.org")),
        token("viewer of another domain", Role::Viewer, Some("example.net")),
        token("operator of another domain", Role::Operator, Some("example.net")),
        token("admin of another domain", Role::Admin, Some("example.net")),
    ];
    control.settle().await;
    credentials
}

/// All methods that there are, as the descriptors say.
fn methods() -> Vec<Method> {
    let set = prost_types::FileDescriptorSet::decode(tidegate_proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().filter(|file| file.package() == "tidegate.v1").flat_map(|file| &file.service);
    let each = services.flat_map(|service| {
        service.method.iter().map(|method| Method {
            path: format!("/tidegate.v1.{}/{}", service.name(), method.name()),
            streams_in: method.client_streaming(),
        })
    });
    each.collect()
}

/// A request that would do something, if it were let in.
fn request(path: &str) -> Vec<u8> {
    let (account, actor, reason) = (ACCOUNT.to_owned(), "mallory".to_owned(), "because".to_owned());
    let evidence = Some(v1::UnlockEvidence { password_changed_ms: None, note: "my word".into() });
    let unlock = v1::UnlockCommand { evidence, probation_ms: None };
    // Nobody applies commands here, and nobody answers: an answer is not waited for.
    let wait_ms = 1;
    match path.rsplit('/').next().unwrap() {
        "GetAccount" => v1::GetAccountRequest { account }.encode_to_vec(),
        "WatchAccounts" => v1::WatchAccountsRequest { initial: true, filter: None }.encode_to_vec(),
        "InspectAccount" => v1::InspectAccountRequest { account, points: 1, wait_ms }.encode_to_vec(),
        "ListNotifications" => v1::ListNotificationsRequest { account, ..Default::default() }.encode_to_vec(),
        "LockAccount" => {
            v1::LockAccountRequest { account, actor, reason, wait_ms, lock: Some(v1::LockCommand::default()) }
                .encode_to_vec()
        }
        "UnlockAccount" => {
            v1::UnlockAccountRequest { account, actor, reason, wait_ms, unlock: Some(unlock) }.encode_to_vec()
        }
        "ExemptAccount" => {
            v1::ExemptAccountRequest { account, actor, reason, wait_ms, exempt: Some(v1::ExemptCommand::default()) }
                .encode_to_vec()
        }
        "ClearAccount" => {
            let clear = Some(v1::ClearCommand { exemptions: true, windows: false });
            v1::ClearAccountRequest { account, actor, reason, wait_ms, clear }.encode_to_vec()
        }
        "ActOnMany" => v1::ActOnManyRequest {
            accounts: vec![account],
            dry_run: true,
            actor,
            reason,
            kind: Some(Many::Unlock(unlock)),
            ..Default::default()
        }
        .encode_to_vec(),
        "SwitchRule" => {
            v1::SwitchRuleRequest { rule: "burst".into(), off: true, actor, reason, wait_ms }.encode_to_vec()
        }
        "ExemptDomain" => {
            let exemption = Some(v1::DomainExemption { domain: "example.org".into(), ..Default::default() });
            v1::ExemptDomainRequest { exemption, remove: false, actor, reason }.encode_to_vec()
        }
        "SetLimits" => {
            let limits = Some(v1::LimitsFor { subject: "example.org".into(), ..Default::default() });
            v1::SetLimitsRequest { limits, actor, reason }.encode_to_vec()
        }
        "Enrol" => {
            // What could be signed is another test's matter.
            let (site, node) = ("ams".to_owned(), "mx1".to_owned());
            v1::EnrolRequest { site, node, certificate_request: Vec::new() }.encode_to_vec()
        }
        "Attach" => {
            let hello = v1::Hello { node: "mx1".into(), site: "ams".into(), ..v1::Hello::default() };
            v1::AttachRequest { kind: Some(v1::attach_request::Kind::Hello(hello)) }.encode_to_vec()
        }
        // The others ask for nothing in particular.
        _ => Vec::new(),
    }
}

/// Calls a method; of a stream gives what comes within a short time.
async fn call(method: &Method, credential: &Credential) -> Result<Vec<Bytes>, Status> {
    let mut client = Grpc::new(credential.channel.clone());
    client.ready().await.unwrap();
    let message = Bytes::from(request(&method.path));
    // A stream in stays open, or the edge would seem to have gone.
    let (open, more) = tokio::sync::mpsc::channel(1);
    open.send(message).await.unwrap();
    let open = method.streams_in.then_some(open);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(more));
    if let Some(token) = &credential.token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let path = method.path.parse().unwrap();
    let answer = tokio::time::timeout(PATIENCE, client.streaming(request, path, Raw)).await.expect("no answer");
    let mut stream = answer?.into_inner();
    let mut messages = Vec::new();
    // The first message, or the end: a watch of audit may have none, and is let in when it has not been refused.
    let first = tokio::time::timeout(std::time::Duration::from_millis(300), stream.message());
    if let Ok(first) = first.await {
        messages.extend(first?);
    }
    drop(open);
    Ok(messages)
}

fn shown(names: &[&str], table: &BTreeMap<String, Vec<&str>>) -> String {
    let mut text = String::from(
        "Who may call what. Made by a test of the control service; \"of the domain\" and \"of \
                                 another domain\" are limited\nto domains, and asked about an account of the first.\n\n",
    );
    let width = table.keys().map(String::len).max().unwrap_or_default() - 1;
    for (number, name) in names.iter().enumerate() {
        let _ = writeln!(text, "{:width$}  {}{name}", "", "|  ".repeat(number));
    }
    for (path, told) in table {
        let _ = writeln!(
            text,
            "{:width$}  {}",
            &path[1..],
            told.iter().map(|told| mark(told)).collect::<String>().trim_end()
        );
    }
    text
}

fn mark(told: &str) -> &'static str {
    if told == "yes" { "+  " } else { ".  " }
}

fn compare(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("roles.txt");
    if std::env::var_os("TIDEGATE_WRITE_ROLES").is_some() {
        std::fs::write(&path, table).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == table, "other rights than roles.txt says (TIDEGATE_WRITE_ROLES=1 writes it anew):\n{table}");
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
