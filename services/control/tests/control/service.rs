//! The server itself: reflection, health, readiness, ending.

use crate::harness::{Control, active, locked, names, open_bus, put, soon, until};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tidegate_access::Access;
use tidegate_bus::Bus;
use tidegate_control::{ControlConfig, ControlError, Service};
use tidegate_proto::v1;
use tidegate_runtime::Health;
use tidegate_runtime::tls::{ClientTls, ServerTls};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::{v1 as reflection, v1alpha as old_reflection};

const SERVICES: [&str; 4] =
    ["grpc.health.v1.Health", "tidegate.v1.AdminService", "tidegate.v1.EdgeService", "tidegate.v1.EventService"];

#[tokio::test]
async fn reflection_lists_the_services_in_both_its_versions() {
    let control = Control::start(Vec::new()).await;
    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(reflection::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(control.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap().message_response.unwrap();
    let reflection::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let listed: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(SERVICES.iter().all(|name| listed.contains(name)), "{listed:?}");

    let symbol = "tidegate.v1.AdminService".to_owned();
    let request = old_reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(old_reflection::server_reflection_request::MessageRequest::FileContainingSymbol(symbol)),
    };
    let mut client = old_reflection::server_reflection_client::ServerReflectionClient::new(control.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(
        answer,
        old_reflection::server_reflection_response::MessageResponse::FileDescriptorResponse(file)
            if !file.file_descriptor_proto.is_empty()
    ));
}

#[tokio::test]
async fn health_tells_when_the_replica_is_whole() {
    let control = Control::start(vec![locked("a@example.org", 1)]).await;
    let channel = control.channel.clone();
    until("the services are serving", || async {
        let mut serving = true;
        for service in ["", "tidegate.v1.AdminService", "tidegate.v1.EdgeService", "tidegate.v1.EventService"] {
            let request = HealthCheckRequest { service: service.into() };
            let answer = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
            serving &= answer.status() == ServingStatus::Serving;
        }
        serving
    })
    .await;
}

#[tokio::test]
async fn while_the_log_cannot_be_read_nothing_is_shown() {
    let folder = TempDir::new().unwrap();
    let bus = open_bus(&folder);
    put(&*bus, vec![locked("a@example.org", 1)]).await;
    bus.close().await;
    let control = Control::start_on(ControlConfig::default(), folder, bus).await;
    let status = control.admin().list_accounts(v1::ListAccountsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let mut client = v1::edge_service_client::EdgeServiceClient::new(control.channel.clone());
    let status = client.attach(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "half a replica would be taken for everything");
    let control = &control;
    until("the reason is told", || async { control.health.report().1.contains("reading the account states failed") })
        .await;
}

#[tokio::test]
async fn two_replicas_show_the_same() {
    let first = Control::start(vec![active("a@example.org", 1)]).await;
    let mut registry = prometheus_client::registry::Registry::default();
    let log: Arc<dyn Bus> = first.bus.clone();
    let config = ControlConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ControlConfig::default() };
    let service = Service::bind(config, log, &mut registry, Health::new(), Access::off()).await.unwrap();
    let address = format!("http://{}", service.local_addr());
    let _running = tokio::spawn(service.run(first.shutdown.clone()));
    first.put(vec![locked("b@example.org", 1)]).await;
    for channel in [first.channel.clone(), Endpoint::from_shared(address).unwrap().connect_lazy()] {
        let admin = v1::admin_service_client::AdminServiceClient::new(channel);
        until("both accounts show", || async {
            let request = v1::ListAccountsRequest::default();
            let answer = admin.clone().list_accounts(request).await;
            answer.is_ok_and(|answer| names(&answer.into_inner().accounts) == ["a@example.org", "b@example.org"])
        })
        .await;
    }
}

#[tokio::test]
async fn it_ends_when_it_is_told_to_though_edges_are_connected() {
    let mut control = Control::start(Vec::new()).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    let mut watch = control.admin().watch_accounts(v1::WatchAccountsRequest::default()).await.unwrap().into_inner();
    control.shutdown.cancel();
    assert_eq!(edge.end().await.code(), tonic::Code::Unavailable);
    let ended = async { while let Ok(Some(_)) = watch.message().await {} };
    soon(ended).await;
    soon(&mut control.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let control = Control::start(Vec::new()).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    let log: Arc<dyn Bus> = control.bus.clone();
    let config = ControlConfig { listen, ..ControlConfig::default() };
    let error = Service::bind(config, log, &mut registry, Health::new(), Access::off()).await.err().unwrap();
    assert!(matches!(error, ControlError::Door(tidegate_gate::DoorError::Listen { .. })));
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

/// Certificates made for these tests alone.
fn data(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

#[tokio::test]
async fn with_tls_only_a_client_with_a_certificate_is_heard() {
    let folder = TempDir::new().unwrap();
    let log: Arc<dyn Bus> = open_bus(&folder);
    let (certificate, key, client_ca) = (data("server.pem"), data("server.key"), data("ca.pem"));
    let config = ControlConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Some(ServerTls { certificate, key, client_ca: Some(client_ca) }),
        ..ControlConfig::default()
    };
    let mut registry = prometheus_client::registry::Registry::default();
    let service = Service::bind(config, log, &mut registry, Health::new(), Access::off()).await.unwrap();
    let address = service.local_addr();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let _running = tokio::spawn(service.run(shutdown));

    let (certificate, key, ca) = (data("client.pem"), data("client.key"), data("ca.pem"));
    let tls = ClientTls { certificate, key, ca, server_name: Some("localhost".into()) };
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let channel = endpoint.clone().tls_config(tls.load().unwrap()).unwrap().connect().await.unwrap();
    let listed = |channel| async {
        v1::admin_service_client::AdminServiceClient::new(channel).list_edges(v1::ListEdgesRequest {}).await
    };
    assert!(listed(channel).await.unwrap().into_inner().edges.is_empty());

    let ca = Certificate::from_pem(std::fs::read(data("ca.pem")).unwrap());
    let without = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
    let refused = match endpoint.tls_config(without).unwrap().connect().await {
        Ok(channel) => soon(listed(channel)).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a client without a certificate must not be heard");
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await;
    let refused = match plain {
        Ok(channel) => soon(listed(channel)).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "nor one without TLS");
}
