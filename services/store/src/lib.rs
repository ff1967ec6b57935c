//! Object stores by URL: a local directory, S3, Google Cloud Storage, Azure. Checkpoints and the history are in one.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use std::sync::Arc;
use url::Url;

/// What may be named.
pub const ALLOWED: &str = "a directory with its whole path, or file:///..., s3://..., gs://..., az://...";
/// What options from the environment begin with.
const ENVIRONMENT: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
/// Kinds of stores that can be named.
const SCHEMES: [&str; 8] = ["file", "s3", "s3a", "gs", "az", "abfs", "abfss", "https"];

/// The URL of a store; a path without scheme is a directory.
///
/// # Errors
/// What is wrong with it and what is allowed, as a sentence about the text.
pub fn parse(text: &str) -> Result<Url, String> {
    let url = if text.starts_with('/') {
        Url::from_directory_path(text).map_err(|()| format!("is no path; allowed: {ALLOWED}"))?
    } else {
        Url::parse(text).map_err(|error| format!("is no URL: {error}; allowed: {ALLOWED}"))?
    };
    if !SCHEMES.contains(&url.scheme()) {
        return Err(format!("names an unknown store `{}:`; allowed: {ALLOWED}", url.scheme()));
    }
    Ok(url)
}

/// The store that a URL names, from its root, and the path in it. `options` (e.g. `aws_region`) go over those of the
/// environment (`AWS_...`, `GOOGLE_...`, `AZURE_...`).
///
/// # Errors
/// When there is no such store, or an option is wrong.
pub fn open<I>(url: &Url, options: I) -> object_store::Result<(Arc<dyn ObjectStore>, Path)>
where
    I: IntoIterator<Item = (String, String)>,
{
    ObjectStoreScheme::parse(url)?;
    let environment = std::env::vars().filter(|(name, _)| ENVIRONMENT.iter().any(|known| name.starts_with(known)));
    let environment = environment.map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (store, root) = object_store::parse_url_opts(url, environment.chain(options))?;
    Ok((Arc::from(store), root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_object_stores_are_taken() {
        for url in ["/var/lib/tidegate", "file:///var/lib", "s3://bucket/a/b", "gs://bucket", "az://container/x"] {
            assert!(parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_store_is_told() {
        assert!(parse("relative/path").is_err_and(|told| told.starts_with("is no URL")));
        assert!(parse("ftp://host/x").is_err_and(|told| told.starts_with("names an unknown store `ftp:`; allowed: ")));
    }
}
