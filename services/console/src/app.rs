//! What all requests share, and which path leads where.

use crate::api::Api;
use crate::bulk::BulkActions;
use crate::config::ConsoleConfig;
use crate::metrics::Metrics;
use crate::session::{Session, SessionBounds, Sessions};
use crate::{assets, gate, live, pages, sign_in};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate_proto::v1::WhoAmIRequest;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

/// Largest form, in octets: some ten thousand accounts, pasted.
const MAX_FORM_OCTETS: usize = 1 << 20;

/// What all requests share.
pub(crate) struct App {
    /// What was set.
    pub config: ConsoleConfig,
    /// Whether browsers come over TLS.
    pub is_secure: bool,
    /// The API.
    pub api: Api,
    /// Who is signed in.
    pub sessions: Sessions,
    /// Bulk actions, prepared and running.
    pub bulk: BulkActions,
    /// All live streams.
    pub streams: Arc<Semaphore>,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the console ends.
    pub ending: CancellationToken,
    /// The session of everybody on a loopback address where the API asks for nothing; none: it asks for something.
    open: OnceCell<Option<Arc<Session>>>,
}

impl App {
    /// Nobody is signed in.
    pub fn new(config: ConsoleConfig, is_secure: bool, api: Api, metrics: Metrics, ending: CancellationToken) -> Self {
        let bounds = SessionBounds {
            max: config.max_sessions,
            idle: config.session_idle(),
            max_age: config.session_max(),
            max_streams: config.max_live_streams_per_session,
        };
        Self {
            is_secure,
            api,
            sessions: Sessions::new(bounds, metrics.clone()),
            bulk: BulkActions::new(config.max_bulk_actions),
            streams: Arc::new(Semaphore::new(config.max_live_streams)),
            metrics,
            ending,
            open: OnceCell::new(),
            config,
        }
    }

    /// The session for somebody at the loopback address `peer` who shows no credential, if the API asks for none.
    pub async fn open_session(&self, peer: SocketAddr) -> Option<Arc<Session>> {
        let calls = self.api.calls(crate::api::Caller { token: None, peer });
        let asked = self.open.get_or_try_init(async || match calls.who_am_i(WhoAmIRequest {}).await {
            Ok(who) if who.credential == "loopback" => {
                // Everybody on this machine shares it.
                Ok(Some(Arc::new(Session::on_loopback(who, peer, self.config.max_live_streams))))
            }
            Ok(_) => Ok(None),
            Err(status) if matches!(status.code(), tonic::Code::Unauthenticated | tonic::Code::PermissionDenied) => {
                Ok(None)
            }
            // It may say more later.
            Err(status) => Err(status),
        });
        asked.await.ok()?.clone()
    }
}

/// Which path leads where.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(pages::overview::show))
        .route("/accounts", get(pages::accounts::show))
        .route("/account", get(pages::account::show))
        .route("/account/lock", post(pages::account_actions::lock))
        .route("/account/unlock", post(pages::account_actions::unlock))
        .route("/account/exempt", post(pages::account_actions::exempt))
        .route("/account/clear", post(pages::account_actions::clear))
        .route("/bulk", get(pages::bulk::show).post(pages::bulk::choose))
        .route("/bulk/dry-run", post(pages::bulk::dry_run))
        .route("/bulk/action", get(pages::bulk::action).post(pages::bulk::confirm))
        .route("/rules", get(pages::rules::show))
        .route("/rules/switch", post(pages::rules::switch))
        .route("/edges", get(pages::edges::show))
        .route("/audit", get(pages::audit::show))
        .route("/settings", get(pages::settings::show))
        .route("/settings/limits", post(pages::settings::limits))
        .route("/settings/exemption", post(pages::settings::exemption))
        .route("/sessions", get(pages::sessions::show).post(pages::sessions::end))
        .route("/live", get(live::stream))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/assets/{name}", get(assets::serve))
        .route("/favicon.ico", get(assets::icon))
        .fallback(pages::not_found)
        .layer(DefaultBodyLimit::max(MAX_FORM_OCTETS))
        .layer(from_fn_with_state(Arc::clone(&app), gate::gate))
        .with_state(app)
}
