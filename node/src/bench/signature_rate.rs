//! How many signatures this machine checks per second: what bounds every ledger that checks all of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tally_types::{
    Hash, SecretKey, SignedBytes,
    signature::{SignatureCheck, all_hold},
};

use crate::cli::Failure;

/// Signatures of one batch, each by a key of its own: what a validator checks together.
const BATCH: u32 = 256;
/// How long each way is measured.
const LONG_ENOUGH: Duration = Duration::from_secs(1);

/// Signature checks per second.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignatureRate {
    /// On one thread.
    pub(super) one_thread: f64,
    /// On as many as there are cores.
    pub(super) all_cores: f64,
    /// How many these are.
    pub(super) cores: usize,
}

/// Measures on threads of its own.
pub(super) async fn measure() -> Result<SignatureRate, Failure> {
    let (done, measured) = tokio::sync::oneshot::channel();
    // A thread, not a blocking task: Ctrl-C must not wait for it.
    thread::Builder::new().name("signature-rate".into()).spawn(move || {
        let _ = done.send(measure_now());
    })?;
    Ok(measured.await?)
}

fn measure_now() -> SignatureRate {
    let checks: Vec<_> = (0..BATCH).map(check).collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let one_thread = rate(&checks);
    let all_cores = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| rate(&checks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
    });
    SignatureRate { one_thread, all_cores, cores }
}

fn rate(checks: &[SignatureCheck]) -> f64 {
    let start = Instant::now();
    let mut checked = 0u32;
    while start.elapsed() < LONG_ENOUGH {
        assert!(all_hold(checks), "signatures made here hold");
        checked += BATCH;
    }
    f64::from(checked) / start.elapsed().as_secs_f64()
}

/// A signature over about as many bytes as a transfer has.
fn check(number: u32) -> SignatureCheck {
    let secret = SecretKey::from_seed(&Hash::tagged("tally.bench.check", &[&number.to_be_bytes()]).0);
    let bytes = SignedBytes::new("tally.bench", &Hash::ZERO, &[&[7; 200]]);
    SignatureCheck { key: secret.public_key(), signature: secret.sign(&bytes), bytes }
}
