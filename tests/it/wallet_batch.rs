//! `pay FILE.csv`: every line once, whatever interrupts it.

use std::{fs, process::Stdio, time::Duration};

use crate::{
    network::{FEE, FUNDS, Network, Plan, until},
    payer::Payer,
    wallet::Wallet,
};

/// A list that pays bob 0.001, 0.002, … and what it comes to in base units.
fn list_to_bob(lines: u64) -> (String, u64) {
    let rows: String = (1..=lines).map(|line| format!("bob,{}.{:03}\n", line / 1000, line % 1000)).collect();
    (format!("to,amount\n{rows}"), (1..=lines).sum::<u64>() * 1_000_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_payer_goes_on_and_pays_nothing_twice() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let (content, total) = list_to_bob(40);
    let list = wallet.write("list.csv", content);
    let arguments = ["pay", &list, "--from", "alice", "--yes", "--per-transaction", "1"];
    // Killed again and again, at whatever moment that is, until a run gets to the end by itself.
    let mut kills = 0;
    until("a run pays the rest", async || {
        let before = network.nodes[0].account(&network.people()[1].name()).await.unwrap().balance;
        let mut command = wallet.command();
        command.args(arguments).arg("--no-input").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let moved = async {
            until("a payment, or the end", async || {
                let ended = child.try_wait().unwrap();
                let now = network.nodes[0].account(&network.people()[1].name()).await.unwrap().balance;
                // Several blocks further each time, so that the kill falls anywhere between two payments.
                (ended.is_some() || now > before + kills * 1_500_000).then_some(ended)
            })
            .await
        };
        match moved.await {
            Some(status) => {
                assert!(status.success());
                Some(())
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                None
            }
        }
    })
    .await;
    assert!(kills >= 3, "only {kills} kills");
    assert_eq!(wallet.balance("bob"), FUNDS + total);
    assert_eq!(wallet.balance("alice"), FUNDS - total - 40 * FEE);
    let again = wallet.json(&arguments);
    assert_eq!((&again["paid"], again["transactions"].as_array().unwrap().len()), (&40.into(), 40));
    assert_eq!(wallet.balance("bob"), FUNDS + total);

    // Another content is another list; another sender is another journal.
    fs::write(&list, list_to_bob(41).0).unwrap();
    assert_eq!(wallet.failure(&arguments), (2, "JOURNAL".into()));
    assert_eq!(wallet.balance("bob"), FUNDS + total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_checked_as_a_whole_before_anything_is_signed() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let nobody = Payer::new(60, &network.genesis.chain).name();
    let other = Payer::new(61, &network.genesis.chain).name();
    let pay = |name: &str, more: &[&'static str]| {
        let list = wallet.path(name);
        let arguments = [&["pay", list.as_str(), "--from", "alice", "--yes"][..], more].concat();
        wallet.run(&arguments).status.code().unwrap()
    };
    wallet.write("poor.csv", "to,amount\nbob,1\nbob,2000000\n");
    assert_eq!(pay("poor.csv", &[]), 4);
    wallet
        .write("missing.csv", format!("to,amount,note\nbob,1,one\n{nobody},2,two\n{other},3,\n{nobody},0.001,more\n"));
    assert_eq!(pay("missing.csv", &[]), 2);
    assert_eq!(wallet.balance("alice"), FUNDS, "nothing was paid");
    assert_eq!(pay("missing.csv", &["--create-if-missing", "--dry-run"]), 0);
    assert_eq!(wallet.balance("alice"), FUNDS);
    // 3 lines fit the first transaction; the second pays into an account that the first opened.
    assert_eq!(pay("missing.csv", &["--create-if-missing", "--per-transaction", "3"]), 0);
    assert_eq!(wallet.balance(&nobody), 2_001_000_000);
    assert_eq!(wallet.balance(&other), 3_000_000_000);
    assert_eq!(wallet.balance("alice"), FUNDS - 6_001_000_000 - 4 * FEE);
    let history = wallet.json(&["history", "alice", "--all"]);
    assert_eq!(history["transactions"].as_array().unwrap().len(), 2);

    // A node that goes away in between leaves an unknown outcome, and a journal that the next run goes on from.
    let mut network = network;
    let (content, total) = list_to_bob(3);
    let list = wallet.write("list.csv", content);
    let before = wallet.balance("bob");
    network.nodes[0].terminate().await;
    assert_eq!(wallet.failure(&["pay", &list, "--from", "alice", "--yes"]).0, 3);
    network.nodes[0].start();
    until("the node is back", async || network.nodes[0].status().await.ok()).await;
    tokio::time::timeout(Duration::from_secs(60), async {
        while wallet.run(&["pay", &list, "--from", "alice", "--yes"]).status.code() != Some(0) {}
    })
    .await
    .unwrap();
    assert_eq!(wallet.balance("bob"), before + total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_one_list_however_it_is_reached() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let list = wallet.write("list.csv", "to,amount\nbob,1\n");
    let link = wallet.path("link.csv");
    std::os::unix::fs::symlink(&list, &link).unwrap();
    for name in [&list, &link, &"list.csv".to_owned()] {
        wallet.json(&["pay", name, "--from", "alice", "--yes"]);
        assert_eq!(wallet.balance("bob"), FUNDS + 1_000_000_000, "{name}");
    }
    // What has no place of its own has no journal.
    let piped = wallet.failure(&["pay", "/dev/stdin", "--from", "alice", "--yes"]);
    assert_eq!(piped.0, 2);
}

/// A line that can never be paid would keep those after it unpaid for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_no_key_is_found_before_anything_is_paid() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let no_key = tally_types::Address([2; 32]);
    let list = wallet.write("list.csv", format!("to,amount\nbob,1\n{no_key},5\n"));
    let pay = ["pay", &list, "--from", "alice", "--yes", "--create-if-missing", "--per-transaction", "1"];
    assert_eq!(wallet.failure(&pay), (2, "PAYMENT_FILE".into()));
    assert_eq!(wallet.balance("bob"), FUNDS);
}

/// A result that cannot be written must not look like a payment that failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_whose_result_cannot_be_written_is_said_to_be_final() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let mut command = wallet.command();
    command.args(["send", "bob", "1", "--from", "alice", "--yes"]);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is final: do not send it again"), "{said}");
    assert_eq!(wallet.balance("bob"), FUNDS + 1_000_000_000);
}
