//! Our style, script and icon: in the program itself, under a name that changes with what is inside, so that browsers
//! may keep them for ever.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, header};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// One file.
pub(crate) struct Asset {
    text: &'static str,
    kind: &'static str,
    name: String,
}

/// How pages look.
pub(crate) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("console", "css", "text/css; charset=utf-8", include_str!("assets/console.css")));
/// What makes pages live.
pub(crate) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("console", "js", "text/javascript; charset=utf-8", include_str!("assets/console.js")));
/// The icon.
pub(crate) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

impl Asset {
    fn new(stem: &str, extension: &str, kind: &'static str, text: &'static str) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(text.as_bytes())[..9]);
        Self { text, kind, name: format!("{stem}-{hash}.{extension}") }
    }

    /// Where it is.
    pub fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }

    fn response(&self, keep: &'static str) -> Response {
        ([(header::CONTENT_TYPE, self.kind), (header::CACHE_CONTROL, keep)], self.text).into_response()
    }
}

/// Serves the asset called `name`.
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    match [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name) {
        Some(asset) => asset.response("public, max-age=31536000, immutable"),
        None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    }
}

/// Serves the icon under the name that browsers look for by themselves.
pub(crate) async fn icon() -> Response {
    ICON.response("public, max-age=86400")
}
