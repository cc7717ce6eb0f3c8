//! The open load: every payment at its moment, whatever became of those before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tally_proto::v1::{self, transaction_service_client::TransactionServiceClient};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use super::{
    Options,
    network::Network,
    payments::{Payments, account_of},
    report::{NodeCost, Quantiles, Seconds},
    usage::{self, MachineUsage, Usage},
    watch::{Blocks, Sightings, Watch},
};
use crate::{cli::Failure, words::note};

/// Connections to each node. One carries at most 256 calls at a time, so all together as many as
/// `--in-flight` may be.
const CONNECTIONS_PER_NODE: usize = 4;
/// How long an answer may take; after: counted as unanswered.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long to wait, after the last payment was sent, for those that are not final yet; after: counted as lost.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How often the sender looks at the clock.
const TICK: Duration = Duration::from_millis(1);
/// Between the last preparation and the first payment.
const LEAD: Duration = Duration::from_millis(200);

/// What a load came to. Counts speak of payments whose moment lies within the measured time.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) submitted: u64,
    pub(super) overruns: u64,
    pub(super) refused: BTreeMap<String, u64>,
    /// Submitted and not refused, but not seen in a block by the end.
    pub(super) lost: u64,
    /// Seen in a block within the measured time, whenever they were meant to be sent.
    pub(super) committed: u64,
    pub(super) finality_ms: Quantiles,
    pub(super) blocks: Blocks,
    pub(super) sent_late_max: Duration,
    pub(super) nodes: Vec<NodeCost>,
    pub(super) bench_cpu: Seconds,
    pub(super) others_cpu: Seconds,
    pub(super) stolen_cpu: Seconds,
}

/// Sends `payments` at the rate of `options` to the nodes at `urls` and measures.
pub(super) async fn run(
    options: &Options,
    network: &mut Network,
    mut payments: Payments,
    urls: &[String],
) -> Result<Measured, Failure> {
    let sightings = Arc::new(Sightings::new(&mut payments, urls.len()));
    let mut watching = JoinSet::new();
    for (node, url) in urls.iter().enumerate() {
        let (watch, sightings) = (Watch::open(node, url).await?, sightings.clone());
        watching.spawn(async move { watch.follow(&sightings).await });
    }
    let answers = Arc::new(Answers::default());
    let mut ways = Vec::new();
    for url in urls {
        ways.push(Way::open(url, options.in_flight).await?);
    }
    let schedule = Schedule { start: sightings.now() + LEAD, rate: options.rate };
    let sender = Sender { ways, sightings: sightings.clone(), answers: answers.clone(), schedule };
    let sending = tokio::spawn(sender.send(payments));
    let watched = async {
        match watching.join_next().await {
            Some(Ok(failure)) => failure,
            _ => "the task that watches blocks is gone".into(),
        }
    };
    let progress = Progress { options, sightings: &sightings, answers: &answers, schedule };
    let (before, after) = tokio::select! {
        failure = watched => return Err(failure),
        moments = progress.follow(network) => moments?,
    };
    let sent_late_max = sending.await?;
    Ok(progress.conclude(&before, &after, sent_late_max))
}

/// When which payment is to be sent.
#[derive(Clone, Copy)]
struct Schedule {
    /// Of the first payment, counted as [`Sightings`] counts.
    start: Duration,
    rate: u32,
}

impl Schedule {
    fn moment(&self, place: usize) -> Duration {
        self.start + Duration::from_secs_f64(place as f64 / f64::from(self.rate))
    }
}

/// What nodes answered.
#[derive(Default)]
struct Answers {
    /// All payments offered so far: sent or overrun.
    offered: AtomicU64,
    refused: AtomicU64,
    overruns: AtomicU64,
    /// Places of payments that were not sent, and of those refused with the reason. At most one each per payment.
    misses: Mutex<BTreeMap<usize, Miss>>,
}

/// Why a payment is not on its way.
enum Miss {
    Overrun,
    Refused(String),
}

