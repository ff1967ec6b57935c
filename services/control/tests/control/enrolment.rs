//! Edges get their certificates: against a token that counts once and for one node, or the certificate that they hold.

use crate::harness::until;
use crate::secured::{Secured, now_ms};
use rcgen::{CertificateParams, KeyPair};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tidegate_access::{Issued, NewEnrolment, Role, TokenFile};
use tidegate_proto::v1;
use tidegate_proto::v1::enrol_service_client::EnrolServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const ENROL: &str = "tidegate.v1.EnrolService/Enrol";
const DAY_MS: i64 = 86_400_000;

/// A token for mx1, made at another time.
async fn token_since(control: &Secured, created_ms: i64) -> (String, String) {
    let new = NewEnrolment { site: "ams".into(), node: "mx1".into(), lifetime: Duration::from_hours(1) };
    let (token, _) = TokenFile::create_enrolment(&control.path("tokens.toml"), new, created_ms).unwrap();
    control.settle().await;
    (token.id().to_owned(), token.reveal())
}

async fn ask(
    channel: &Channel,
    token: Option<&str>,
    node: &str,
    request: Vec<u8>,
) -> Result<v1::EnrolResponse, Status> {
    let message = v1::EnrolRequest { site: "ams".into(), node: node.into(), certificate_request: request };
    let mut message = Request::new(message);
    if let Some(token) = token {
        message.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    EnrolServiceClient::new(channel.clone()).enrol(message).await.map(tonic::Response::into_inner)
}

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// What the answer is worth, with the key that it is for.
fn issued(answer: &v1::EnrolResponse, key: &KeyPair) -> Issued {
    let (certificate_pem, key_pem) = (answer.certificate_pem.clone(), key.serialize_pem());
    Issued { certificate_pem, key_pem, not_after_ms: answer.not_after_ms }
}

#[tokio::test]
async fn a_token_gives_one_certificate_for_its_node_and_the_certificate_the_next() {
    let control = Secured::start().await;
    let (id, token) = token_since(&control, now_ms()).await;
    let nobody = control.connect(None).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let answer = ask(&nobody, Some(&token), "mx1", request(&key)).await.unwrap();
    let edge = issued(&answer, &key);
    let who = control.who_has(&edge).await.unwrap();
    assert_eq!((who.name.as_str(), who.role.as_str()), ("mx1", "edge"));

    let record = control.audit().await.into_iter().find(|record| record.method == ENROL && record.allowed).unwrap();
    assert_eq!((record.actor.as_str(), record.role.as_str()), ("mx1", "enrolment"));
    assert_eq!(record.request, "a certificate for edge/ams/mx1");
    assert!(
        record.result.starts_with("certificate ") && record.result.contains(" was given out, until "),
        "{record:?}"
    );

    // At once, before the file is loaded anew or after.
    let again = ask(&nobody, Some(&token), "mx1", request(&key)).await.unwrap_err();
    assert!(matches!(again.code(), Code::PermissionDenied | Code::Unauthenticated), "{again}");
    control.settle().await;
    let again = ask(&nobody, Some(&token), "mx1", request(&key)).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "{again}");
    assert!(control.denied(ENROL, "was used already").await.result.starts_with(&format!("token {id}")));

    // Renewal, for itself only.
    let channel = control.connect(Some(&edge)).await.unwrap();
    let next = KeyPair::generate().unwrap();
    let renewed = ask(&channel, None, "mx1", request(&next)).await.unwrap();
    assert_eq!(control.who_has(&issued(&renewed, &next)).await.unwrap().name, "mx1");
    let other = ask(&channel, None, "mx2", request(&next)).await.unwrap_err();
    assert_eq!(
        (other.code(), other.message()),
        (Code::PermissionDenied, "you may have a certificate for edge/ams/mx1 only")
    );
    control.denied(ENROL, "edge/ams/mx1 only").await;
    for (result, count) in [("given", 1), ("renewed", 1), ("refused", 2)] {
        let counted = control.counted(&format!("tidegate_control_enrolments_total{{result=\"{result}\"}}"));
        assert!(counted >= count, "{counted} {result}");
    }

    // What is revoked by name cannot be renewed.
    control.put_people("'edge/ams/mx1'");
    until("the revocation is in force", || async { control.who_has(&edge).await.is_err() }).await;
    let revoked = ask(&channel, None, "mx1", request(&next)).await.unwrap_err();
    assert_eq!(revoked.code(), Code::Unauthenticated, "{revoked}");
}

#[tokio::test]
async fn nobody_else_gets_a_certificate() {
    let control = Secured::start().await;
    let nobody = control.connect(None).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let (_, expired) = token_since(&control, now_ms() - DAY_MS).await;
    let (_, admin) = control.token(Role::Admin);
    let (id, token) = token_since(&control, now_ms()).await;
    for (token, node, code, told) in [
        (None, "mx1", Code::Unauthenticated, "there is no credential"),
        (Some(&expired), "mx1", Code::Unauthenticated, "is expired"),
        (Some(&admin), "mx1", Code::PermissionDenied, "Enrol needs a token for enrolment or an edge's certificate"),
        (Some(&token), "mx2", Code::PermissionDenied, "you may have a certificate for edge/ams/mx1 only"),
    ] {
        let status = ask(&nobody, token.map(String::as_str), node, request(&key)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        control.denied(ENROL, told).await;
    }
    let user = control.connect(Some(&control.user_certificate("jo"))).await.unwrap();
    let status = ask(&user, None, "mx1", request(&key)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");

    // A request that cannot be signed leaves the token as it is, and so does a file that cannot be written.
    let status = ask(&nobody, Some(&token), "mx1", b"nonsense".to_vec()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    control.denied(ENROL, "the signing request cannot be read").await;
    let blocker = control.path("tokens.toml.new");
    std::fs::create_dir(&blocker).unwrap();
    std::fs::set_permissions(&blocker, std::fs::Permissions::from_mode(0o700)).unwrap();
    let status = ask(&nobody, Some(&token), "mx1", request(&key)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("the token would count twice; nothing was given out"), "{status}");
    std::fs::remove_dir(&blocker).unwrap();
    assert!(TokenFile::load(&control.path("tokens.toml")).unwrap().get(&id).unwrap().used_ms.is_none());
    ask(&nobody, Some(&token), "mx1", request(&key)).await.unwrap();

    // A token for enrolment opens no other door.
    let (_, token) = token_since(&control, now_ms()).await;
    let who = control.who(&nobody, Some(&format!("Bearer {token}"))).await.unwrap();
    assert_eq!((who.name.as_str(), who.role.as_str(), who.credential.as_str()), ("mx1", "enrolment", "token"));
    let mut list = Request::new(v1::ListAccountsRequest::default());
    list.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut client = v1::admin_service_client::AdminServiceClient::new(nobody.clone());
    assert_eq!(client.list_accounts(list).await.unwrap_err().code(), Code::PermissionDenied);
    let mut publish = Request::new(v1::PublishRequest::default());
    publish.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut client = v1::event_service_client::EventServiceClient::new(nobody);
    assert_eq!(client.publish(publish).await.unwrap_err().code(), Code::PermissionDenied);
}
