//! Files that were lost or damaged while a node was down: it comes back equal, or says precisely what is wrong.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use tally_proto::v1;

use crate::{
    load::Load,
    network::{Network, Node, Plan, copy_folder, succeed, tally_node, until},
};

/// Everything a client can read of a node up to `height`: blocks with records and certificates, accounts.
async fn everything(node: &Node, height: u64) -> (Vec<v1::Block>, Vec<(String, u64, u64)>) {
    let mut blocks = Vec::new();
    for next in 1..=height {
        let by_height = v1::get_block_request::BlockId::Height(next);
        let request = v1::GetBlockRequest { block_id: Some(by_height), view: v1::BlockView::Full.into() };
        blocks.push(node.blocks().get_block(request).await.unwrap().into_inner().block.unwrap());
    }
    (blocks, node.balances().await)
}

fn assert_same(
    found: &(Vec<v1::Block>, Vec<(String, u64, u64)>),
    expected: &(Vec<v1::Block>, Vec<(String, u64, u64)>),
    after: &str,
) {
    for (found, expected) in found.0.iter().zip(&expected.0) {
        assert_eq!(found, expected, "after {after}");
    }
    assert_eq!((found.0.len(), &found.1), (expected.0.len(), &expected.1), "after {after}");
}

/// A network of one validator with some history, and what it answered before it was stopped.
async fn stopped_with_history() -> (Network, u64, (Vec<v1::Block>, Vec<(String, u64, u64)>)) {
    let mut network = Network::start(Plan { payers: 8, ..Plan::of(1) }).await;
    let mut load = Load::start(&network);
    load.more(80).await;
    load.stop().await;
    let height = network.height().await;
    let before = everything(&network.nodes[0], height).await;
    network.nodes[0].terminate().await;
    (network, height, before)
}

#[tokio::test]
async fn an_index_deleted_while_down_comes_back_equal() {
    let (mut network, height, before) = stopped_with_history().await;
    let node = &mut network.nodes[0];
    let index = node.home.join("index.redb");
    for how in ["deleting the file", "reindex", "reindex of no index"] {
        match how {
            "deleting the file" => fs::remove_file(&index).unwrap(),
            "reindex" => {
                succeed(tally_node().arg("reindex").arg("--home").arg(&node.home));
            }
            _ => {
                fs::remove_file(&index).unwrap();
                succeed(tally_node().arg("reindex").arg("--home").arg(&node.home));
            }
        }
        assert!(!index.exists(), "{how}");
        node.start();
        node.reach(height).await;
        assert_same(&everything(node, height).await, &before, how);
        node.terminate().await;
    }
}

#[tokio::test]
async fn a_damaged_index_is_made_anew_from_the_journal() {
    let (mut network, height, before) = stopped_with_history().await;
    let node = &mut network.nodes[0];
    // The index's database is known to panic over damaged files; that is caught, and then rebuilt.
    node.must_not_panic = false;
    let index = node.home.join("index.redb");
    let pristine = fs::read(&index).unwrap();
    let flipped = |places: &mut dyn Iterator<Item = usize>| {
        let mut bytes = pristine.clone();
        for place in places {
            bytes[place] ^= 0x55;
        }
        bytes
    };
    let length = pristine.len();
    let damages = [
        ("an empty file", Vec::new()),
        ("another file", b"years of work\n".repeat(1000)),
        ("half a file", pristine[..length / 2].to_vec()),
        ("a file cut by one byte", pristine[..length - 1].to_vec()),
        ("zeros", vec![0; length]),
        ("a flipped byte in the first page", flipped(&mut [100usize].into_iter())),
        ("a flipped byte in every 4096", flipped(&mut (2000..length).step_by(4096))),
    ];
    for (what, bytes) in damages {
        fs::write(&index, bytes).unwrap();
        node.start();
        node.reach(height).await;
        assert_same(&everything(node, height).await, &before, what);
        node.terminate().await;
        fs::write(&index, &pristine).unwrap();
    }
}

