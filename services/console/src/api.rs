//! The API, as the console calls it: with the user's own credential, from the browser's address, within a time.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::ForwardedPeer;
use tidegate_proto::v1;
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_proto::v1::audit_service_client::AuditServiceClient;
use tonic::{Request, Response, Status, Streaming};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

/// Largest answer that is taken, in octets: a page of a thousand accounts with their evidence is a tenth of it.
const MAX_ANSWER_OCTETS: usize = 16 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A call on its way.
type Call<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;
type Transport = BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, Status>;

/// The API of this process or of another one. A clone shares it.
#[derive(Clone)]
pub(crate) struct Api {
    admin: AdminServiceClient<Transport>,
    audit: AuditServiceClient<Transport>,
    timeout: Duration,
}

/// A secret that proves who somebody is. Is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Arc<str>);

/// For whom the API is called.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Their credential; none: on a loopback address where nothing is asked for.
    pub token: Option<Token>,
    /// The browser's address.
    pub peer: SocketAddr,
}

/// The API with somebody's credential.
#[derive(Clone)]
pub(crate) struct Calls {
    api: Api,
    caller: Caller,
}

impl Token {
    /// Takes what was pasted; none when it cannot be a token.
    pub fn parse(text: &str) -> Option<Self> {
        const MAX_OCTETS: usize = 16 << 10;
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        (visible && !text.is_empty() && text.len() <= MAX_OCTETS).then(|| Self(text.into()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Api {
    /// Calls `transport`; a call that is not answered within `timeout` is given up.
    pub fn new<S>(transport: S, timeout: Duration) -> Self
    where
        S: Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError> + 'static,
        S::Future: Send + 'static,
    {
        let transport = BoxCloneSyncService::new(transport.map_err(|error| Status::from_error(error.into())));
        Self {
            admin: AdminServiceClient::new(transport.clone()).max_decoding_message_size(MAX_ANSWER_OCTETS),
            audit: AuditServiceClient::new(transport).max_decoding_message_size(MAX_ANSWER_OCTETS),
            timeout,
        }
    }

    /// The API for `caller`.
    pub fn calls(&self, caller: Caller) -> Calls {
        Calls { api: self.clone(), caller }
    }
}

/// A method of the API that answers once.
macro_rules! method {
    ($client:ident, $name:ident, $request:ident, $response:ident) => {
        pub fn $name(&self, request: v1::$request) -> Call<v1::$response> {
            let mut client = self.api.$client.clone();
            let request = self.request(request);
            within(self.api.timeout, async move { client.$name(request).await })
        }
    };
}

/// A method of the API that answers with a stream. Only its beginning is bounded in time.
macro_rules! streaming {
    ($client:ident, $name:ident, $request:ident, $response:ident) => {
        pub fn $name(&self, request: v1::$request) -> Call<Streaming<v1::$response>> {
            let mut client = self.api.$client.clone();
            let request = self.request(request);
            within(self.api.timeout, async move { client.$name(request).await })
        }
    };
}

impl Calls {
    method!(admin, who_am_i, WhoAmIRequest, WhoAmIResponse);
    method!(admin, get_overview, GetOverviewRequest, GetOverviewResponse);
    method!(admin, list_accounts, ListAccountsRequest, ListAccountsResponse);
    method!(admin, get_account, GetAccountRequest, GetAccountResponse);
    method!(admin, inspect_account, InspectAccountRequest, InspectAccountResponse);
    method!(admin, lock_account, LockAccountRequest, LockAccountResponse);
    method!(admin, unlock_account, UnlockAccountRequest, UnlockAccountResponse);
    method!(admin, exempt_account, ExemptAccountRequest, ExemptAccountResponse);
    method!(admin, clear_account, ClearAccountRequest, ClearAccountResponse);
    method!(admin, list_edges, ListEdgesRequest, ListEdgesResponse);
    method!(admin, list_rules, ListRulesRequest, ListRulesResponse);
    method!(admin, switch_rule, SwitchRuleRequest, SwitchRuleResponse);
    method!(admin, exempt_domain, ExemptDomainRequest, ExemptDomainResponse);
    method!(admin, set_limits, SetLimitsRequest, SetLimitsResponse);
    method!(admin, list_settings, ListSettingsRequest, ListSettingsResponse);
    method!(admin, list_notifications, ListNotificationsRequest, ListNotificationsResponse);
    method!(audit, list_audit, ListAuditRequest, ListAuditResponse);
    streaming!(admin, watch_accounts, WatchAccountsRequest, WatchAccountsResponse);
    streaming!(admin, act_on_many, ActOnManyRequest, ActOnManyResponse);
    streaming!(audit, watch_audit, WatchAuditRequest, WatchAuditResponse);

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(ForwardedPeer(self.caller.peer));
        // A token is visible ASCII, which a header can carry.
        let bearer = self.caller.token.as_ref().and_then(|token| format!("Bearer {}", token.0).parse().ok());
        if let Some(mut bearer) = bearer {
            let value: &mut tonic::metadata::AsciiMetadataValue = &mut bearer;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }
}

fn within<T: 'static>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
) -> Call<T> {
    Box::pin(async move {
        let Ok(answer) = tokio::time::timeout(timeout, call).await else {
            let ms = timeout.as_millis();
            return Err(Status::deadline_exceeded(format!("the service did not answer within {ms} ms")));
        };
        answer.map(Response::into_inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_visible_text_and_is_not_shown() {
        let token = Token::parse("tg_abc.def-123").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        for wrong in ["", "a b", "a\r\nx: y", "ü", &"x".repeat(20_000)] {
            assert_eq!(Token::parse(wrong), None);
        }
    }
}
