//! A Chromium without a window, with a driver and an empty profile of its own.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use tdb_tests::{browser::Browser, serving};
//!
//! let server = serving::serve(&[])?;
//! let browser = Browser::start().await?;
//! browser.open(&server, "/").await?;
//! browser.see("h1").await?;
//! browser.finish().await // fails if anything was complained about in the console
//! # }
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tdb_testkit::http;
use tdb_testkit::server::{Server, free_port};
use tempfile::TempDir;
use thirtyfour::prelude::*;
use thirtyfour::{Capabilities, WebDriver};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

use crate::serving::root;

/// How long to wait for something to appear; far more than a page needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// More browsers at once than this make each other slow.
static PLACES: Semaphore = Semaphore::const_new(2);

const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
];

/// What the system is said to prefer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appearance {
    Light,
    Dark,
}

/// One browser window and all that belongs to it.
pub struct Browser {
    /// For whatever this type has no method for.
    pub driver: WebDriver,
    chromedriver: ChromeDriver,
    _profile: TempDir,
    _place: SemaphorePermit<'static>,
}

impl Browser {
    /// Starts a browser with a page of 1280 × 800, light.
    ///
    /// # Errors
    /// When Chromium or its driver is missing or does not start.
    pub async fn start() -> Result<Self> {
        let place = PLACES.acquire().await?;
        // The driver's client insists on one, though it speaks plain HTTP here; another test may have chosen it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chromedriver = ChromeDriver::start().await?;
        let profile = tempfile::tempdir()?;
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let mut capabilities = Capabilities::new();
        capabilities.set("browserName", "chrome")?;
        capabilities.set("goog:chromeOptions", json!({ "args": flags }))?;
        capabilities.set("goog:loggingPrefs", json!({ "browser": "ALL" }))?;
        let driver = WebDriver::new(format!("http://{}", chromedriver.address), capabilities)
            .await
            .context("Chromium did not start")?;
        let browser = Self { driver, chromedriver, _profile: profile, _place: place };
        browser.resize(1280, 800).await?;
        browser.appearance(Appearance::Light).await?;
        Ok(browser)
    }

