//! A real Chromium, driven over W3C WebDriver by Debian's `chromedriver`.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use xtask::daemon::Daemon;
use xtask::ports::free_port;
use xtask::wait::wait_until;

/// How long a page may take for what is waited for.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the driver may take for one command.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);
/// The name of an element's reference (W3C WebDriver, 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The tallest picture that is taken, in pixels.
const MAX_HEIGHT: f64 = 4_000.0;

/// A browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    session: String,
    address: SocketAddr,
    _driver: Daemon,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// For files' names.
    pub name: &'static str,
    /// The window's width in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Whether the reader wants it dark.
    pub dark: bool,
}

impl Look {
    /// A desk and a phone, light and dark.
    pub const ALL: [Self; 4] = [
        Self { name: "desk-light", width: 1_280, height: 900, dark: false },
        Self { name: "desk-dark", width: 1_280, height: 900, dark: true },
        Self { name: "phone-light", width: 390, height: 844, dark: false },
        Self { name: "phone-dark", width: 390, height: 844, dark: true },
    ];
}

impl Browser {
    /// Starts one, with its driver's log in `dir`. It takes any certificate: whose it is, is not its part here.
    ///
    /// # Errors
    /// When Chromium or its driver is missing (`cargo xtask setup --for test` installs them) or does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        let mut driver = Daemon::spawn("chromedriver", command, &dir.join(format!("chromedriver-{port}.log")))
            .context(
                "Debian's chromium and chromium-driver are needed; `cargo xtask setup --for test` installs them",
            )?;
        driver.wait_for("chromedriver to listen", TIMEOUT, || TcpStream::connect(address).ok().map(drop))?;
        // As root, in containers, Chromium's own sandbox cannot be had; the pages are ours.
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let mut browser = Self { session: String::new(), address, _driver: driver };
        let started = browser.exchange("POST", "/session", &capabilities)?;
        started["sessionId"].as_str().context("the driver gave no session")?.clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Looks at pages in this way from now on.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn look(&self, look: Look) -> Result<()> {
        let metrics = json!({
            "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if look.dark { "dark" } else { "light" };
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &feature)?;
        Ok(())
    }

    /// Goes to a page.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn go(&self, url: &str) -> Result<()> {
        self.command("POST", "/url", &json!({ "url": url })).map(drop)
    }

    /// The path and query of the page that is shown.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn path(&self) -> Result<String> {
        let path = self.run("return location.pathname + location.search", &[])?;
        Ok(path.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks at what `selector` (CSS) finds first.
    ///
    /// # Errors
    /// When there is nothing, or it cannot be clicked at.
    pub fn click(&self, selector: &str) -> Result<()> {
        let path = format!("/element/{}/click", self.find(selector)?);
        self.command("POST", &path, &json!({})).map(drop)
    }

    /// Types into what `selector` finds first, as hands do.
    ///
    /// # Errors
    /// When there is nothing, or it takes no text.
    pub fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        let path = format!("/element/{}/value", self.find(selector)?);
        self.command("POST", &path, &json!({ "text": text })).map(drop)
    }

    /// What somebody reads at what `selector` finds first; empty when there is nothing.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn text(&self, selector: &str) -> Result<String> {
        let text = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", &[selector.into()])?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until one reads `text` at what `selector` finds first, without loading the page again.
    ///
    /// # Errors
    /// When it is not there in time: with what is there instead.
    pub fn wait_for(&self, selector: &str, text: &str) -> Result<()> {
        let is_there = || self.text(selector).is_ok_and(|there| there.contains(text));
        wait_until(&format!("{text:?} at {selector}"), TIMEOUT, is_there).with_context(|| {
            let there = self.text("body").unwrap_or_default();
            format!("at {} one reads:\n{there}", self.path().unwrap_or_default())
        })
    }

    /// Runs a script on the page; gives what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Runs a script that calls its last argument with its result.
    ///
    /// # Errors
    /// When it throws, or never calls it.
    pub fn run_async(&self, script: &str) -> Result<Value> {
        self.command("POST", "/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Writes a picture of the whole page.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let size = &self.devtools("Page.getLayoutMetrics", &json!({}))?["cssContentSize"];
        let height = size["height"].as_f64().unwrap_or(MAX_HEIGHT).min(MAX_HEIGHT);
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1 });
        let what = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.devtools("Page.captureScreenshot", &what)?;
        let png = STANDARD.decode(taken["data"].as_str().context("no picture came")?)?;
        fs::write(file, png).with_context(|| format!("writing {}", file.display()))
    }

    /// Whether one has to scroll sideways to read the page.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn is_too_wide(&self) -> Result<bool> {
        let wide =
            self.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth", &[])?;
        Ok(wide.as_bool().unwrap_or(true))
    }

    /// What axe-core, whose text is `axe`, finds wrong with the page that is serious or critical.
    ///
    /// # Errors
    /// When it does not run.
    pub fn serious_faults(&self, axe: &str) -> Result<Vec<String>> {
        self.run(axe, &[])?;
        let found = self.run_async(
            "const done = arguments[arguments.length - 1];
             axe.run().then((result) => done(result.violations.flatMap((fault) => fault.nodes.map((node) =>
                 [fault.impact, fault.id, node.html.slice(0, 200), node.failureSummary].join(' | ')))));",
        )?;
        let faults = found.as_array().context("axe-core told nothing")?.iter().filter_map(Value::as_str);
        let is_serious = |fault: &&str| fault.starts_with("serious") || fault.starts_with("critical");
        Ok(faults.filter(is_serious).map(str::to_owned).collect())
    }

    /// What the browser complained of since it was last asked, e.g. what the Content-Security-Policy refused.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.command("POST", "/se/log", &json!({ "type": "browser" }))?;
        let entries = log.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect())
    }

    fn find(&self, selector: &str) -> Result<String> {
        let found = self.command("POST", "/element", &json!({ "using": "css selector", "value": selector }))?;
        Ok(found[ELEMENT].as_str().context("the driver found something else")?.to_owned())
    }

    fn devtools(&self, name: &str, parameters: &Value) -> Result<Value> {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.exchange(method, &format!("/session/{}{path}", self.session), body)
    }

    /// One command to the driver, on a connection of its own.
    fn exchange(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let what = || format!("telling the browser: {method} {path} {:.300}", body.to_string());
        let mut stream = TcpStream::connect(self.address).with_context(what)?;
        stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let body = read_body(&mut BufReader::new(stream)).with_context(what)?;
        let mut answer: Value = serde_json::from_slice(&body).with_context(what)?;
        let value = answer["value"].take();
        if let Some(error) = value["error"].as_str() {
            bail!("{}: {error}: {}", what(), value["message"].as_str().unwrap_or_default());
        }
        Ok(value)
    }
}

/// The body of an answer. The driver keeps the connection, whatever it is told, so the length says where it ends.
fn read_body(answer: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut length = None;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        ensure!(answer.read_line(&mut line)? > 0, "the driver's answer is cut off");
        let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        length = field.map(|(_, value)| value.trim().parse()).transpose()?.or(length);
    }
    let mut body = vec![0; length.context("the driver told no length")?];
    answer.read_exact(&mut body)?;
    Ok(body)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Else its processes outlive the driver.
        let _ = self.command("DELETE", "", &json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_where_its_length_says() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\n{}HTTP/1.1 200 OK\r\n";
        assert_eq!(read_body(&mut answer.as_bytes()).unwrap(), b"{}");
        for wrong in
            ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n{}", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"]
        {
            assert!(read_body(&mut wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
