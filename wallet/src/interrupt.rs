//! Ctrl-C and its relatives: one listener, which acts at once unless a signed transaction is on its way.
//!
//! It runs on a thread of its own, so that a command that reads a pipe or waits at a prompt can be ended, too. While a
//! transaction is on its way, the command itself ends: with the id, how long it may still run, and how to go on waiting.

use std::{
    io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    error::{Exit, WalletError},
    output::Output,
    prompt,
};

/// What a command knows of interruptions.
#[derive(Clone, Debug)]
pub struct Interrupts {
    /// Whether a signed transaction is on its way.
    on_its_way: Arc<AtomicBool>,
    came: watch::Receiver<bool>,
}

/// While it lives, an interruption is the command's own affair.
#[derive(Debug)]
pub struct OnItsWay<'a>(&'a Interrupts);

impl Interrupts {
    /// Listens from now on; before anything is asked or signed. Must be called inside a runtime with a worker thread.
    pub fn listen(output: Output) -> io::Result<Interrupts> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let (send, came) = watch::channel(false);
        let on_its_way = Arc::new(AtomicBool::new(false));
        let is_on_its_way = on_its_way.clone();
        tokio::spawn(async move {
            loop {
                // What the default action would end with.
                let (code, says) = tokio::select! {
                    _ = interrupt.recv() => (Exit::Interrupted as i32, true),
                    _ = terminate.recv() => (128 + SignalKind::terminate().as_raw_value(), false),
                    _ = hang_up.recv() => (128 + SignalKind::hangup().as_raw_value(), false),
                };
                // First: who waits for the word may be done with its transaction before the next line.
                let is_theirs = says && is_on_its_way.load(Ordering::SeqCst);
                send.send_replace(true);
                if is_theirs {
                    continue;
                }
                prompt::restore_terminal();
                if says {
                    output.failure(&WalletError::Interrupted, &WalletError::Interrupted.to_string());
                }
                process::exit(code);
            }
        });
        Ok(Interrupts { on_its_way, came })
    }

    /// A signed transaction is on its way until the returned value goes.
    pub fn on_its_way(&self) -> OnItsWay<'_> {
        self.on_its_way.store(true, Ordering::SeqCst);
        OnItsWay(self)
    }

    /// Resolves once somebody has interrupted.
    pub async fn came(&self) {
        let mut came = self.came.clone();
        // An error means that nobody listens any more, which nothing here brings about.
        let _ = came.wait_for(|came| *came).await;
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.on_its_way.store(false, Ordering::SeqCst);
    }
}
