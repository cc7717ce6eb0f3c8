//! What is read from files: those a node or a wallet wrote, and those that people write.

use std::{path::Path, sync::Arc};

use tally_consensus::Record;
use tally_ledger::Ledger;
use tally_node::{
    config::NodeConfig,
    store::{
        disk::Disk as _,
        journal::{self, Journal, JournalConfig},
        sim_disk::SimDisk,
        snapshot::Snapshots,
    },
};
use tally_types::{Genesis, SecretKey};
use tally_wallet::{
    config::Config,
    keystore::{KdfParams, format::KeyFile},
};

use crate::chain::{genesis as chain, vector};

pub fn genesis(bytes: &[u8]) {
    if let Ok(genesis) = Genesis::parse(bytes) {
        assert_eq!(Ledger::genesis(&genesis).state().supply(), genesis.total_supply);
    }
}

pub fn genesis_files() -> Vec<Vec<u8>> {
    vec![vector("genesis.file")]
}

/// `node.toml` and the wallet's `config.toml`.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(config) = NodeConfig::parse(text)
        && config.check().is_ok()
    {
        let again = NodeConfig::parse(&config.encode().expect("what was read can be written"));
        assert_eq!(again.ok(), Some(config));
    }
    let _ = Config::parse(bytes, Path::new("config.toml"));
}

pub fn configs() -> Vec<Vec<u8>> {
    let address = String::from_utf8(vector("key.address")).expect("an address is text");
    let node = format!(
        "client_listen = \"127.0.0.1:9101\"\npeer_listen = \"0.0.0.0:9201\"\nbatch_delay = \"20ms\"\nheartbeat = \"1s\"\n\
         signature_threads = 2\n\n[[peer]]\naddress = \"{address}\"\nendpoint = \"http://10.0.0.2:9201\"\n"
    );
    let hash = hex::encode(vector("genesis.hash"));
    let wallet = format!(
        "network = \"local\"\nfrom = \"alice\"\n\n[networks.local]\nnode = \"http://127.0.0.1:9101\"\nchain_id = \
         \"frozen-{:.8}\"\ngenesis_hash = \"{hash}\"\nsymbol = \"TALLY\"\ndecimals = 9\n",
        hash
    );
    vec![node.into_bytes(), wallet.into_bytes()]
}

/// A key file. Nothing is decrypted: that costs memory and time by design, and its bounds are checked when it is read.
pub fn keystore(bytes: &[u8]) {
    if let Ok(file) = KeyFile::parse(bytes) {
        let text = file.to_text();
        let again = KeyFile::parse(text.as_bytes()).expect("what was read can be written");
        assert_eq!(again.to_text(), text);
    }
}

pub fn key_files() -> Vec<Vec<u8>> {
    let secret = SecretKey::from_seed(&[1; 32]);
    let folder = std::env::temp_dir().join(format!("tally-fuzz-{}", std::process::id()));
    let keystore = tally_wallet::keystore::Keystore::open(&folder);
    let made = keystore.create("alice", &secret, "open sesame", KdfParams::LOCALNET);
    let bytes = made.ok().and_then(|key| std::fs::read(key.file).ok());
    let _ = std::fs::remove_dir_all(&folder);
    vec![bytes.expect("the temporary folder can be written")]
}

/// Whatever a segment holds: what the journal hands out are whole records, and it opens a second time with the same ones.
pub fn journal(bytes: &[u8]) {
    let disk = SimDisk::new();
    let name = segment_name();
    disk.put(&name, bytes.to_vec());
    let open = |disk: &SimDisk| {
        let mut records = Vec::new();
        let opened = Journal::open::<std::convert::Infallible>(Arc::new(disk.copy()), config_of(), &mut |_, record| {
            records.push((record.kind, record.bytes.clone()));
            Ok(())
        });
        opened.ok().map(|_| records)
    };
    let first = open(&disk);
    assert_eq!(first, open(&disk), "two openings of one disk differ");
    for (kind, bytes) in first.into_iter().flatten() {
        // A checksum is no signature: anything may stand in a good group, but it must read or be refused.
        let _ = Record::parse(kind, &bytes);
    }
}

fn config_of() -> JournalConfig {
    JournalConfig::new(chain().chain.genesis_hash.0)
}

/// A journal of all kinds of records in three groups.
fn written() -> SimDisk {
    let disk = SimDisk::new();
    let opened = Journal::open::<std::convert::Infallible>(Arc::new(disk.clone()), config_of(), &mut |_, _| Ok(()));
    let Ok((mut journal, _)) = opened else { panic!("a new journal opens") };
    for group in 0..3u8 {
        for kind in 1..=12u8 {
            let bytes = vector(&format!("journal.record.kind_{kind}")).into();
            let record = journal::Record { kind, vital: kind % 3 != group, bytes };
            journal.append(&[record]).expect("small records fit");
        }
        journal.sync().expect("a simulated disk syncs");
    }
    disk
}

fn segment_name() -> String {
    written().list().ok().and_then(|names| names.into_iter().next()).expect("a journal has a segment")
}

pub fn journals() -> Vec<Vec<u8>> {
    let bytes = written().bytes(&segment_name()).expect("the first segment is there");
    // Its zeros ahead are of no interest.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    vec![bytes[..end].to_vec()]
}

/// A state snapshot, alone and in its file.
pub fn snapshot(bytes: &[u8]) {
    if let Ok(ledger) = Ledger::decode_snapshot(bytes, chain()) {
        assert_eq!(ledger.state().supply(), chain().total_supply);
        assert_eq!(ledger.encode_snapshot(), bytes);
    }
    let disk = SimDisk::new();
    disk.put("00000000000000000007.snapshot", bytes.to_vec());
    if let Ok(snapshots) = Snapshots::open(Arc::new(disk), chain().chain.genesis_hash.0) {
        let _ = snapshots.newest();
    }
}

pub fn snapshots() -> Vec<Vec<u8>> {
    let state = Ledger::genesis(chain()).encode_snapshot();
    let disk = SimDisk::new();
    let snapshots = Snapshots::open(Arc::new(disk.clone()), chain().chain.genesis_hash.0).expect("an empty folder");
    snapshots.write(7, &state).expect("a simulated disk writes");
    vec![state, disk.bytes("00000000000000000007.snapshot").expect("it was just written")]
}
