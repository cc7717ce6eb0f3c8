//! What becomes of payments while a network has no quorum, and afterwards: not yet known, in a block without effect, never run.

use serde_json::Value;

use crate::{
    network::{FEE, FUNDS, Network, until},
    wallet::Wallet,
    wallet_screens::Screen,
};

/// Runs a command that fails; its exit code and what it says on its last line.
fn failed(wallet: &Wallet, arguments: &[&str]) -> (i32, Value) {
    let mut command = wallet.command();
    let output = command.args(arguments).args(["--output", "json", "--no-input"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{arguments:?}: a result was printed");
    let last = said.lines().last().unwrap_or_default();
    let value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{said}"));
    (output.status.code().unwrap(), value)
}

fn until_when(value: &Value) -> &str {
    let message = value["message"].as_str().unwrap();
    let (_, rest) = message.split_once("it may still run until ").unwrap_or_else(|| panic!("{message}"));
    rest.split_once(", and never after").unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_is_decided_nothing_is_called_failed_and_afterwards_everything_is_told() {
    let mut network = Network::without_quorum().await;
    let wallet = Wallet::of(&network);

    // Not known yet: until when it may run, and how to go on waiting.
    let (code, said) = failed(&wallet, &["send", "bob", "1", "--from", "alice", "--yes", "--timeout", "2s"]);
    assert_eq!((code, &said["reason"]), (6, &Value::from("OUTCOME_UNKNOWN")), "{said}");
    let id = said["metadata"]["txId"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
    let mut screen = Screen::new(vec![(network.genesis.chain.id.clone(), "CHAIN")]);
    for node in &network.nodes {
        screen.knows(format!("http://{}", node.client), "NODE");
    }
    screen.shows(&wallet, &format!("tx wait {id} --timeout 1s"));
    screen.shows(&wallet, &format!("tx show {id}"));
    let expires = until_when(&said).to_owned();
    assert!(said["nextStep"].as_str().unwrap().contains(&format!("tally-wallet tx wait {id}")), "{said}");
    // Whoever knows the id only is told the same time by a node that has it.
    let (code, said) = failed(&wallet, &["tx", "wait", &id, "--timeout", "2s"]);
    assert_eq!((code, until_when(&said)), (6, expires.as_str()), "{said}");

    // Taken; the next one can no longer be paid by the time it runs.
    let most = format!("{}", FUNDS / 1_000_000_000 - 100);
    let taken = wallet.json(&["send", "bob", &most, "--from", "alice", "--yes", "--no-wait"]);
    assert_eq!(taken["state"], "TRANSACTION_STATE_PENDING", "{taken}");
    let short = wallet.json(&["send", "bob", "200", "--from", "alice", "--yes", "--no-wait"]);
    // And one that will be too late.
    let late = ["send", "bob", "3", "--from", "alice", "--yes", "--expire-in", "3s", "--timeout", "1s"];
    let (code, said) = failed(&wallet, &late);
    assert_eq!(code, 6, "{said}");
    let late = said["metadata"]["txId"].as_str().unwrap().to_owned();
    let over = until_when(&said).to_owned();
    until("the expire time is over", async || (humantime_now() > over).then_some(())).await;

    for node in [2, 3] {
        network.nodes[node].start();
    }
    let waited = wallet.json(&["tx", "wait", &id]);
    assert_eq!(waited["receipt"]["result"], "EXECUTION_RESULT_OK", "{waited}");
    // In a block, without effect: the fee and nothing else.
    let (code, said) = failed(&wallet, &["tx", "wait", short["txId"].as_str().unwrap(), "--timeout", "20s"]);
    assert_eq!((code, &said["reason"]), (5, &Value::from("INSUFFICIENT_FUNDS")), "{said}");
    let (code, said) = failed(&wallet, &["tx", "wait", &late, "--timeout", "20s"]);
    assert_eq!((code, &said["reason"]), (7, &Value::from("EXPIRED")), "{said}");
    for id in [short["txId"].as_str().unwrap(), &late] {
        screen.shows(&wallet, &format!("tx wait {id}"));
        screen.shows(&wallet, &format!("tx show {id}"));
    }
    screen.is_as_recorded("outcomes.txt");
    let paid = 1_000_000_000 + (FUNDS / 1_000_000_000 - 100) * 1_000_000_000;
    assert_eq!(wallet.json(&["balance", "alice"])["account"]["balance"], (FUNDS - paid - 3 * FEE).to_string());
}

/// What never ran is paid again under its own nonce: should a node have lied, the chain lets one of the two run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_never_ran_are_signed_again_under_their_nonce() {
    let mut network = Network::without_quorum().await;
    let wallet = Wallet::of(&network);
    let [_, bob, carol] = network.people();
    let list = wallet.write("list.csv", format!("to,amount\n{},1\n{},2\n{},3\n", bob.name(), carol.name(), bob.name()));
    let pay = ["pay", &list, "--from", "alice", "--yes", "--per-transaction", "2", "--expire-in", "3s"];
    let (code, said) = failed(&wallet, &[&pay[..], &["--timeout", "1s"]].concat());
    assert_eq!(code, 6, "{said}");
    let over = until_when(&said).to_owned();
    until("the expire time is over", async || (humantime_now() > over).then_some(())).await;
    for node in [2, 3] {
        network.nodes[node].start();
    }
    let height = network.height().await;
    network.reach(height + 2).await;
    // The account goes on meanwhile: a nonce that is next would be another.
    wallet.json(&["send", &carol.name(), "1", "--from", "alice", "--nonce", "2", "--yes"]);
    let paid = wallet.json(&pay);
    assert_eq!((&paid["lines"], &paid["paid"]), (&Value::from(3), &Value::from(3)), "{paid}");
    // The first two lines ran under the nonce of the transaction that never did.
    let history = wallet.json(&["history", "alice"]);
    let nonces: Vec<_> =
        history["transactions"].as_array().unwrap().iter().map(|record| record["body"]["nonce"].clone()).collect();
    assert_eq!(nonces, ["3", "1", "2"], "{history}");
    assert_eq!(wallet.json(&["balance", "bob"])["account"]["balance"], (FUNDS + 4_000_000_000).to_string());
    // The journal has all three, and a last run pays nothing more.
    assert_eq!(wallet.json(&pay)["transactions"].as_array().unwrap().len(), 2);
    assert_eq!(wallet.json(&["balance", "bob"])["account"]["balance"], (FUNDS + 4_000_000_000).to_string());
}

/// A nonce that another payment has used meanwhile does not keep lines unpaid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_whose_nonce_something_else_used_are_paid_under_another() {
    let mut network = Network::without_quorum().await;
    let wallet = Wallet::of(&network);
    let [_, bob, carol] = network.people();
    let list = wallet.write("list.csv", format!("to,amount\n{},1\n", bob.name()));
    let pay = ["pay", &list, "--from", "alice", "--yes", "--expire-in", "3s"];
    let (code, said) = failed(&wallet, &[&pay[..], &["--timeout", "1s"]].concat());
    assert_eq!(code, 6, "{said}");
    let over = until_when(&said).to_owned();
    until("the expire time is over", async || (humantime_now() > over).then_some(())).await;
    for node in [2, 3] {
        network.nodes[node].start();
    }
    let height = network.height().await;
    network.reach(height + 2).await;
    wallet.json(&["send", &carol.name(), "1", "--from", "alice", "--nonce", "1", "--yes"]);
    let paid = wallet.json(&pay);
    assert_eq!((&paid["lines"], &paid["paid"]), (&Value::from(1), &Value::from(1)), "{paid}");
    assert_eq!(wallet.json(&["balance", "bob"])["account"]["balance"], (FUNDS + 1_000_000_000).to_string());
}

/// A line whose transaction was in a block without effect is paid by the next run, in a transaction of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_failed_in_a_block_are_paid_once_there_is_money() {
    let mut network = Network::without_quorum().await;
    let wallet = Wallet::of(&network);
    let [_, bob, carol] = network.people();
    let most = (FUNDS / 1_000_000_000 - 1).to_string();
    wallet.json(&["send", &bob.name(), &most, "--from", "alice", "--yes", "--no-wait"]);
    let list = wallet.write("list.csv", format!("to,amount\n{},1\n{},2\n", carol.name(), carol.name()));
    let pay = ["pay", &list, "--from", "alice", "--yes", "--memo", "it's 7", "--per-transaction", "2"];
    let (code, said) = failed(&wallet, &[&pay[..], &["--timeout", "1s"]].concat());
    assert_eq!(code, 6, "{said}");
    // The command that goes on is the one that was run.
    let goes_on = format!(r"tally-wallet pay {list} --from alice --memo 'it'\''s 7' --per-transaction 2");
    assert!(said["nextStep"].as_str().unwrap().contains(&goes_on), "{said}");
    for node in [2, 3] {
        network.nodes[node].start();
    }
    // Both of its lines failed together: nothing was paid but the fee. The next run tries anew, and there is no money for it.
    for expected in [5, 4] {
        let (code, said) = failed(&wallet, &pay);
        assert_eq!((code, &said["reason"]), (expected, &Value::from("INSUFFICIENT_FUNDS")), "{said}");
    }
    assert_eq!(wallet.balance(&carol.name()), FUNDS);
    wallet.json(&["send", "alice", "10", "--from", "bob", "--yes"]);
    let paid = wallet.json(&pay);
    assert_eq!((&paid["lines"], &paid["paid"]), (&Value::from(2), &Value::from(2)), "{paid}");
    assert_eq!(wallet.balance(&carol.name()), FUNDS + 3_000_000_000);
    let again = wallet.json(&pay);
    assert_eq!(again["paid"], 2, "{again}");
    assert_eq!(wallet.balance(&carol.name()), FUNDS + 3_000_000_000, "paid twice");
    // What is left of one token and ten: the payment of both lines, and the fees of three transactions, five operations.
    assert_eq!(wallet.balance("alice"), 11_000_000_000 - 3_000_000_000 - 5 * FEE);
}

/// This second, as the wallet writes times: text of one form compares as time does.
fn humantime_now() -> String {
    let now = prost_types::Timestamp::from(std::time::SystemTime::now());
    now.to_string()
}
