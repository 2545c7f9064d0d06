//! Ctrl-C: the first one cancels, a second one ends the program.

use anyhow::{Context, bail};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a shell tells that SIGINT ended a program.
const ENDED: u8 = 128 + 2;

/// Knows whether there has been a Ctrl-C, whoever waited for one at that moment.
#[derive(Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// From now on.
    ///
    /// # Errors
    /// If the system lets no signals be received.
    pub fn listen(runtime: &Runtime) -> anyhow::Result<Self> {
        let _within = runtime.enter();
        let mut signals = signal(SignalKind::interrupt()).context("Ctrl-C cannot be waited for")?;
        let (send, receive) = watch::channel(false);
        runtime.spawn(async move {
            signals.recv().await;
            eprintln!("cancelling; a second Ctrl-C ends this program at once");
            let _ = send.send(true);
            signals.recv().await;
            std::process::exit(ENDED.into());
        });
        Ok(Self(receive))
    }

    /// Comes back when there has been one.
    pub async fn pressed(&mut self) {
        if self.0.wait_for(|pressed| *pressed).await.is_err() {
            // The runtime is ending.
            std::future::pending().await
        }
    }

    /// For what cannot wait for it.
    ///
    /// # Errors
    /// If there has been one.
    pub fn check(&self) -> anyhow::Result<()> {
        if *self.0.borrow() {
            bail!("cancelled; finished units stay");
        }
        Ok(())
    }
}
