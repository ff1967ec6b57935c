//! Tells browsers of changes over server-sent events.
//!
//! A stream belongs to one page. It renders the parts of that page again when something has changed, and sends those
//! that look different: never a list of changes. So however much changes, a browser gets a few parts a second, and one
//! that was away has everything with the first ones after.

use crate::app::App;
use crate::failure::words;
use crate::pages::View;
use crate::visitor::Visitor;
use crate::watch::{Seen, Watch};
use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use maud::PreEscaped;
use serde_json::json;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Says that the connection stands, and finds out that the browser is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A browser that takes nothing for so long is given up.
const STALL: Duration = Duration::from_secs(30);
/// After a failure it is tried again, later and later.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// So much longer than rendering took is the pause after it: however costly a page is, it takes a small share.
const COST_FACTOR: u32 = 5;
/// Parts that wait to be written to one browser.
const BUFFER: usize = 8;

/// Follows the page `of`, a path with its query.
pub(crate) async fn stream(visitor: Visitor, State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let query = crate::fields::Fields::parse(query.unwrap_or_default().as_bytes());
    let Some(view) = View::parse(query.get("of")) else {
        return (StatusCode::NOT_FOUND, "no such page\n").into_response();
    };
    let permits = [&app.streams, &visitor.session.streams].map(|bound| Arc::clone(bound).try_acquire_owned());
    let [Ok(all), Ok(own)] = permits else {
        app.metrics.refuse("live");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], "too many live pages\n")
            .into_response();
    };
    let (events, receiver) = mpsc::channel(BUFFER);
    app.metrics.live.inc();
    let follower = Follower { view, visitor, app, events, sent: HashMap::new(), _permits: [all, own] };
    tokio::spawn(follower.run());
    let stream = tokio_stream::StreamExt::map(ReceiverStream::new(receiver), Ok::<Event, Infallible>);
    let mut response = Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    // A proxy in between must not gather what is to be seen at once.
    response.headers_mut().insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    response
}

struct Follower {
    view: View,
    visitor: Visitor,
    app: Arc<App>,
    events: mpsc::Sender<Event>,
    /// What the browser has of each part.
    sent: HashMap<&'static str, String>,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Why a stream is over.
struct Over;

impl Follower {
    async fn run(mut self) {
        let (ended, ending) = (self.visitor.session.ended.clone(), self.app.ending.clone());
        let events = self.events.clone();
        let app = Arc::clone(&self.app);
        tokio::select! {
            () = self.follow() => {}
            () = ended.cancelled() => {}
            () = ending.cancelled() => {}
            () = events.closed() => {}
        }
        // It may be this stream that found out that the credential counts no longer.
        if ended.is_cancelled() {
            // The browser asks for the page again, and is led to the sign-in.
            let _ = tokio::time::timeout(STALL, events.send(Event::default().event("ended").data("-"))).await;
        }
        app.metrics.live.dec();
    }

    async fn follow(&mut self) {
        let mut watch = Watch::new(self.view.watches(), self.visitor.calls.clone());
        let interval = Duration::from_millis(self.app.config.live_interval_ms);
        let poll = self.view.poll().unwrap_or_else(|| Duration::from_millis(self.app.config.live_poll_ms));
        let mut failures = 0;
        let mut seen = Seen::default();
        loop {
            let began = Instant::now();
            let told = match self.view.parts(&self.visitor).await {
                Ok(parts) => {
                    failures = 0;
                    self.tell(parts, &seen).await
                }
                Err(status) if status.code() == tonic::Code::Unauthenticated => {
                    self.visitor.end("credential");
                    return;
                }
                Err(status) => {
                    failures += 1;
                    self.send("trouble", &words(&status)).await
                }
            };
            if told.is_err() || self.view.is_over(&self.visitor) {
                return;
            }
            let pause = (began.elapsed() * COST_FACTOR).max(interval);
            let pause = if failures > 0 { (pause * 2_u32.pow(failures.min(6))).min(MAX_PAUSE) } else { pause };
            tokio::time::sleep(pause).await;
            // What failed is tried again, whether something has changed or not.
            if failures == 0 {
                tokio::select! {
                    () = watch.changed() => {}
                    () = tokio::time::sleep(poll) => {}
                }
            }
            seen = watch.take();
        }
    }

    /// Sends what looks different, and a sentence for who does not see it.
    async fn tell(&mut self, parts: Vec<crate::words::Part>, seen: &Seen) -> Result<(), Over> {
        for part in parts {
            let PreEscaped(html) = part.markup;
            if self.sent.get(part.id) == Some(&html) {
                continue;
            }
            let data = json!({ "id": part.id, "html": html }).to_string();
            self.send("part", &data).await?;
            self.app.metrics.live_parts.inc();
            self.sent.insert(part.id, html);
        }
        if let Some(sentence) = seen.sentence() {
            self.send("said", &sentence).await?;
        }
        self.send("fresh", &crate::clock::human(crate::clock::now_ms())).await
    }

    async fn send(&self, name: &str, data: &str) -> Result<(), Over> {
        // A line's end within the data would begin a field of its own.
        let data = data.replace(['\r', '\n'], " ");
        let sending = self.events.send(Event::default().event(name).data(data));
        match tokio::time::timeout(STALL, sending).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Over),
        }
    }
}

/// What a failed call says, for a stream.
pub(crate) fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        tonic::Code::Unauthenticated
            | tonic::Code::PermissionDenied
            | tonic::Code::Unimplemented
            | tonic::Code::InvalidArgument
    )
}
