//! Transactions that are built, signed and sent in different places.

use std::{fs, path::Path, process::Command};

use crate::{
    network::{FEE, FUNDS, Network, Plan, SpawnAndWait as _, until},
    payer::Payer,
    wallet::Wallet,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn building_touches_no_key_signing_no_network_and_sending_no_key() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let [alice, bob, _] = network.people();
    let (built, signed) = (wallet.path("built"), wallet.path("signed"));
    let nowhere = wallet.path("nowhere");
    let without_keys = ["--keystore-dir", nowhere.as_str()];
    let without_node = ["--node", "http://127.0.0.1:1"];
    let with = |arguments: &[&'static str], more: &[&str]| -> Vec<String> {
        arguments.iter().copied().map(str::to_owned).chain(more.iter().map(|text| (*text).to_owned())).collect()
    };
    let json = |arguments: Vec<String>| wallet.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let failure = |arguments: Vec<String>| wallet.failure(&arguments.iter().map(String::as_str).collect::<Vec<_>>());

    let (from, to) = (alice.name(), bob.name());
    let out = [&["--from", from.as_str(), "--out", built.as_str()][..], &without_keys].concat();
    let made = json(with(&["send"], &[&[to.as_str(), "12.5", "--build-only", "--memo", "rent"][..], &out].concat()));
    assert_eq!(made["signed"], false);
    let taken = with(&["send"], &[&[to.as_str(), "12.5", "--build-only"][..], &out].concat());
    assert_eq!(failure(taken), (1, "FILE".into()), "a file that is there is not written over");
    let shown = json(with(&["tx", "decode"], &[&[built.as_str()][..], &without_keys, &without_node].concat()));
    assert_eq!((&shown["txId"], &shown["body"]["memo"]), (&made["txId"], &"rent".into()));
    assert_eq!(failure(with(&["tx", "submit"], &[&built])), (2, "TRANSACTION_FILE".into()), "nobody signed it");
    assert_eq!(failure(with(&["tx", "sign"], &[&built])), (8, "PROMPT_IMPOSSIBLE".into()), "nobody agreed");
    assert_eq!(failure(with(&["tx", "sign"], &[&built, "--yes", "--from", "bob"])), (8, "KEY_NOT_FOUND".into()));
    json(with(&["tx", "sign"], &[&[built.as_str(), "--yes", "--out", &signed][..], &without_node].concat()));
    assert_eq!(failure(with(&["tx", "sign"], &[&signed, "--yes"])), (2, "TRANSACTION_FILE".into()), "signed already");
    assert_eq!(wallet.balance("bob"), FUNDS);
    for _ in 0..2 {
        let paid = json(with(&["tx", "submit"], &[&[signed.as_str()][..], &without_keys].concat()));
        assert_eq!(paid["txId"], made["txId"]);
        assert_eq!(wallet.balance("bob"), FUNDS + 12_500_000_000, "the same file again pays nothing again");
    }

    // A signed file, altered: the signature does not hold.
    let good = fs::read_to_string(&signed).unwrap();
    let (head, signature) = good.split_once("\"signature\": \"").unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let bad = wallet.write("bad", format!("{head}\"signature\": \"{other}{}", &signature[1..]));
    assert_eq!(failure(with(&["tx", "submit"], &[&bad])), (10, "TRANSACTION_FILE".into()));

    // --sign-only does both, and sends nothing; --dry-run does neither.
    let before = wallet.balance("alice");
    let only = wallet.run(&["send", "bob", "1", "--from", "alice", "--sign-only", "--yes"]);
    let only = wallet.write("only", only.stdout);
    let rehearsed = wallet.json(&["send", "bob", "1", "--from", &from, "--dry-run"]);
    assert_eq!(rehearsed["senderBalanceAfter"], (before - 1_000_000_000 - FEE).to_string());
    let nobody = Payer::new(60, &network.genesis.chain).name();
    assert_eq!(
        wallet.failure(&["send", &nobody, "1", "--from", "alice", "--dry-run"]),
        (4, "RECIPIENT_NOT_FOUND".into())
    );
    assert_eq!(wallet.balance("alice"), before);
    json(with(&["tx", "submit"], &[&only]));
    assert_eq!(wallet.balance("alice"), before - 1_000_000_000 - FEE);

    // Past its expire time it never runs, and that is certain.
    let late = wallet.path("late");
    wallet.json(&["send", "bob", "1", "--from", "alice", "--sign-only", "--yes", "--expire-in", "1ms", "--out", &late]);
    let height = network.nodes[0].height().await;
    network.nodes[0].reach(height + 2).await;
    let code = until("it has expired", async || Some(wallet.failure(&["tx", "submit", &late]))).await;
    assert_eq!(code, (7, "EXPIRED".into()));

    // A file of another chain.
    let other = Network::start(Plan::of(1)).await;
    let url = format!("http://{}", other.nodes[0].client);
    wallet.json(&["network", "add", "other", "--node", &url]);
    assert_eq!(wallet.failure(&["tx", "submit", &signed, "--network", "other"]), (10, "WRONG_NETWORK".into()));
    let foreign = ["tx", "sign", &built, "--yes", "--network", "other"];
    assert_eq!(wallet.failure(&foreign), (10, "WRONG_NETWORK".into()));
    wallet.json(&["network", "remove", "it", "--yes"]);
    assert_eq!(wallet.failure(&["tx", "sign", &built, "--yes"]), (10, "WRONG_NETWORK".into()), "no longer pinned");
}

/// Every `sh` block of docs/offline.md, pasted into one shell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_document_run() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/offline.md");
    let document = fs::read_to_string(document).unwrap();
    let blocks: Vec<&str> = document.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    let binary = Path::new(env!("CARGO_BIN_EXE_tally-wallet"));
    let shell = |script: &str| {
        let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-euc", script]).current_dir(wallet.folder()).env("PATH", path);
        shell.env("NODE", format!("http://{}", network.nodes[0].client));
        shell.env("PAYEE", network.people()[1].name()).env("TALLY_PASSPHRASE", "correct horse");
        let output = shell.stdin(std::process::Stdio::null()).spawn_and_wait();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}\n{said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    };
    let functions = blocks[0].split("\n\n").next().unwrap().to_owned();
    let said = shell(&format!("{}{}", blocks[0], blocks[1]));
    let sponsor = said.lines().find_map(|line| line.strip_prefix("sponsor runs  tally-wallet ")).unwrap();
    let sponsor: Vec<&str> = sponsor.split(' ').chain(["--from", "alice", "--yes"]).collect();
    assert_eq!(sponsor[0], "create-account");
    wallet.json(&sponsor);
    let said = shell(&format!("{functions}\n{}", blocks[2]));
    assert_eq!(said.lines().filter(|line| line.starts_with("final according to")).count(), 2, "{said}");
    assert_eq!(wallet.balance("bob"), FUNDS + 12_500_000_000);
}