impl Answers {
    fn miss(&self, place: usize, miss: Miss) {
        let counter = match &miss {
            Miss::Overrun => &self.overruns,
            Miss::Refused(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.misses.lock().unwrap_or_else(PoisonError::into_inner).insert(place, miss);
    }

    /// Payments that may become final.
    fn on_their_way(&self) -> u64 {
        let gone = self.refused.load(Ordering::Relaxed) + self.overruns.load(Ordering::Relaxed);
        self.offered.load(Ordering::Relaxed).saturating_sub(gone)
    }
}

/// The reason of a refusal: that of the contract, or else the gRPC code.
fn reason(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{:?}", status.code()).to_uppercase(),
    }
}

/// Connections to one node.
#[derive(Clone)]
pub(super) struct Way {
    clients: Vec<TransactionServiceClient<Channel>>,
    calls: Arc<Semaphore>,
}

impl Way {
    /// Connects to the node at `url`, for as many calls at a time as `in_flight`.
    pub(super) async fn open(url: &str, in_flight: u16) -> Result<Way, Failure> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.timeout(ANSWER_MAX).tcp_nodelay(true);
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS_PER_NODE {
            clients.push(TransactionServiceClient::new(endpoint.connect().await?));
        }
        Ok(Way { clients, calls: Arc::new(Semaphore::new(in_flight.into())) })
    }

    /// Sends a payment and waits for the answer. Payments of one account take one connection.
    pub(super) async fn submit(&self, account: usize, transaction: v1::Transaction) -> Result<(), Status> {
        let mut client = self.clients[account % self.clients.len()].clone();
        client.submit_transaction(v1::SubmitTransactionRequest { transaction: Some(transaction) }).await.map(|_| ())
    }
}

struct Sender {
    ways: Vec<Way>,
    sightings: Arc<Sightings>,
    answers: Arc<Answers>,
    schedule: Schedule,
}

impl Sender {
    /// Sends all; returns by how much a payment was sent late at most.
    async fn send(self, payments: Payments) -> Duration {
        let mut late_max = Duration::ZERO;
        for (place, transaction) in payments.transactions.into_iter().enumerate() {
            let moment = self.schedule.moment(place);
            while self.sightings.now() < moment {
                // To the next tick, for all payments of the tick together.
                let next = self.sightings.at(moment.max(self.sightings.now() + TICK));
                tokio::time::sleep_until(Instant::from_std(next)).await;
            }
            late_max = late_max.max(self.sightings.now().saturating_sub(moment));
            self.offer(place, account_of(place, payments.accounts), transaction);
            if place % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        late_max
    }

    /// Starts a call, unless too many are under way.
    fn offer(&self, place: usize, account: usize, transaction: v1::Transaction) {
        self.answers.offered.fetch_add(1, Ordering::Relaxed);
        let way = self.ways[self.sightings.node_of(place)].clone();
        let Ok(permit) = way.calls.clone().try_acquire_owned() else {
            return self.answers.miss(place, Miss::Overrun);
        };
        let answers = self.answers.clone();
        // Over the connections as accounts of one node come: their numbers differ by the number of nodes.
        let account = account / self.ways.len();
        tokio::spawn(async move {
            if let Err(status) = way.submit(account, transaction).await {
                answers.miss(place, Miss::Refused(reason(&status)));
            }
            drop(permit);
        });
    }
}

/// Everything that is read at the start and at the end of the measured time.
struct Moment {
    nodes: Vec<Usage>,
    bench: Usage,
    machine: MachineUsage,
}

impl Moment {
    fn now(network: &mut Network) -> Result<Moment, Failure> {
        let nodes = network.usage()?;
        Ok(Moment { nodes, bench: usage::of_this_process()?, machine: usage::of_machine()? })
    }
}

struct Progress<'a> {
    options: &'a Options,
    sightings: &'a Sightings,
    answers: &'a Answers,
    schedule: Schedule,
}

