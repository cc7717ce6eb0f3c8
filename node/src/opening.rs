//! From a home folder to a node that stands where it stood: whose it is, its stores, and the journal taken back.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use tally_consensus::{Action, Config, Event, Machine, Now, Record, Voting};
use tally_ledger::Ledger;
use tally_types::{Address, Genesis, Height, SecretKey, genesis::GENESIS_BYTES_MAX};

use crate::{
    config::NodeConfig,
    context::Latest,
    executor::{Executor, Job},
    files,
    run::NodeError,
    signing,
    store::{
        disk::RealDisk,
        home::Home,
        index::Index,
        journal::{Journal, JournalConfig, OpenError, Recovered},
        snapshot::Snapshots,
    },
    turn,
};

/// The genesis file of a home.
pub const GENESIS_FILE: &str = "genesis.json";

/// Reads the genesis file of a home.
pub fn read_genesis(home: &Path) -> Result<Genesis, NodeError> {
    let path = home.join(GENESIS_FILE);
    let bytes = files::read(&path, GENESIS_BYTES_MAX as u64).map_err(|source| NodeError::Disk {
        doing: "read",
        path: path.display().to_string(),
        source,
    })?;
    Ok(Genesis::parse(&bytes)?)
}

/// Whose home it is.
pub(crate) struct Identity {
    pub home: Home,
    pub genesis: Arc<Genesis>,
    pub secret: SecretKey,
    /// The validator.
    pub me: Address,
    /// Where the other validators are.
    pub endpoints: Vec<(Address, String)>,
}

/// Locks a home and reads who it belongs to, and whether it knows all others.
pub(crate) fn identify(folder: &Path, config: &NodeConfig) -> Result<Identity, NodeError> {
    let endpoints = config.check()?;
    let home = Home::open(folder)?;
    let genesis = Arc::new(read_genesis(folder)?);
    let secret = signing::read_key(&home.key_file())?;
    let key = secret.public_key();
    let member = genesis.validators.members().iter().find(|member| member.key == key);
    let me = member
        .map(|member| member.address)
        .ok_or_else(|| NodeError::NoValidator { key: key.to_string(), chain: genesis.chain.id.clone() })?;
    let endpoints: Vec<_> = endpoints.into_iter().filter(|(address, _)| *address != me).collect();
    for member in genesis.validators.members() {
        if member.address != me && !endpoints.iter().any(|(address, _)| *address == member.address) {
            return Err(NodeError::NoPeer(member.address));
        }
    }
    Ok(Identity { home, genesis, secret, me, endpoints })
}

/// A home that was opened and taken back to where it stood.
pub(crate) struct Opened {
    pub machine: Machine,
    pub journal: Journal,
    pub positions: HashMap<tally_types::Hash, u64>,
    pub executor: Executor,
    pub index: Arc<Index>,
    pub durable: Arc<AtomicU64>,
    pub last: Latest,
    /// What the journal's opening found and mended.
    pub recovered: Recovered,
    /// Height of the state snapshot that was used; 0: none.
    pub covered: Height,
}