/// What a home is damaged by, and what the node says then.
struct Wrong {
    what: &'static str,
    file: &'static str,
    damage: fn(&Path),
    says: &'static str,
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn cut(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn lend(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

const WRONGS: [Wrong; 19] = [
    Wrong { what: "genesis cut", file: "genesis.json", damage: cut, says: "the genesis file is not valid" },
    Wrong { what: "no genesis", file: "genesis.json", damage: remove, says: "genesis.json" },
    Wrong {
        what: "a supply one too high",
        file: "genesis.json",
        damage: |path| replace(path, "\"total_supply\": \"", "\"total_supply\": \"1"),
        says: "add up to",
    },
    Wrong {
        what: "another chain's genesis",
        file: "genesis.json",
        damage: |path| replace(path, "\"symbol\": \"TALLY\"", "\"symbol\": \"YLLAT\""),
        says: "genesis",
    },
    Wrong {
        what: "an unknown field of genesis",
        file: "genesis.json",
        damage: |path| replace(path, "\"symbol\"", "\"minter\": 1, \"symbol\""),
        says: "unknown field `minter`",
    },
    Wrong { what: "no configuration", file: "node.toml", damage: remove, says: "node.toml" },
    Wrong {
        what: "an unknown key",
        file: "node.toml",
        damage: |path| replace(path, "heartbeat", "hearbeat"),
        says: "unknown field `hearbeat`",
    },
    Wrong {
        what: "a value that is none",
        file: "node.toml",
        damage: |path| replace(path, "heartbeat = \"1s\"", "heartbeat = \"soon\""),
        says: "\"soon\" is no duration",
    },
    Wrong {
        what: "a value out of range",
        file: "node.toml",
        damage: |path| replace(path, "heartbeat = \"1s\"", "heartbeat = \"2m\""),
        says: "heartbeat",
    },
    Wrong {
        what: "a mistyped endpoint",
        file: "node.toml",
        damage: |path| replace(path, "endpoint = \"http://", "endpoint = \"htp:/"),
        says: "peer.endpoint",
    },
    Wrong {
        what: "a peer missing",
        file: "node.toml",
        damage: |path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, &text[..text.rfind("[[peer]]").unwrap()]).unwrap();
        },
        says: "no peer is configured for validator",
    },
    Wrong { what: "no key", file: "validator.key", damage: remove, says: "cannot read the key file" },
    Wrong { what: "a key cut", file: "validator.key", damage: cut, says: "does not hold 64 hex digits" },
    Wrong { what: "a key that others may read", file: "validator.key", damage: lend, says: "chmod 600" },
    Wrong {
        what: "another key",
        file: "validator.key",
        damage: |path| {
            let text = fs::read_to_string(path).unwrap();
            let other = if text.starts_with('0') { "1" } else { "0" };
            fs::write(path, format!("{other}{}", &text[1..])).unwrap();
        },
        says: "is no validator's in the genesis",
    },
    Wrong {
        what: "the operator's key",
        file: "validator.key",
        damage: |path| {
            fs::copy(path.with_file_name("operator.key"), path).unwrap();
        },
        says: "is no validator's in the genesis",
    },
    Wrong {
        what: "a home of another format",
        file: "format",
        damage: |path| fs::write(path, "tally-node home 2\n").unwrap(),
        says: "tally-node home 2",
    },
    Wrong {
        what: "a port in use",
        file: "node.toml",
        damage: |path| {
            let text = fs::read_to_string(path).unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let line = text.lines().find(|line| line.starts_with("client_listen")).unwrap();
            let taken = format!("client_listen = \"{}\"", listener.local_addr().unwrap());
            fs::write(path, text.replace(line, &taken)).unwrap();
            // Held until this test process ends.
            std::mem::forget(listener);
        },
        says: "cannot listen on",
    },
    Wrong {
        what: "two ports that are one",
        file: "node.toml",
        damage: |path| {
            let text = fs::read_to_string(path).unwrap();
            let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
            let (client, peer) = (line("client_listen"), line("peer_listen"));
            fs::write(path, text.replace(&peer, &client.replace("client_listen", "peer_listen"))).unwrap();
        },
        says: "must differ from client_listen",
    },
];

#[tokio::test]
async fn a_wrong_genesis_configuration_or_key_is_named_and_the_node_ends() {
    let mut network = Network::start(Plan::of(4)).await;
    network.reach(2).await;
    network.nodes[3].terminate().await;
    let home = network.nodes[3].home.clone();
    for Wrong { what, file, damage, says } in WRONGS {
        let path = home.join(file);
        let kept = home.with_file_name("kept");
        fs::copy(&path, &kept).unwrap();
        damage(&path);
        let output = network.nodes[3].start_refused();
        let said = String::from_utf8(output.stderr).unwrap();
        let (_, error) = said.split_once("error: ").unwrap_or_else(|| panic!("{what}: {said}"));
        assert!(error.contains(says), "{what}: {error}");
        assert!(!said.contains("panicked"), "{what}: {said}");
        fs::copy(&kept, &path).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::metadata(&kept).unwrap().permissions()).unwrap();
        if file == "validator.key" {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    // None of it has harmed the home.
    network.nodes[3].start();
    let height = network.height().await;
    network.reach(height + 2).await;
    network.assert_equal().await;
}

/// What a node does about its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It goes on as if nothing had happened.
    Mends,
    /// It ends, says what is wrong, and leaves the journal as it was.
    Refuses,
    /// It goes on, and signs nothing for two epochs. Rule R3.
    Observes,
}

/// What is damaged, how, and what the node does then; the number is the length of what was written.
type Damage = (&'static str, fn(&mut fs::File, u64), Then);

fn overwrite(file: &mut fs::File, place: u64, bytes: &[u8]) {
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(bytes).unwrap();
}

const JOURNAL_DAMAGES: [Damage; 10] = [
    ("one bit in the header", |file, _| overwrite(file, 20, &[0xff]), Then::Mends),
    ("both copies of the header", |file, _| overwrite(file, 0, &[0xff; 8192]), Then::Refuses),
    ("one byte in the first group", |file, _| overwrite(file, 8192 + 50, &[0xff]), Then::Mends),
    ("one byte in the middle", |file, end| overwrite(file, end / 2, &[0xa5]), Then::Mends),
    ("a sector of zeros in the middle", |file, end| overwrite(file, (end / 2) & !4095, &[0; 4096]), Then::Mends),
    ("64 KiB of noise in the middle", |file, end| overwrite(file, end / 2, &[0xa5; 65536]), Then::Refuses),
    ("one byte near the end", |file, end| overwrite(file, end - 100, &[0xa5]), Then::Mends),
    // What lacks its end looks like one cut short by a power failure; the index, which is never ahead, tells them apart.
    ("cut off in the middle", |file, end| file.set_len(end / 2).unwrap(), Then::Observes),
    ("cut off after 100 bytes", |file, _| file.set_len(100).unwrap(), Then::Observes),
    ("empty", |file, _| file.set_len(0).unwrap(), Then::Observes),
];

#[tokio::test]
async fn a_damaged_journal_is_mended_or_refused_or_makes_an_observer_and_never_a_fork() {
    let mut network = Network::start(Plan { payers: 8, ..Plan::of(4) }).await;
    let mut load = Load::start(&network);
    load.more(60).await;
    let kept = network.folder.path().join("kept");
    for (what, damage, then) in JOURNAL_DAMAGES {
        let node = &mut network.nodes[3];
        node.terminate().await;
        let _ = fs::remove_dir_all(&kept);
        copy_folder(&node.home, &kept).unwrap();
        let segment = last_segment(&node.home);
        let end = written(&segment);
        damage(&mut fs::OpenOptions::new().write(true).open(&segment).unwrap(), end);
        let damaged = fs::read(&segment).unwrap();
        if then == Then::Observes {
            // A look at it, which makes index and snapshots fit the journal again, does not make the next start forget it.
            let said = succeed(tally_node().args(["check", "--output", "json", "--home"]).arg(&node.home));
            let found: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(found["signs"], false, "{what}: {said}");
        }
        node.start();
        match said_or_up(node).await {
            Up(observer_reason) => {
                let found = if observer_reason.is_empty() { Then::Mends } else { Then::Observes };
                assert_eq!(found, then, "{what}");
            }
            Said(error) => {
                assert_eq!(Then::Refuses, then, "{what}: {error}");
                assert!(error.contains("00000001.log is damaged at byte"), "{what}: {error:?}");
                assert_eq!(fs::read(&segment).unwrap(), damaged, "{what}: a refused journal was changed");
                // As it was when the node stopped: nothing was signed since.
                let node = &mut network.nodes[3];
                fs::remove_dir_all(node.home.join("journal")).unwrap();
                copy_folder(&kept.join("journal"), &node.home.join("journal")).unwrap();
                node.start();
            }
        }
        load.more(10).await;
    }
    load.stop().await;
    network.assert_equal().await;
}

fn last_segment(home: &Path) -> PathBuf {
    let mut segments: Vec<_> = fs::read_dir(home.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments.pop().expect("a journal has a segment")
}

/// Where the last byte lies that is not a zero written ahead.
fn written(segment: &Path) -> u64 {
    let bytes = fs::read(segment).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// What became of a start.
enum Outcome {
    /// The node is at the network's height; why it observes, if it does.
    Up(String),
    /// It has ended; its last words.
    Said(String),
}

use Outcome::{Said, Up};

async fn said_or_up(node: &mut Node) -> Outcome {
    until("the node is up, or has said why not", async || {
        if let Some(status) = node.ended() {
            let log = node.log();
            let last = log.lines().last().unwrap_or_default();
            assert_eq!(status.code(), Some(1), "{log}");
            assert!(last.starts_with("error: "), "{log}");
            node.forget();
            return Some(Said(last.to_owned()));
        }
        let status = node.status().await.ok()?;
        let at_tip = status.executed_height > 0 && status.executed_height + 2 >= status.highest_seen_height;
        (at_tip && status.peer_count > 0).then_some(Up(status.observer_reason))
    })
    .await
}

#[tokio::test]
async fn a_node_with_a_thousand_blocks_starts_from_its_snapshot_or_without() {
    let params = tally_types::Params { idle_interval_ms: 10, ..tally_types::Params::default() };
    let mut network = Network::start(Plan { params, payers: 4, ..Plan::of(1) }).await;
    let node = &network.nodes[0];
    let snapshots = node.home.join("snapshots");
    let load = Load::start(&network);
    until("a snapshot is written", async || {
        fs::read_dir(&snapshots)
            .ok()?
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|kind| kind != "tmp"))
            .then_some(())
    })
    .await;
    load.stop().await;
    let height = node.height().await;
    let before = (node.chain_up_to(height).await, node.balances().await);
    network.nodes[0].kill();
    for what in ["kill -9", "a flipped byte in each snapshot", "no index", "no snapshots", "neither"] {
        let node = &mut network.nodes[0];
        match what {
            "a flipped byte in each snapshot" => {
                for entry in fs::read_dir(&snapshots).unwrap() {
                    let path = entry.unwrap().path();
                    let place = fs::metadata(&path).unwrap().len() / 2;
                    let byte = fs::read(&path).unwrap()[usize::try_from(place).unwrap()];
                    overwrite(&mut fs::OpenOptions::new().write(true).open(&path).unwrap(), place, &[!byte]);
                }
            }
            "no index" => fs::remove_file(node.home.join("index.redb")).unwrap(),
            "no snapshots" => fs::remove_dir_all(&snapshots).unwrap(),
            "neither" => {
                fs::remove_dir_all(&snapshots).unwrap();
                fs::remove_file(node.home.join("index.redb")).unwrap();
            }
            _ => {}
        }
        node.start();
        node.reach(height + 1).await;
        assert_same(&(node.chain_up_to(height).await, node.balances().await), &before, what);
        node.kill();
    }
}
