//! A node, from its home to its end: every task and every channel on one screen.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tally_types::{Address, genesis::GenesisError};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    admission::Admission,
    api,
    config::{ConfigError, NodeConfig},
    context::{Shared, Standing},
    driver::{Driver, DriverError, Inputs, observer_reason, unix_millis},
    evidence::EvidenceBook,
    executor::{ExecutorError, Job},
    opening::{self, Identity, identify},
    peers::{self, Peers, PeersConfig},
    signatures::Signatures,
    signing::{KeyError, Signer},
    store::{home::HomeError, index::IndexError, journal::JournalError, snapshot::SnapshotError},
};

/// Inputs that wait for the driver, by kind.
const CONTROL_QUEUE: usize = 4096;
const BULK_QUEUE: usize = 64;
const TRANSACTION_QUEUE: usize = 4096;
/// Blocks that wait for the executor: more than the machine gives out ahead.
const JOB_QUEUE: usize = 256;
/// How long tasks may take to end once the node stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why a node did not start, or did not go on.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum NodeError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error("cannot {doing} {path}: {source}")]
    Disk { doing: &'static str, path: String, source: io::Error },
    #[error(
        "the key {key} is no validator's in the genesis of {chain}; its consensus keys are listed by `tally-node genesis validate`"
    )]
    NoValidator { key: String, chain: String },
    #[error("no peer is configured for validator {0}; add a [[peer]] with its address to node.toml")]
    NoPeer(Address),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the journal cannot be taken back: {0}")]
    Replay(String),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("cannot listen on {address}: {source}; is another node running, or choose another address")]
    Listen { address: String, source: io::Error },
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    #[error("the client port failed: {0}")]
    Api(tonic::transport::Error),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error("the {0} thread panicked; this is a bug, and the journal is as it was")]
    Panicked(&'static str),
}

const EVIDENCE_FILE: &str = "evidence.jsonl";

