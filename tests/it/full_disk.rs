//! A disk without room under a running node: it stops with a word that says what to do, and nothing is lost.

use std::{fs, process::Stdio};

use crate::{
    load::{Load, assert_still_final},
    network::{Network, Plan, tally_node, until},
};

#[tokio::test]
async fn a_node_whose_disk_is_full_stops_and_catches_up_once_there_is_room() {
    let mut network = Network::start(Plan { payers: 8, ..Plan::of(4) }).await;
    let mut load = Load::start(&network);
    load.more(20).await;
    network.nodes[3].terminate().await;
    let journal = network.nodes[3].home.join("journal/00000001.log");
    let sizes = [&journal, &network.nodes[3].home.join("index.redb")].map(|path| fs::metadata(path).unwrap().len());
    // What is there can be opened, and a little more be written.
    network.nodes[3].start_with_files_up_to(sizes[0].max(sizes[1]) + 64 * 1024);
    let height = network.nodes[0].height().await;
    network.nodes[3].reach(height).await;

    // The load fills it, and nobody else minds.
    let status = until("the node ends", async || {
        load.more(10).await;
        network.nodes[3].ended()
    })
    .await;
    assert_eq!(status.code(), Some(1));
    let log = network.nodes[3].log();
    let last = log.lines().last().unwrap_or_default();
    let says = format!(
        "error: the journal failed, so nothing more can be signed: cannot write {}: File too large (os error 27). What was \
         acknowledged is safe: make room on the disk, or mend it, and start the node again",
        journal.display()
    );
    assert_eq!(last, says, "{log}");
    network.nodes[3].forget();
    load.more(20).await;
    network.grow(2).await;

    network.nodes[3].start();
    let height = network.nodes[0].height().await;
    network.nodes[3].reach(height).await;
    // Its journal is whole up to where it ended: it need not wait two epochs before it signs.
    assert_eq!(network.nodes[3].status().await.unwrap().observer_reason, "");
    let finals = load.stop().await;
    assert_still_final(&network, &finals).await;
    network.assert_equal().await;
}

#[tokio::test]
async fn a_node_that_cannot_write_its_log_goes_on() {
    let mut network = Network::start(Plan::of(4)).await;
    let [mut alice, bob, _] = network.people();
    network.nodes[3].terminate().await;
    // Without another, too: whatever becomes final from here on needs the node that has no log.
    network.nodes[0].terminate().await;
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    network.nodes[3].start_logging_to(full);
    let height = network.nodes[1].height().await;
    network.nodes[3].reach(height).await;
    network.nodes[3].execute(&alice.pay(&bob.address, 5)).await;
    assert_eq!(network.nodes[3].terminate().await.code(), Some(0));
    network.nodes[3].start();
    network.nodes[0].start();
    network.grow(2).await;
    network.assert_equal().await;
}

/// Whoever reads the result may be gone, or the disk it goes to full: what was done is done, and the exit code says what was not said.
#[test]
fn a_result_that_cannot_be_written_is_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("genesis.json");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = tally_node();
    command.args(["genesis", "new", "--name", "club", "--file"]).arg(&file).stdout(full);
    let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output") && said.contains("was carried out"), "{said}");
    assert!(file.exists());
}
