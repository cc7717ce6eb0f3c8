//! One flipped bit in any page of any file of a home, and a journal whose files end anywhere: `tally-node check` comes to the
//! height and the roots of before, or says what is wrong and exits with 1, or that the node lacks a part of its journal and
//! signs nothing. Nothing passes in silence.
//!
//! `PAGES_EVERY=1 cargo test --release --test it pages` tries every page; a plain run one in so many.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    load::Load,
    network::{Network, Plan, copy_folder, tally_node, until},
};

const PAGE_BYTES: u64 = 4096;
/// A plain run tries one page in so many.
const EVERY: usize = 151;
/// Files of which a node can do without none: they are refused when they do not hold together.
const NEEDED: [&str; 4] = ["genesis.json", "node.toml", "validator.key", "format"];

/// What is the same as long as nothing is lost.
const LASTING: [&str; 7] =
    ["chainId", "finalHeight", "executedHeight", "stateRoot", "receiptsRoot", "indexedHeight", "signs"];

/// What `tally-node check` says of a home, or what is wrong with it.
fn check(home: &Path) -> Result<Value, String> {
    let output = tally_node().args(["check", "--output", "json", "--home"]).arg(home).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        Some(1) => {
            assert!(output.stdout.is_empty());
            assert!(!said.contains("a bug"), "{said}");
            // A complaint about a configuration shows the lines it is about.
            let (_, error) = said.split_once("error: ").unwrap_or_else(|| panic!("{said}"));
            Err(error.to_owned())
        }
        other => panic!("exit code {other:?}: {said}"),
    }
}

/// One page in so many is tried.
fn every_page() -> usize {
    std::env::var("PAGES_EVERY").map_or(EVERY, |text| text.parse().expect("PAGES_EVERY is a number"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A home with a state snapshot and more than a thousand blocks, and its copy.
async fn home_with_history() -> (Network, PathBuf) {
    let params = tally_types::Params { idle_interval_ms: 10, ..tally_types::Params::default() };
    let mut network = Network::start(Plan { params, payers: 4, ..Plan::of(1) }).await;
    let mut load = Load::start(&network);
    load.more(60).await;
    load.stop().await;
    // Without work a block follows the last one after 10 ms; each wait has its own deadline.
    for height in [300, 600, 900] {
        network.reach(height).await;
    }
    let snapshots = network.nodes[0].home.join("snapshots");
    until("a snapshot is written", async || {
        let written = |path: PathBuf| path.extension().is_some_and(|kind| kind != "tmp");
        fs::read_dir(&snapshots).ok()?.flatten().any(|entry| written(entry.path())).then_some(())
    })
    .await;
    network.nodes[0].terminate().await;
    let home = network.nodes[0].home.clone();
    (network, home)
}

#[tokio::test]
async fn one_flipped_bit_in_any_page_of_any_file_costs_nothing_or_is_said() {
    let (network, home) = home_with_history().await;
    let kept = network.folder.path().join("kept");
    let sound = check(&home).unwrap();
    let height: u64 = sound["finalHeight"].as_str().unwrap().parse().unwrap();
    assert!(height > 1000 && sound["signs"] == true && sound["snapshotHeight"] != "0", "{sound}");
    copy_folder(&home, &kept).unwrap();
    let every = every_page();
    let pages = files(&kept).into_iter().flat_map(|file| {
        let bytes = fs::metadata(&file).unwrap().len();
        (0..bytes.div_ceil(PAGE_BYTES)).map(move |page| (file.clone(), page, bytes))
    });
    // Of small files every page; there one is the whole.
    let chosen = |place: usize, bytes: u64| place.is_multiple_of(every) || bytes <= PAGE_BYTES;
    let (mut tried, mut refused) = (0, 0);
    for (place, (file, page, bytes)) in pages.enumerate().filter(|(place, (_, _, bytes))| chosen(*place, *bytes)) {
        let name = file.strip_prefix(&kept).unwrap();
        let what = format!("{} page {page}", name.display());
        let offset = (page * PAGE_BYTES + place as u64 * 1987 % PAGE_BYTES).min(bytes - 1) as usize;
        let damaged = home.join(name);
        let mut content = fs::read(&damaged).unwrap();
        content[offset] ^= 1 << (place % 8);
        fs::write(&damaged, content).unwrap();
        tried += 1;
        match check(&home) {
            Ok(found) => {
                for field in LASTING {
                    assert_eq!(found[field], sound[field], "{what}: {field}");
                }
            }
            Err(said) => {
                refused += 1;
                let needed = NEEDED.iter().any(|file| name == Path::new(file));
                assert!(needed || said.contains("index is damaged"), "{what}: {said}");
            }
        }
        // A check mends what it can: everything is as it was before the next.
        for folder in ["journal", "snapshots"] {
            fs::remove_dir_all(home.join(folder)).unwrap();
        }
        copy_folder(&kept, &home).unwrap();
    }
    println!("{tried} pages, {refused} of them refused");
    assert_eq!(check(&home).unwrap(), sound);
}

#[tokio::test]
async fn a_journal_that_ends_anywhere_costs_nothing_or_is_said() {
    let (network, home) = home_with_history().await;
    let kept = network.folder.path().join("kept");
    let sound = check(&home).unwrap();
    copy_folder(&home, &kept).unwrap();
    let every = every_page();
    let (mut tried, mut refused, mut observes) = (0, 0, 0);
    for file in files(&kept.join("journal")) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(&kept).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        // In turn at and around the ends of pages and at places that wander through them; and at what is written last.
        let pages = (0..bytes.len() as u64).step_by(PAGE_BYTES as usize).enumerate();
        let lengths = pages
            .filter(|(place, _)| place.is_multiple_of(every))
            .map(|(place, page)| page + [0, 1, place as u64 * 1987 % PAGE_BYTES, PAGE_BYTES - 1][place % 4]);
        let last = [written, written - 1, written - 511, written - 513];
        for length in lengths.chain(last).filter(|length| *length < bytes.len() as u64) {
            let what = format!("{} of {length} bytes, {written} of them written", name.display());
            fs::OpenOptions::new().write(true).open(home.join(name)).unwrap().set_len(length).unwrap();
            tried += 1;
            match check(&home) {
                Ok(found) if found["signs"] == true => {
                    // Nothing of it was needed, or a second copy has it.
                    for field in LASTING {
                        assert_eq!(found[field], sound[field], "{what}: {field}");
                    }
                }
                // What is left is a beginning of the chain, which the node goes on from with what its peers have.
                Ok(found) => {
                    observes += 1;
                    assert_eq!(found["signs"], false, "{what}: {found}");
                    assert!(length < written, "{what}: {found}");
                }
                Err(said) => {
                    refused += 1;
                    assert!(said.contains("is damaged at byte"), "{what}: {said}");
                }
            }
            for folder in ["journal", "snapshots"] {
                fs::remove_dir_all(home.join(folder)).unwrap();
            }
            copy_folder(&kept, &home).unwrap();
        }
    }
    println!("{tried} lengths, {refused} of them refused, {observes} make an observer");
    assert!(observes > 0, "a journal without its end looks like one whose power was cut");
    assert_eq!(check(&home).unwrap(), sound);
}

#[tokio::test]
async fn a_check_of_a_running_node_is_refused_and_one_of_nothing_says_so() {
    let network = Network::start(Plan::of(1)).await;
    network.reach(1).await;
    let said = check(&network.nodes[0].home).unwrap_err();
    assert!(said.contains("is in use by process"), "{said}");
    let said = check(&network.folder.path().join("nothing")).unwrap_err();
    assert!(said.contains("node.toml"), "{said}");
}