/// Runs the node of `home` until `stop` resolves. `restored`: the journal comes from a copy, so the node follows for two
/// epochs before it signs (rule R3).
pub async fn run(
    folder: &Path,
    config: NodeConfig,
    restored: bool,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let Identity { home, genesis, secret, me, endpoints } = identify(folder, &config)?;
    let key = secret.public_key();
    let signer = Signer::new(secret, genesis.chain.genesis_hash, me);

    let client_listener = listen(config.client_listen).await?;
    let peer_listener = listen(config.peer_listen).await?;
    let opening = (home.folder().to_owned(), genesis.clone(), config.clone());
    let opened =
        tokio::task::spawn_blocking(move || opening::open(&opening.0, &opening.1, &opening.2, me, restored)).await;
    let opened = opened.map_err(|_| NodeError::Panicked("recovery"))??;
    let evidence_path = folder.join(EVIDENCE_FILE);
    let evidence = EvidenceBook::open(&evidence_path).map_err(|source| NodeError::Disk {
        doing: "read",
        path: evidence_path.display().to_string(),
        source,
    })?;

    // Channels.
    let (stop_all, stopping) = watch::channel(false);
    let (control, control_inputs) = mpsc::channel(CONTROL_QUEUE);
    let (bulk, bulk_inputs) = mpsc::channel(BULK_QUEUE);
    let (transactions, transaction_inputs) = mpsc::channel(TRANSACTION_QUEUE);
    let (jobs, job_queue) = mpsc::channel::<Job>(JOB_QUEUE);
    let (latest, latest_seen) = watch::channel(Arc::new(opened.last));
    let standing = Standing {
        status: opened.machine.status(),
        peers: Vec::new(),
        rejected: BTreeMap::new(),
        observer_reason: observer_reason(opened.machine.voting()),
    };
    let (standing, standing_seen) = watch::channel(Arc::new(standing));

    // What is shared.
    let threads = match config.signature_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (peers, queues) = Peers::new(PeersConfig {
        chain: genesis.chain.clone(),
        signer: signer.clone(),
        endpoints,
        signatures: Arc::new(Signatures::new(threads)),
        control: control.clone(),
        bulk,
        index: opened.index.clone(),
        journal: opened.journal.reader(),
        stopping: stopping.clone(),
        // Microseconds: above every counter of an earlier run, and peers forget counters with the stream.
        first_counter: unix_millis().saturating_mul(1000),
    })?;
    let shared = Arc::new(Shared {
        genesis: genesis.clone(),
        me: Some(me),
        key,
        latest: latest_seen,
        standing: standing_seen,
        index: opened.index,
        admission: Admission::new(transactions).map_err(|source| NodeError::Disk {
            doing: "start",
            path: "checker".into(),
            source,
        })?,
        evidence,
        started: SystemTime::now(),
        stopping: stopping.clone(),
    });

    // Threads: the driver owns machine and journal, the executor owns the ledger.
    let (ended, mut thread_ended) = mpsc::channel::<Result<(), NodeError>>(2);
    let executor = opened.executor;
    let for_executor = (control.clone(), shared.clone(), ended.clone());
    let executor = std::thread::Builder::new().name("executor".into()).spawn(move || {
        let (to_driver, shared, ended) = for_executor;
        let result = executor.run(job_queue, to_driver, latest, shared);
        let _ = ended.blocking_send(result.map_err(NodeError::from));
    });
    let executor = executor.map_err(|source| NodeError::Disk { doing: "start", path: "executor".into(), source })?;
    let driver = Driver {
        machine: opened.machine,
        journal: opened.journal,
        positions: opened.positions,
        positions_kept: 0,
        signer,
        peers: peers.clone(),
        jobs,
        durable: opened.durable,
        shared: shared.clone(),
        standing,
        rejected: BTreeMap::new(),
    };
    let inputs = Inputs {
        control: control_inputs,
        bulk: bulk_inputs,
        transactions: transaction_inputs,
        stopping: stopping.clone(),
    };
    let runtime = tokio::runtime::Handle::current();
    let driver = std::thread::Builder::new().name("driver".into()).spawn(move || {
        let result = driver.run(inputs, &runtime);
        let _ = ended.blocking_send(result.map_err(NodeError::from));
    });
    let driver = driver.map_err(|source| NodeError::Disk { doing: "start", path: "driver".into(), source })?;

    // Tasks: streams out, the peer port, the client port.
    let mut dialling = JoinSet::new();
    for queue in queues {
        peers::dial(&peers, queue, &mut dialling);
    }
    let mut serving = JoinSet::<Result<(), NodeError>>::new();
    serving.spawn(async move { Ok(peers::serve(peer_listener, peers).await?) });
    let mut client_stopping = stopping.clone();
    let for_clients = shared.clone();
    let client_listener = client_listener.into_std().map_err(start_failed)?;
    let clients = client_runtime()?;
    let api = clients.spawn(async move {
        let stopped = async move {
            let _ = client_stopping.wait_for(|stopping| *stopping).await;
        };
        let listener = TcpListener::from_std(client_listener).map_err(start_failed)?;
        api::serve(listener, for_clients, stopped).await.map_err(NodeError::Api)
    });
    serving.spawn(async move { api.await.unwrap_or(Err(NodeError::Panicked("client API"))) });
    tracing::info!(chain = %genesis.chain.id, validator = %me, client = %config.client_listen, peer = %config.peer_listen, "node started");

    // Until it is told to stop, or a part of it ends by itself.
    let outcome = tokio::select! {
        () = stop => Ok(()),
        Some(result) = thread_ended.recv() => result.and(Err(NodeError::Panicked("driver or executor"))),
        Some(_) = dialling.join_next() => Err(NodeError::Panicked("stream to a peer")),
        Some(result) = serving.join_next() => match result {
            Ok(result) => result,
            Err(_) => Err(NodeError::Panicked("server")),
        },
    };
    let _ = stop_all.send(true);
    let goodbye = async {
        let joined = tokio::task::spawn_blocking(move || (driver.join().is_ok(), executor.join().is_ok())).await;
        while serving.join_next().await.is_some() {}
        while dialling.join_next().await.is_some() {}
        joined
    };
    let ended = tokio::time::timeout(GOODBYE, goodbye).await;
    // A runtime must not be dropped inside another.
    clients.shutdown_background();
    if let Ok(Ok((driver, executor))) = ended
        && !(driver && executor)
    {
        return Err(NodeError::Panicked(if driver { "executor" } else { "driver" }));
    }
    tracing::info!("node stopped");
    outcome
}

/// The client API has threads of its own that step back where cores are short: a flood of clients must not keep votes
/// waiting.
fn client_runtime() -> Result<tokio::runtime::Runtime, NodeError> {
    let builder = &mut tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("clients").on_thread_start(yield_to_agreement).build().map_err(start_failed)
}

fn start_failed(source: io::Error) -> NodeError {
    NodeError::Disk { doing: "start", path: "the client API".into(), source }
}

/// How far threads step back that serve clients or check whole batches, in the system's steps of niceness.
const NICENESS: i32 = 8;

/// Lets the threads that agree on blocks run first. A matter of speed only: where the system refuses, nothing is lost.
pub(crate) fn yield_to_agreement() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, NodeError> {
    let listening = TcpListener::bind(address).await;
    listening.map_err(|source| NodeError::Listen { address: address.to_string(), source })
}
