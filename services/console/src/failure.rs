//! What went wrong, as a page says it.

use http::StatusCode;
use tonic::{Code, Status};

/// What went wrong: the API's own words, and the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For the browser.
    pub status: StatusCode,
    /// For the page's head.
    pub title: &'static str,
    /// In the API's words.
    pub text: String,
    /// Where to go on; none: to the overview.
    pub back: Option<String>,
}

impl Failure {
    /// Something that was typed cannot be.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, title: "This cannot be", text: text.into(), back: None }
    }

    /// Something is not there.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, title: "Not found", text: text.into(), back: None }
    }

    /// With the way back.
    pub fn back(mut self, to: impl Into<String>) -> Self {
        self.back = Some(to.into());
        self
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let (http, title) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "This cannot be"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "Sign in again"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "Not allowed"),
            Code::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => {
                (StatusCode::CONFLICT, "Nothing was done")
            }
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "Too much at a time"),
            Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "The service does not offer this"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "The service is not available"),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "The service did not answer in time"),
            _ => (StatusCode::BAD_GATEWAY, "The service failed"),
        };
        Self { status: http, title, text: words(&status), back: None }
    }
}

/// What a status says, never nothing.
pub(crate) fn words(status: &Status) -> String {
    match status.message() {
        "" => format!("The service says only: {}", status.code().description()),
        message => message.to_owned(),
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::invalid(text)
    }
}
