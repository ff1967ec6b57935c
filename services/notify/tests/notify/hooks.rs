//! A receiver of webhooks that fails on demand, and keeps what it was sent.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// 429 with `Retry-After`, in seconds.
    Later(u64),
    /// Never.
    Nothing,
    /// 200 and a body without an end.
    Endless,
}

/// What was sent.
#[derive(Debug, Clone)]
pub struct Posted {
    pub headers: HeaderMap,
    pub body: String,
    pub answered: Answer,
}

pub struct Hooks {
    pub address: SocketAddr,
    shared: Arc<Mutex<(Answer, Vec<Posted>)>>,
    serving: Option<JoinHandle<()>>,
}

impl Hooks {
    pub fn start() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, xtask::ports::free_port().unwrap()));
        let mut hooks =
            Self { address, shared: Arc::new(Mutex::new((Answer::Status(200), Vec::new()))), serving: None };
        hooks.up();
        hooks
    }

    pub fn answer(&self, answer: Answer) {
        self.shared.lock().unwrap().0 = answer;
    }

    pub fn up(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let router = Router::new().route("/{*path}", post(take)).with_state(Arc::clone(&self.shared));
        self.serving = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    pub async fn down(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        drop(serving.await);
    }

    /// Everything that was posted, also what was answered with an error.
    pub fn posted(&self) -> Vec<Posted> {
        self.shared.lock().unwrap().1.clone()
    }

    /// What was answered with 200.
    pub fn taken(&self) -> Vec<Posted> {
        self.posted().into_iter().filter(|posted| posted.answered == Answer::Status(200)).collect()
    }
}

impl Posted {
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).unwrap().to_str().unwrap().to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

type Shared = Arc<Mutex<(Answer, Vec<Posted>)>>;

async fn take(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let answered = {
        let mut shared = shared.lock().unwrap();
        let answered = shared.0;
        shared.1.push(Posted { headers, body: String::from_utf8(body.to_vec()).unwrap(), answered });
        answered
    };
    match answered {
        Answer::Status(status) => (StatusCode::from_u16(status).unwrap(), "so it is").into_response(),
        Answer::Later(seconds) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())], "later").into_response()
        }
        Answer::Nothing => std::future::pending().await,
        Answer::Endless => {
            let chunks = std::iter::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024])));
            axum::body::Body::from_stream(futures::stream::iter(chunks)).into_response()
        }
    }
}
