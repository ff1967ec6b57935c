//! Who is let in: certificates and tokens, good ones and others.

use crate::harness::{now_ms, soon, until};
use crate::secured::{DAY, Secured, TRUST_DOMAIN, client_tls, names};
use std::net::IpAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tidegate_access::{Access, AccessConfig, Authority, CertificateName, FailureBounds, Role, TokenFile};
use tidegate_bus::Topic;
use tidegate_control::{ControlConfig, ControlError, Service};
use tidegate_proto::v1;
use tidegate_proto::v1::attach_request::Kind as Said;
use tidegate_proto::v1::attach_response::Kind as Says;
use tidegate_runtime::Health;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const WHO_AM_I: &str = "tidegate.v1.AdminService/WhoAmI";
const ATTACH: &str = "tidegate.v1.EdgeService/Attach";
const PUBLISH: &str = "tidegate.v1.EventService/Publish";
const DAY_MS: i64 = 86_400_000;

type EdgeStream = Streaming<v1::AttachResponse>;

/// Says hello, and gives what comes of it.
async fn attach(
    channel: &Channel,
    site: &str,
    node: &str,
) -> Result<(mpsc::Sender<v1::AttachRequest>, EdgeStream), Status> {
    let hello = v1::Hello { node: node.into(), site: site.into(), version: "1".into(), ..v1::Hello::default() };
    let (say, said) = mpsc::channel(4);
    say.send(v1::AttachRequest { kind: Some(Said::Hello(hello)) }).await.unwrap();
    let mut client = v1::edge_service_client::EdgeServiceClient::new(channel.clone());
    let mut hears = client.attach(ReceiverStream::new(said)).await?.into_inner();
    match soon(hears.message()).await? {
        Some(v1::AttachResponse { kind: Some(Says::Welcome(_)) }) => Ok((say, hears)),
        other => panic!("instead of a welcome came {other:?}"),
    }
}

fn event(site: &str, node: &str, sequence: u64) -> v1::Event {
    v1::Event {
        id: Some(v1::EventId { node: node.into(), lane: v1::Lane::Live.into(), sequence }),
        site: site.into(),
        account: "jo@example.org".into(),
        time_ms: now_ms(),
        trace_parent: String::new(),
        kind: Some(v1::event::Kind::Login(v1::Login { success: true, ..v1::Login::default() })),
    }
}