impl Progress<'_> {
    fn measured_from(&self) -> Duration {
        self.schedule.start + Duration::from_secs(self.options.warmup.into())
    }

    fn measured_to(&self) -> Duration {
        self.measured_from() + Duration::from_secs(self.options.seconds.into())
    }

    /// Says every second how it goes, until every payment is settled; returns what was read at both ends.
    async fn follow(&self, network: &mut Network) -> Result<(Moment, Moment), Failure> {
        let (mut before, mut after) = (None, None);
        let (mut offered_last, mut seen_last) = (0, 0);
        let last = self.options.warmup + self.options.seconds;
        for second in 0u32.. {
            let moment = self.schedule.start + Duration::from_secs(second.into());
            tokio::time::sleep_until(Instant::from_std(self.sightings.at(moment))).await;
            network.check()?;
            if second == self.options.warmup {
                before = Some(Moment::now(network)?);
            }
            if second == last {
                after = Some(Moment::now(network)?);
            }
            let (offered, seen) = (self.answers.offered.load(Ordering::Relaxed), self.sightings.count());
            let waiting = self.answers.on_their_way().saturating_sub(seen);
            if second > 0 {
                self.say(second, [offered - offered_last, seen - seen_last, waiting]);
            }
            (offered_last, seen_last) = (offered, seen);
            let is_settled = waiting == 0 || moment >= self.measured_to() + DRAIN_MAX;
            if second >= last && is_settled {
                return Ok((before.ok_or("the warm-up never ended")?, after.ok_or("the measured time never ended")?));
            }
        }
        Err("the run never ended".into())
    }

    fn say(&self, second: u32, [offered, seen, waiting]: [u64; 3]) {
        let phase = if second <= self.options.warmup {
            "warm-up"
        } else if second <= self.options.warmup + self.options.seconds {
            "measured"
        } else {
            "drain"
        };
        let (refused, overruns) =
            (self.answers.refused.load(Ordering::Relaxed), self.answers.overruns.load(Ordering::Relaxed));
        note!(
            "{second:>4} s {phase:<8} offered {offered:>6}/s  final {seen:>6}/s  waiting {waiting:>6}  refused {refused}  overruns {overruns}"
        );
    }

    fn conclude(&self, before: &Moment, after: &Moment, sent_late_max: Duration) -> Measured {
        let (from, to) = (self.measured_from(), self.measured_to());
        let misses = self.answers.misses.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut submitted, mut overruns, mut lost, mut committed) = (0, 0, 0, 0);
        let mut refused = BTreeMap::<String, u64>::new();
        let mut finality = Vec::new();
        for place in 0..self.answers.offered.load(Ordering::Relaxed) as usize {
            let (moment, seen) = (self.schedule.moment(place), self.sightings.seen(place));
            if seen.is_some_and(|seen| (from..to).contains(&seen)) {
                committed += 1;
            }
            if !(from..to).contains(&moment) {
                continue;
            }
            // Seen is seen, whatever a node said: an answer may be late, and the payment in time.
            match (seen, misses.get(&place)) {
                (_, Some(Miss::Overrun)) => overruns += 1,
                (Some(seen), _) => finality.push(seen.saturating_sub(moment)),
                (None, Some(Miss::Refused(reason))) => *refused.entry(reason.clone()).or_default() += 1,
                (None, None) => lost += 1,
            }
            submitted += 1;
        }
        let blocks = self.sightings.blocks_within(from, to);
        let nodes: Vec<_> =
            before.nodes.iter().zip(&after.nodes).map(|(before, after)| NodeCost::new(before, after)).collect();
        let bench_cpu = after.bench.cpu - before.bench.cpu;
        let busy = after.machine.busy - before.machine.busy;
        let ours = bench_cpu + nodes.iter().map(|node| node.cpu_seconds).sum::<Seconds>();
        Measured {
            submitted: submitted - overruns,
            overruns,
            refused,
            lost,
            committed,
            finality_ms: Quantiles::of(finality),
            blocks,
            sent_late_max,
            nodes,
            bench_cpu,
            others_cpu: (busy - ours).max(0.0),
            stolen_cpu: after.machine.stolen - before.machine.stolen,
        }
    }
}