    /// Opens a page of this server; `path` begins with `/`.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn open(&self, server: &Server, path: &str) -> Result<()> {
        self.driver.goto(format!("http://{}{path}", server.address)).await.with_context(|| path.to_owned())
    }

    /// The page's inner size in CSS pixels.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        Ok(())
    }

    /// Light or dark, and no motion.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn appearance(&self, appearance: Appearance) -> Result<()> {
        let scheme = if appearance == Appearance::Dark { "dark" } else { "light" };
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]});
        self.devtools("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    /// Sends a command of the DevTools protocol.
    ///
    /// # Errors
    /// When the browser refuses it.
    pub async fn devtools(&self, method: &str, params: Value) -> Result<Value> {
        self.driver.cdp().send_raw(method, params).await.with_context(|| method.to_owned())
    }

    /// Waits until an element matches the CSS selector and is displayed.
    ///
    /// # Errors
    /// When none does within [`PATIENCE`]; with what the page says instead.
    pub async fn see(&self, css: &str) -> Result<WebElement> {
        let start = Instant::now();
        loop {
            for element in self.driver.find_all(By::Css(css)).await? {
                // An element may go away between the two questions.
                if element.is_displayed().await.unwrap_or(false) {
                    return Ok(element);
                }
            }
            self.keep_waiting(start, css).await?;
        }
    }

    /// Waits until the page's text contains `text`.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`]; with what it says instead.
    pub async fn read(&self, text: &str) -> Result<()> {
        let start = Instant::now();
        while !self.text().await?.contains(text) {
            self.keep_waiting(start, text).await?;
        }
        Ok(())
    }

    /// Waits until this expression in JavaScript is true.
    ///
    /// # Errors
    /// When it is not within [`PATIENCE`]; with what the page says.
    pub async fn until(&self, expression: &str) -> Result<()> {
        let start = Instant::now();
        while self.ask(&format!("return !!({expression});")).await? != json!(true) {
            self.keep_waiting(start, expression).await?;
        }
        Ok(())
    }

    async fn keep_waiting(&self, start: Instant, what: &str) -> Result<()> {
        if start.elapsed() > PATIENCE {
            let errors = self.complaints().await.unwrap_or_default().join("\n");
            bail!("waited in vain for {what}; the page says:\n{}\n{errors}", self.text().await?);
        }
        sleep(Duration::from_millis(50)).await;
        Ok(())
    }

    /// The page's text as a person sees it.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn text(&self) -> Result<String> {
        let text = self.ask("return document.body ? document.body.innerText : '';").await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Runs the body of a JavaScript function and returns what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub async fn ask(&self, script: &str) -> Result<Value> {
        let returned = self.driver.execute(script, Vec::new()).await.with_context(|| script.to_owned())?;
        Ok(returned.json().clone())
    }

    /// A picture of the whole page, as PNG, also below the fold.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub async fn screenshot(&self, path: &Path) -> Result<()> {
        let height = self.ask("return document.documentElement.scrollHeight;").await?.as_u64().unwrap_or(800);
        let width = self.ask("return window.innerWidth;").await?.as_u64().unwrap_or(1280);
        let before = self.ask("return window.innerHeight;").await?.as_u64().unwrap_or(800);
        self.resize(width as u32, height.clamp(before, 6000) as u32).await?;
        let png = self.driver.screenshot_as_png().await?;
        self.resize(width as u32, before as u32).await?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, png).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was complained about in the console since the last call: errors, and loads that failed.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let path = format!("/session/{}/se/log", self.driver.session_id());
        let address = self.chromedriver.address;
        let body = br#"{"type":"browser"}"#;
        let ask = move || http::request(address, "POST", &path, &[], Some(body), PATIENCE);
        let response = tokio::task::spawn_blocking(ask).await??;
        let answer: Value = serde_json::from_slice(&response.body)?;
        let entries = answer["value"].as_array().with_context(|| format!("not a log: {answer}"))?;
        let severe = entries.iter().filter(|e| e["level"] == "SEVERE");
        Ok(severe.map(|e| e["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// What axe-core finds wrong with the page's accessibility, a line each: rule, where, and why.
    ///
    /// # Errors
    /// When axe-core is not installed (`cargo xtask setup npm`) or does not run.
    pub async fn accessibility(&self) -> Result<Vec<String>> {
        let path = root().join("target/npm/node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: run `cargo xtask setup npm`", path.display()))?;
        self.ask(&axe).await?;
        let script = "const done = arguments[arguments.length - 1];
            axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })
               .then(r => done({ violations: r.violations }), e => done({ error: String(e) }));";
        let result = self.driver.execute_async(script, Vec::new()).await?.json().clone();
        let violations = result["violations"].as_array().with_context(|| format!("axe-core: {result}"))?;
        let lines = violations.iter().flat_map(|v| {
            v["nodes"].as_array().into_iter().flatten().map(move |n| {
                let why = n["failureSummary"].as_str().unwrap_or_default().replace('\n', " ");
                format!("{} ({}): {} {why}", v["id"].as_str().unwrap_or_default(), v["impact"], n["target"])
            })
        });
        Ok(lines.collect())
    }

    /// Ends the browser.
    ///
    /// # Errors
    /// When the console holds complaints that [`Self::complaints`] has not returned yet.
    pub async fn finish(self) -> Result<()> {
        let complaints = self.complaints().await?;
        self.driver.clone().quit().await?;
        ensure!(complaints.is_empty(), "the console complains:\n{}", complaints.join("\n"));
        Ok(())
    }
}

/// The driver's process; it and its browser end with the handle.
struct ChromeDriver {
    child: Child,
    address: SocketAddr,
}

impl ChromeDriver {
    async fn start() -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let child = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own, so that nothing of it survives a test that panics.
            .process_group(0)
            .spawn()
            .context("chromedriver does not start; `cargo xtask setup browser` installs it")?;
        let mut driver = Self { child, address };
        let start = Instant::now();
        loop {
            let ask = move || http::request(address, "GET", "/status", &[], None, Duration::from_secs(5));
            let answer = tokio::task::spawn_blocking(ask).await?;
            if answer.is_ok_and(|r| r.status == 200) {
                return Ok(driver);
            }
            if let Some(status) = driver.child.try_wait()? {
                bail!("chromedriver ended ({status})");
            }
            ensure!(start.elapsed() < PATIENCE, "chromedriver does not answer");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for ChromeDriver {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}
