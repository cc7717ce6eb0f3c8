//! A network that nobody uses, and one payment at a time on it.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Options,
    load::Way,
    network::Network,
    payments::{Payments, account_of},
    report::{NodeCost, Quantiles, Seconds},
    usage,
    watch::{Sightings, Watch},
};
use crate::{cli::Failure, words::note};

/// Payments made one at a time.
pub(super) const PAYMENTS: u64 = 300;
/// How long one may take to be final.
const FINALITY_MAX: Duration = Duration::from_secs(30);
/// How often to look whether it is: the resolution of what is measured does not depend on it, blocks are timed as they come.
const LOOK: Duration = Duration::from_millis(1);
/// Pauses between payments differ, so that they do not keep step with anything in the network.
const PAUSE_MIN_MS: u64 = 40;
const PAUSE_STEP_MS: u64 = 7;
const PAUSE_STEPS: u64 = 17;

/// What an idle network costs, and how fast it is.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) nodes: Vec<NodeCost>,
    pub(super) others_cpu: Seconds,
    pub(super) finality_ms: Quantiles,
    /// From sending to the answer that a payment is admitted.
    pub(super) admission_ms: Quantiles,
}

/// Measures idleness over the seconds of `options`, then makes `payments` one at a time.
pub(super) async fn run(options: &Options, network: &mut Network, mut payments: Payments) -> Result<Measured, Failure> {
    let urls = network.urls();
    // What a start costs is not idleness. Nobody watches during it either.
    count_down(options.warmup, "settling", network).await?;
    let (before, busy_before, own_before) = (network.usage()?, usage::of_machine()?, usage::of_this_process()?);
    count_down(options.seconds, "idle", network).await?;
    let (after, busy_after, own_after) = (network.usage()?, usage::of_machine()?, usage::of_this_process()?);
    let nodes: Vec<_> = before.iter().zip(&after).map(|(before, after)| NodeCost::new(before, after)).collect();
    let ours = own_after.cpu - own_before.cpu + nodes.iter().map(|node| node.cpu_seconds).sum::<Seconds>();
    let others_cpu = (busy_after.busy - busy_before.busy - ours).max(0.0);

    let sightings = Arc::new(Sightings::new(&mut payments, urls.len()));
    let mut watching = JoinSet::new();
    for (node, url) in urls.iter().enumerate() {
        let (watch, sightings) = (Watch::open(node, url).await?, sightings.clone());
        watching.spawn(async move { watch.follow(&sightings).await });
    }
    let mut ways = Vec::new();
    for url in &urls {
        ways.push(Way::open(url, options.in_flight).await?);
    }
    let paid = tokio::select! {
        failure = watching.join_next() => {
            return Err(failure.and_then(Result::ok).unwrap_or_else(|| "the task that watches blocks is gone".into()));
        }
        paid = pay(payments, &ways, &sightings) => paid?,
    };
    network.check()?;
    Ok(Measured {
        nodes,
        others_cpu,
        finality_ms: Quantiles::of(paid.finality),
        admission_ms: Quantiles::of(paid.admission),
    })
}

async fn count_down(seconds: u32, phase: &str, network: &mut Network) -> Result<(), Failure> {
    let start = Instant::now();
    for second in 1..=seconds {
        sleep_until(start + Duration::from_secs(second.into())).await;
        network.check()?;
        note!("{second:>4} s {phase}");
    }
    Ok(())
}

struct Paid {
    finality: Vec<Duration>,
    admission: Vec<Duration>,
}

/// One payment after the other, over all nodes in turn.
async fn pay(payments: Payments, ways: &[Way], sightings: &Sightings) -> Result<Paid, Failure> {
    let mut paid = Paid { finality: Vec::new(), admission: Vec::new() };
    let mut said = Instant::now();
    for (place, transaction) in payments.transactions.into_iter().enumerate() {
        sleep(Duration::from_millis(PAUSE_MIN_MS + PAUSE_STEP_MS * (place as u64 % PAUSE_STEPS))).await;
        let start = sightings.now();
        let account = account_of(place, payments.accounts);
        let refused = |status: tonic::Status| format!("payment {place} was refused: {}", status.message());
        ways[sightings.node_of(place)].submit(account, transaction).await.map_err(refused)?;
        paid.admission.push(sightings.now() - start);
        let seen = timeout(FINALITY_MAX, async {
            loop {
                match sightings.seen(place) {
                    Some(seen) => break seen,
                    None => sleep(LOOK).await,
                }
            }
        });
        let seen = seen.await.map_err(|_| format!("payment {place} was not final within {FINALITY_MAX:?}"))?;
        paid.finality.push(seen.saturating_sub(start));
        if said.elapsed() >= Duration::from_secs(1) {
            said = Instant::now();
            note!("     payment {} of {PAYMENTS}", place + 1);
        }
    }
    Ok(paid)
}
