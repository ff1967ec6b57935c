//! A small HTTP client for what our programs serve on loopback: health and metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long a server may take for each step of an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status, e.g. 200.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// `GET http://SERVER/path`.
///
/// # Errors
/// When there is no server, or it does not answer with HTTP.
pub fn get(server: SocketAddr, path: &str) -> Result<Response> {
    let answer = exchange(server, path).with_context(|| format!("GET http://{server}{path}"))?;
    parse(&answer).with_context(|| format!("reading the answer to GET http://{server}{path}"))
}

/// Speaks HTTP/1.0, so that the answer ends with the connection and never comes in chunks.
fn exchange(server: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("it is cut off: {answer:?}"))?;
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        bail!("its body has {} bytes, but it announced {length:?}", body.len());
    }
    Ok(Response { status: status.with_context(|| format!("no HTTP: {first:?}"))?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_and_body() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\n\r\nlog: x").unwrap();
        assert_eq!(answer, Response { status: 503, body: "log: x".into() });
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\n").unwrap().body, "");
    }

    #[test]
    fn refuses_what_is_cut_off_or_no_http() {
        for bad in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nlog: x", "220 smtp\r\n\r\n"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
