//! A browser without script: cookies, redirects that are seen, forms that are read from their page.

#![allow(dead_code, clippy::unwrap_used, clippy::missing_panics_doc)]

use crate::api::Api;
use prometheus_client::registry::Registry;
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tidegate_console::{Console, ConsoleConfig};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A console over an API, served until it is dropped.
pub struct Served {
    pub address: SocketAddr,
    _end: DropGuard,
}

/// Serves a console on a free port.
pub async fn serve(api: &Api, config: ConsoleConfig) -> Served {
    let config = ConsoleConfig { listen: "127.0.0.1:0".parse().unwrap(), ..config };
    let console = Console::bind(config, api.routes(), &mut Registry::default()).await.unwrap();
    let (address, shutdown) = (console.local_addr(), CancellationToken::new());
    tokio::spawn(console.run(shutdown.clone()));
    Served { address, _end: shutdown.drop_guard() }
}

/// Somebody's browser.
pub struct Browser {
    client: Client,
    base: String,
    pub cookies: BTreeMap<String, String>,
    /// Headers for every request.
    pub headers: Vec<(&'static str, String)>,
}

/// What came.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Browser {
    pub fn new(served: &Served) -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        Self { client, base: format!("http://{}", served.address), cookies: BTreeMap::new(), headers: Vec::new() }
    }

    /// Signed in with this token.
    pub async fn signed_in(served: &Served, token: &str) -> Self {
        let mut browser = Self::new(served);
        let page = browser.sign_in(token).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
        browser
    }

    pub async fn sign_in(&mut self, token: &str) -> Page {
        let csrf = self.get("/sign-in").await.csrf();
        self.post("/sign-in", &[("csrf", &csrf), ("token", token)]).await
    }

    pub async fn get(&mut self, path: &str) -> Page {
        let request = self.client.get(format!("{}{path}", self.base));
        self.send(request).await
    }

    /// Sends fields as they are.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        let kind = "application/x-www-form-urlencoded";
        let request = self.client.post(format!("{}{path}", self.base)).header("content-type", kind).body(body.finish());
        self.send(request).await
    }

    /// Sends fields with the token of a form on the page `from`.
    pub async fn submit(&mut self, from: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = self.get(from).await.csrf();
        self.post(path, &[&[("csrf", csrf.as_str())], fields].concat()).await
    }

    /// Where a redirect leads.
    pub async fn follow(&mut self, page: &Page) -> Page {
        let to = page.location().to_owned();
        self.get(&to).await
    }

    /// Begins to read a live stream.
    pub async fn live(&self, of: &str) -> Live {
        let path = url::form_urlencoded::byte_serialize(of.as_bytes()).collect::<String>();
        let request = self.dressed(self.client.get(format!("{}/live?of={path}", self.base)));
        Live { response: request.send().await.unwrap(), text: String::new() }
    }

    fn dressed(&self, mut request: RequestBuilder) -> RequestBuilder {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
    }

    async fn send(&mut self, request: RequestBuilder) -> Page {
        let response = self.dressed(request).send().await.unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            let (pair, rest) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if rest.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let (status, headers) = (response.status(), response.headers().clone());
        Page { status, headers, body: response.text().await.unwrap() }
    }
}

impl Page {
    /// The token of the page's first form.
    pub fn csrf(&self) -> String {
        self.value_of("name=\"csrf\" value=\"")
    }

    /// What stands between `before` and the next quote.
    pub fn value_of(&self, before: &str) -> String {
        let rest = self.body.split_once(before).unwrap_or_else(|| panic!("no {before} in {self:?}")).1;
        rest.split('"').next().unwrap().to_owned()
    }

    pub fn location(&self) -> &str {
        self.headers.get("location").unwrap_or_else(|| panic!("{self:?}")).to_str().unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A live stream.
pub struct Live {
    pub response: reqwest::Response,
    text: String,
}

impl Live {
    /// The next event's name and data; none when it has ended.
    pub async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                    line.trim().to_owned()
                };
                let found = (field("event:"), field("data:"));
                let rest = rest.to_owned();
                self.text = rest;
                if !found.0.is_empty() {
                    return Some(found);
                }
                continue;
            }
            let chunk = self.response.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Reads on until an event fits; tells how many events of that name came before it.
    pub async fn until(&mut self, name: &str, fits: impl Fn(&str) -> bool) -> usize {
        let mut before = 0;
        loop {
            let (event, data) = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if event == name {
                if fits(&data) {
                    return before;
                }
                before += 1;
            }
        }
    }
}