#[tokio::test]
async fn without_a_good_token_nobody_gets_in_and_nobody_learns_why() {
    let control = Secured::start().await;
    let channel = control.connect(None).await.unwrap();
    let (id, token) = control.token(Role::Admin);
    let (_, expired) = control.token_since(Role::Admin, now_ms() - 2 * DAY_MS);
    let (revoked_id, revoked) = control.token(Role::Admin);
    TokenFile::revoke(&control.path("tokens.toml"), &revoked_id, now_ms()).unwrap();
    control.settle().await;
    let who = control.who(&channel, Some(&format!("bearer {token}"))).await.unwrap();
    assert_eq!((who.name.as_str(), who.role.as_str()), ("tool", "admin"));

    let other_id = token.replace(&id, "0123456789ab");
    let other_secret = format!("{}{}", &token[..token.len() - 43], &revoked[revoked.len() - 43..]);
    let cases = [
        (None, "there is no credential"),
        (Some(String::new()), "malformed"),
        (Some(token.clone()), "malformed"),
        (Some(format!("Basic {token}")), "malformed"),
        (Some("Bearer hello".to_owned()), "neither a token nor a JWT"),
        (Some("Bearer a.b.c".to_owned()), "JWTs are not taken here"),
        (Some(format!("Bearer {}", &token[..token.len() - 1])), "begins as a token does"),
        (Some(format!("Bearer {other_id}")), "there is no token 0123456789ab"),
        (Some(format!("Bearer {other_secret}")), "is wrong"),
        (Some(format!("Bearer {expired}")), "is expired"),
        (Some(format!("Bearer {revoked}")), "is revoked"),
    ];
    let mut texts = std::collections::BTreeSet::new();
    for (authorization, why) in &cases {
        let status = control.who(&channel, authorization.as_deref()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{authorization:?}");
        texts.insert(status.message().to_owned());
        let record = control.denied(WHO_AM_I, why).await;
        assert!(record.peer.starts_with("127.0.0.1:") && record.actor.is_empty(), "{record:?}");
        let shown = format!("{record:?}");
        assert!(!shown.contains(&token[token.len() - 43..]), "{shown}");
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn a_stranger_learns_whether_it_is_healthy_and_nothing_else() {
    let control = Secured::start().await;
    let channel = control.connect(None).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
        ..Default::default()
    };
    let ask = tokio_stream::iter([request.clone()]);
    let status = reflection.server_reflection_info(ask).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // Any credential will do for that.
    let edge = control.connect(Some(&control.edge_certificate("ams", "mx1"))).await.unwrap();
    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(edge);
    reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    // What does not exist looks no different.
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::WhoAmIRequest, v1::WhoAmIResponse>::default();
    let path = "/tidegate.v1.NoService/Nothing".parse().unwrap();
    let status = client.unary(tonic::Request::new(v1::WhoAmIRequest {}), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn people_are_known_by_their_certificates() {
    let control = Secured::start().await;
    let jo = control.who_has(&control.user_certificate("jo")).await.unwrap();
    assert_eq!((jo.name.as_str(), jo.role.as_str(), jo.domains.len()), ("jo", "admin", 0));
    let mo = control.who_has(&control.user_certificate("mo")).await.unwrap();
    assert_eq!((mo.role.as_str(), mo.domains), ("viewer", vec!["example.org".to_owned()]));
    // The token decides if there is one, a bad one too.
    let channel = control.connect(Some(&control.user_certificate("jo"))).await.unwrap();
    let (_, token) = control.token(Role::Viewer);
    let bearer = format!("Bearer {token}");
    control.settle().await;
    assert_eq!(control.who(&channel, Some(&bearer)).await.unwrap().role, "viewer");
    let status = control.who(&channel, Some("Bearer tg_no")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn certificates_of_nobody_and_of_another_authority_and_old_ones_are_refused() {
    let control = Secured::start().await;
    let status = control.who_has(&control.user_certificate("nobody")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    control.denied(WHO_AM_I, "\"nobody\" is not among the people").await;
    let jo = CertificateName::User("jo".into());
    let elsewhere = control.authority.client(&jo, "example.com", DAY, now_ms()).unwrap();
    assert_eq!(control.who_has(&elsewhere).await.unwrap_err().code(), Code::Unauthenticated);
    control.denied(WHO_AM_I, "of another trust domain").await;
    // These two do not get through TLS.
    let (stranger, _) = Authority::create("test", DAY, now_ms()).unwrap();
    let foreign = stranger.client(&jo, TRUST_DOMAIN, DAY, now_ms()).unwrap();
    assert!(control.who_has(&foreign).await.is_err());
    let old = control.authority.client(&jo, TRUST_DOMAIN, DAY, now_ms() - 2 * DAY_MS).unwrap();
    assert!(control.who_has(&old).await.is_err());
    control.denied("tls/handshake", "expired").await;
    control.denied("tls/handshake", "the TLS handshake failed").await;
    // A server's certificate is no client's.
    let server = control.authority.server(&names(), DAY, now_ms()).unwrap();
    assert!(control.who_has(&server).await.is_err());
    assert!(control.metric("tidegate_control_tls_handshakes_failed_total{reason=\"certificate\"}") >= 3.0);
    assert!(control.who_has(&control.user_certificate("jo")).await.is_ok(), "it goes on");
}

#[tokio::test]
async fn an_edge_says_hello_as_itself_only() {
    let control = Secured::start().await;
    let channel = control.connect(Some(&control.edge_certificate("ams", "mx1"))).await.unwrap();
    for (site, node) in [("ams", "mx2"), ("fra", "mx1")] {
        let status = attach(&channel, site, node).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        let record = control.denied(ATTACH, "for another node or site").await;
        assert_eq!((record.actor.as_str(), record.role.as_str()), ("mx1", "edge"));
    }
    attach(&channel, "ams", "mx1").await.unwrap();
    // Nor does a person attach, or an edge administer.
    let person = control.connect(Some(&control.user_certificate("jo"))).await.unwrap();
    assert_eq!(attach(&person, "ams", "mx1").await.unwrap_err().code(), Code::PermissionDenied);
    control.denied(ATTACH, "needs an edge's certificate").await;
    let mut admin = v1::admin_service_client::AdminServiceClient::new(channel);
    let status = admin.list_accounts(v1::ListAccountsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_edge_publishes_its_own_events_only() {
    let control = Secured::start().await;
    let channel = control.connect(Some(&control.edge_certificate("ams", "mx1"))).await.unwrap();
    let mut client = v1::event_service_client::EventServiceClient::new(channel);
    let events = vec![event("ams", "mx1", 1), event("ams", "mx2", 1), event("fra", "mx1", 2), event("ams", "mx1", 3)];
    let answer = client.publish(v1::PublishRequest { events }).await.unwrap().into_inner();
    assert_eq!(answer.written, 2);
    let rejected: Vec<u32> = answer.rejected.iter().map(|event| event.index).collect();
    assert_eq!(rejected, [1, 2]);
    assert_eq!(control.counted("tidegate_control_events_foreign_total"), 2);
    control.denied(PUBLISH, "2 events named another node or site").await;
    let denied = control.audit().await.into_iter().filter(|record| record.method == PUBLISH).count();
    assert_eq!(denied, 1, "once for the batch");
    let mut written = 0;
    for partition in 0..4 {
        written += tidegate_bus::Bus::bounds(&*control.bus, Topic::Events, partition).await.unwrap().next;
    }
    assert_eq!(written, 2);
    let person = control.connect(Some(&control.user_certificate("jo"))).await.unwrap();
    let mut client = v1::event_service_client::EventServiceClient::new(person);
    let status = client.publish(v1::PublishRequest { events: vec![event("ams", "mx1", 9)] }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_edge_that_is_revoked_by_name_is_cut_off_and_stays_out() {
    let control = Secured::start().await;
    let channel = control.connect(Some(&control.edge_certificate("ams", "mx1"))).await.unwrap();
    let (_say, mut hears) = attach(&channel, "ams", "mx1").await.unwrap();
    let other = control.connect(Some(&control.edge_certificate("ams", "mx2"))).await.unwrap();
    let (_say_other, mut other_hears) = attach(&other, "ams", "mx2").await.unwrap();
    control.put_people("'edge/ams/mx1'");
    let ended = async {
        loop {
            if let Err(status) = hears.message().await {
                return status;
            }
        }
    };
    assert_eq!(soon(ended).await.code(), Code::Unauthenticated);
    assert_eq!(attach(&channel, "ams", "mx1").await.unwrap_err().code(), Code::Unauthenticated);
    control.denied(ATTACH, "the certificate of edge/ams/mx1 is revoked").await;
    assert_eq!(control.counted("tidegate_control_edges_ended_total{reason=\"revoked\"}"), 1);
    assert!(soon(other_hears.message()).await.is_ok(), "the other one stays");
    // A file with a mistake changes nothing: neither for one nor for the other.
    std::fs::write(control.path("people.toml"), "revoked = ['edge/ams']").unwrap();
    let refused = "tidegate_access_reloads_total{what=\"people\",result=\"refused\"}";
    until("the mistake is told", || async { control.metric(refused) > 0.0 }).await;
    assert!(attach(&channel, "ams", "mx1").await.is_err());
    control.put_people("");
    until("it is let in again", || async { attach(&channel, "ams", "mx1").await.is_ok() }).await;
}

#[tokio::test]
async fn certificates_and_tokens_change_without_a_restart() {
    let control = Secured::start().await;
    let channel = control.connect(None).await.unwrap();
    let (id, token) = control.token(Role::Operator);
    let bearer = format!("Bearer {token}");
    until("the new token counts", || async { control.who(&channel, Some(&bearer)).await.is_ok() }).await;
    TokenFile::revoke(&control.path("tokens.toml"), &id, now_ms()).unwrap();
    until("it counts no more", || async { control.who(&channel, Some(&bearer)).await.is_err() }).await;

    // The next connection gets the new certificate: it is trusted by whom the old one was not.
    let (other, _) = Authority::create("other", DAY, now_ms()).unwrap();
    let trusting = || control.endpoint().tls_config(client_tls(other.certificate_pem(), None)).unwrap();
    assert!(trusting().connect().await.is_err());
    control.put_server(&other.server(&names(), DAY, now_ms()).unwrap());
    until("the new certificate is served", || async { trusting().connect().await.is_ok() }).await;
    assert!(control.connect(None).await.is_err(), "and the old one is not");
    // What was open stays.
    let (_, token) = control.token(Role::Viewer);
    until("the open connection is heard", || async {
        control.who(&channel, Some(&format!("Bearer {token}"))).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_watch_ends_with_its_credential() {
    let control = Secured::start().await;
    let watch = async |identity: Option<&tidegate_access::Issued>, token: Option<&str>| {
        let channel = control.connect(identity).await.unwrap();
        let mut request = tonic::Request::new(v1::WatchAccountsRequest::default());
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut admin = v1::admin_service_client::AdminServiceClient::new(channel);
        let mut watch = admin.watch_accounts(request).await.unwrap().into_inner();
        soon(watch.message()).await.unwrap().unwrap();
        watch
    };
    let ends = async |mut watch: Streaming<v1::WatchAccountsResponse>| {
        assert_eq!(soon(watch.message()).await.unwrap_err().code(), Code::Unauthenticated);
    };
    let (id, token) = control.token(Role::Viewer);
    let (_, short) = control.token_since(Role::Viewer, now_ms() - DAY_MS + 8_000);
    control.settle().await;
    let jo = control.user_certificate("jo");
    let by_certificate = watch(Some(&jo), None).await;
    let by_token = watch(None, Some(&token)).await;
    let until_it_expires = watch(None, Some(&short)).await;
    let mut kept = watch(Some(&control.user_certificate("mo")), None).await;
    TokenFile::revoke(&control.path("tokens.toml"), &id, now_ms()).unwrap();
    ends(by_token).await;
    // Who has another role now has to call again with it.
    let people = std::fs::read_to_string(control.path("people.toml")).unwrap();
    std::fs::write(control.path("people.toml"), people.replace("'admin'", "'viewer'")).unwrap();
    ends(by_certificate).await;
    ends(until_it_expires).await;
    until("their places are free", || async { control.metric("tidegate_control_watchers") <= 1.0 }).await;
    let state = crate::harness::locked("a@example.org", 1);
    crate::harness::put(&*control.bus, vec![state]).await;
    soon(kept.message()).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_guesses_is_slowed_and_others_are_not() {
    let bounds = FailureBounds { max: 5, block_ms: 600_000, max_block_ms: 600_000, ..FailureBounds::default() };
    let control = Secured::start_with(None, bounds).await;
    let channel = control.connect(None).await.unwrap();
    let (_, known) = control.token(Role::Viewer);
    let (_, unknown) = control.token(Role::Viewer);
    let (known, unknown) = (format!("Bearer {known}"), format!("Bearer {unknown}"));
    let elsewhere: IpAddr = "127.0.0.2".parse().unwrap();
    let other = control.connect_from(None, Some(elsewhere)).await.unwrap();
    control.settle().await;
    assert!(control.who(&channel, Some(&known)).await.is_ok());
    let guess = "Bearer tg_0123456789ab_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(control.who(&channel, Some(guess)).await.unwrap_err());
    }
    let count = |code| codes.iter().filter(|status| status.code() == code).count();
    assert!(count(Code::Unauthenticated) <= 5 && count(Code::ResourceExhausted) >= 3, "{codes:?}");
    let last = codes.last().unwrap();
    assert!(last.message().contains("try again in") && !last.details().is_empty(), "{last:?}");
    // A right guess tells nothing while the address is blocked.
    assert_eq!(control.who(&channel, Some(&unknown)).await.unwrap_err().code(), Code::ResourceExhausted);
    // Who was known there goes on, and so does who has a certificate, and everybody elsewhere.
    assert!(control.who(&channel, Some(&known)).await.is_ok());
    let edge = control.connect(Some(&control.edge_certificate("ams", "mx1"))).await.unwrap();
    attach(&edge, "ams", "mx1").await.unwrap();
    assert!(control.who(&other, Some(&unknown)).await.is_ok());
    assert_eq!(control.counted("tidegate_access_blocks_total"), 1);
    let told = control.audit().await.into_iter().filter(|record| record.result.contains("there is no token")).count();
    assert!(told <= 5, "{told}: the flood is not in the audit");
}

#[tokio::test]
async fn an_address_that_others_reach_is_not_served_unsecured() {
    let folder = TempDir::new().unwrap();
    let bus = crate::harness::open_bus(&folder);
    let listen = "0.0.0.0:0".parse().unwrap();
    let tokens = folder.path().join("tokens.toml");
    std::fs::write(&tokens, "").unwrap();
    let secured = Access::open(&AccessConfig { tokens: Some(tokens), ..AccessConfig::default() }).unwrap();
    for access in [Access::off(), secured] {
        let config = ControlConfig { listen, ..ControlConfig::default() };
        let log: Arc<dyn tidegate_bus::Bus> = bus.clone();
        let mut registry = prometheus_client::registry::Registry::default();
        let error = Service::bind(config, log, &mut registry, Health::new(), access).await.err().unwrap();
        assert!(matches!(error, ControlError::Door(tidegate_gate::DoorError::Unsecured { .. })), "{error}");
    }
}