/// Opens the stores and takes the journal back: snapshot, then every record, executing what the snapshot lacks.
pub(crate) fn open(
    folder: &Path,
    genesis: &Genesis,
    node: &NodeConfig,
    me: Address,
    restored: bool,
) -> Result<Opened, NodeError> {
    let hash = genesis.chain.genesis_hash.0;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| NodeError::Disk { doing: "open", path, source }
    };
    let (journal_path, snapshot_path, index_path) =
        (folder.join("journal"), folder.join("snapshots"), folder.join("index.redb"));
    let voting = if restored { Voting::From(None) } else { Voting::Allowed };
    if voting != Voting::Allowed {
        tracing::warn!("the journal is lost or restored: this node follows and signs nothing for two epochs");
        // Before anything is deleted that shows it: whatever ends this process, the next one follows as well.
        note_observing(&journal_path, hash)?;
        // Caches of another journal: their positions and heights may be ahead of this one.
        Index::delete(&index_path).or_else(|error| if index_path.exists() { Err(error) } else { Ok(()) })?;
        match fs::remove_dir_all(&snapshot_path) {
            Err(source) if snapshot_path.exists() => return Err(failed(&snapshot_path)(source)),
            _ => {}
        }
    }
    let journal_disk = Arc::new(RealDisk::open(&journal_path).map_err(failed(&journal_path))?);
    let snapshot_disk = Arc::new(RealDisk::open(&snapshot_path).map_err(failed(&snapshot_path))?);
    let index = Arc::new(open_index(&index_path, &hash)?);
    let snapshots = Arc::new(Snapshots::open(snapshot_disk, hash)?);

    // The newest state that the index has caught up with: the blocks above it are executed again.
    let indexed = index.height()?.unwrap_or(0);
    let (snapshot, skipped) = snapshots.newest_up_to(indexed)?;
    for skipped in skipped {
        tracing::warn!(?skipped, "a state snapshot is not used");
    }
    let from_snapshot = snapshot.and_then(|snapshot| match Ledger::decode_snapshot(&snapshot.bytes, genesis) {
        Ok(ledger) => Some(ledger),
        Err(error) => {
            tracing::warn!(%error, "a state snapshot is not used; blocks are executed again from genesis");
            None
        }
    });
    let ledger = from_snapshot.unwrap_or_else(|| Ledger::genesis(genesis));
    let covered = ledger.height();
    let genesis_executed = Ledger::genesis(genesis).executed();

    let mut config = Config::new(genesis, Some(me), genesis_executed);
    config.batch_delay_ms = u64::try_from(node.batch_delay.as_millis()).unwrap_or(u64::MAX);
    config.heartbeat_ms = u64::try_from(node.heartbeat.as_millis()).unwrap_or(u64::MAX);
    let durable = Arc::new(AtomicU64::new(covered.0));
    let mut last =
        Latest { height: covered, time: genesis.time, hash: genesis.chain.genesis_hash, ledger: ledger.clone() };
    let mut replay = Replay {
        machine: Machine::new(config, voting, ledger.executed()),
        executor: Executor::new(ledger, index.clone(), snapshots, durable.clone())?,
        positions: HashMap::new(),
        records: 0,
    };
    if covered > Height::ZERO {
        let block = match index.block(covered.0) {
            Err(error) if error.is_cured_by_rebuilding() => {
                tracing::warn!(%error, "the index is made anew from the journal");
                drop((replay, index));
                Index::delete(&index_path)?;
                return open(folder, genesis, node, me, restored);
            }
            block => block?,
        };
        if let Some(header) = block.and_then(|block| tally_types::Header::parse(&block.header).ok()) {
            last.time = header.time;
            last.hash = header.hash();
        }
    }
    let opened = Journal::open(journal_disk, JournalConfig::new(hash), &mut |position, record| {
        replay.take(position.to_u64(), record.kind, &record.bytes, &mut last)
    });
    let (journal, recovered) = match opened {
        Ok(opened) => opened,
        Err(OpenError::Journal(error)) => return Err(error.into()),
        Err(OpenError::Replay(error)) => return Err(error),
    };
    // `init` leaves a record in every new journal, and nothing is indexed before it is durable there: an empty journal, or
    // one that ends below the index, has lost acknowledged records. Rule R3. (Batches lost to repaired damage are another
    // thing: headers and certificates still reach as far, and peers have the batches.)
    let lost = replay.records == 0 || replay.machine.status().final_height.0 < indexed;
    if lost && voting == Voting::Allowed {
        drop((journal, replay, index));
        return open(folder, genesis, node, me, true);
    }
    if recovered.cut.is_some() || !recovered.repaired.is_empty() || recovered.litter_cut > 0 {
        tracing::warn!(?recovered, "the journal was mended");
    }
    last.ledger = replay.executor.ledger().clone();
    tracing::info!(records = replay.records, height = %last.height, "journal taken back");
    let Replay { machine, executor, mut positions, .. } = replay;
    positions.retain(|digest, _| machine.holds(digest));
    Ok(Opened { machine, journal, positions, executor, index, durable, last, recovered, covered })
}

/// Writes into the journal, durably, that its node signs nothing until it has heard where the others are. Rule R3.
fn note_observing(path: &Path, genesis: [u8; 32]) -> Result<(), NodeError> {
    let failed = |source| NodeError::Disk { doing: "open", path: path.display().to_string(), source };
    let disk = Arc::new(RealDisk::open(path).map_err(failed)?);
    let opened = Journal::open::<NodeError>(disk, JournalConfig::new(genesis), &mut |_, _| Ok(()));
    let (mut journal, _) = opened.map_err(|error| match error {
        OpenError::Journal(error) => error.into(),
        OpenError::Replay(error) => error,
    })?;
    let record = Record::Observing(None);
    journal.append(&[turn::raw(&record)])?;
    Ok(journal.sync()?)
}

fn open_index(path: &Path, genesis: &[u8; 32]) -> Result<Index, NodeError> {
    match Index::open(path, genesis) {
        Err(error) if error.is_cured_by_rebuilding() => {
            tracing::warn!(%error, "the index is made anew from the journal");
            Index::delete(path)?;
            Ok(Index::open(path, genesis)?)
        }
        other => Ok(other?),
    }
}

/// The journal on its way back into machine and ledger.
struct Replay {
    machine: Machine,
    executor: Executor,
    positions: HashMap<tally_types::Hash, u64>,
    records: u64,
}

impl Replay {
    fn take(&mut self, position: u64, kind: u8, bytes: &[u8], last: &mut Latest) -> Result<(), NodeError> {
        let record = Record::parse(kind, bytes).map_err(|error| NodeError::Replay(error.to_string()))?;
        if let Record::Accepted(batch, _) | Record::Sealed(batch) | Record::Stored(batch) = &record {
            self.positions.insert(batch.digest(), position);
        }
        let mut actions = Vec::new();
        self.machine.replay(record, &mut actions).map_err(|error| NodeError::Replay(error.to_string()))?;
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                // The machine signs and sends nothing while it replays; sets are told again when it resumes.
                let Action::Execute(order) = action else { continue };
                let job = Job::new(order, &self.positions);
                let (outcome, block) = self.executor.execute(&job)?;
                self.executor.index(vec![block])?;
                let header = &job.order.header;
                (last.height, last.time, last.hash) = (header.height, header.time, header.hash());
                let event = Event::Executed { executed: outcome.executed, validators: self.executor.validators() };
                self.machine.handle(Now::default(), event, &mut more);
            }
            actions = more;
        }
        // Now that the machine holds what this record brought, and what it gave out is executed.
        self.records += 1;
        if self.records.is_multiple_of(10_000) {
            self.positions.retain(|digest, _| self.machine.holds(digest));
        }
        Ok(())
    }
}
