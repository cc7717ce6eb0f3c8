//! The other commands, as a script sees them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
};

use serde_json::Value;

use crate::{
    network::{FEE, FUNDS, Network, Plan, SpawnAndWait as _},
    payer::Payer,
    wallet::Wallet,
};

#[test]
fn a_key_survives_export_import_rename_and_another_passphrase() {
    let wallet = Wallet::new();
    let address = wallet.json(&["keys", "show", "alice"])["address"].clone();
    let (sealed, bare) = (wallet.path("sealed"), wallet.path("bare"));
    wallet.json(&["keys", "export", "alice", "--keystore-file", &sealed]);
    assert_eq!(wallet.failure(&["keys", "export", "alice", "--keystore-file", &sealed]).0, 8, "never overwritten");
    assert_eq!(wallet.failure(&["keys", "export", "alice", "--secret-file", &bare]), (8, "PROMPT_IMPOSSIBLE".into()));
    wallet.json(&["keys", "export", "alice", "--secret-file", &bare, "--yes"]);
    for file in [&sealed, &bare] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read_to_string(&bare).unwrap(), format!("{}\n", "01".repeat(32)));
    assert_eq!(wallet.json(&["keys", "import", "one", "--keystore-file", &sealed])["address"], address);
    assert_eq!(wallet.json(&["keys", "import", "two", "--secret-file", &bare])["address"], address);
    assert_eq!(wallet.json(&["keys", "rename", "one", "three"])["address"], address);
    assert_eq!(wallet.failure(&["keys", "show", "one"]), (8, "KEY_NOT_FOUND".into()));
    assert_eq!(wallet.failure(&["keys", "rename", "two", "three"]), (8, "KEY_EXISTS".into()));

    let (old, new) = (wallet.write("old", "correct horse"), wallet.write("new", "battery staple"));
    let change = ["keys", "passphrase", "three", "--passphrase-file", &old, "--new-passphrase-file", &new];
    wallet.json(&change);
    assert_eq!(wallet.failure(&change), (8, "PASSPHRASE_WRONG".into()));
    let export = ["keys", "export", "three", "--secret-file", &wallet.path("again"), "--yes", "--passphrase-file"];
    assert_eq!(wallet.failure(&[&export[..], &[old.as_str()]].concat()), (8, "PASSPHRASE_WRONG".into()));
    wallet.json(&[&export[..], &[new.as_str()]].concat());

    let words = wallet.path("words");
    wallet.json(&["keys", "new", "four", "--words-file", &words]);
    assert_eq!(wallet.json(&["keys", "verify-backup", "four", "--words-file", &words])["verified"], true);
    assert_eq!(
        wallet.failure(&["keys", "verify-backup", "alice", "--words-file", &words]),
        (8, "BACKUP_DIFFERS".into())
    );
    let second = ["keys", "verify-backup", "four", "--words-file", &words, "--account", "1"];
    assert_eq!(wallet.failure(&second), (8, "BACKUP_DIFFERS".into()));
    assert_eq!(wallet.failure(&["keys", "remove", "four"]), (8, "PROMPT_IMPOSSIBLE".into()));
    wallet.json(&["keys", "remove", "four", "--yes"]);
    assert_eq!(wallet.json(&["keys", "list"])["keys"].as_array().unwrap().len(), 4);
}

#[test]
fn contacts_networks_and_settings_need_no_node() {
    let wallet = Wallet::new();
    let carol = tally_types::Address([9; 32]).to_string();
    wallet.json(&["contacts", "add", "carol", &carol]);
    assert_eq!(wallet.failure(&["contacts", "add", "carol", &carol]).0, 2);
    assert_eq!(wallet.failure(&["contacts", "add", "alice", &carol]), (2, "USAGE".into()), "an own key's name");
    assert_eq!(wallet.failure(&["keys", "rename", "alice", "carol"]), (2, "USAGE".into()), "a contact's name");
    assert_eq!(wallet.json(&["contacts", "list"])["contacts"][0]["address"], carol);

    let genesis = "ab".repeat(32);
    let add = ["network", "add", "cold", "--offline", "--node", "http://127.0.0.1:1", "--genesis-hash", &genesis];
    assert_eq!(wallet.failure(&add).0, 2, "the rest is missing");
    let rest = ["--chain-id", "club-abababab", "--symbol", "TALLY", "--decimals", "9"];
    wallet.json(&[&add[..], &rest].concat());
    assert_eq!(wallet.json(&["network", "show"])["genesisHash"], genesis);
    // The printed command makes the same pin.
    let shown = wallet.text(&["network", "show", "cold"]);
    let command = shown.lines().find_map(|line| line.strip_prefix("pin it   tally-wallet ")).unwrap();
    let again: Vec<String> = command.split(' ').map(|word| word.replace("cold", "again")).collect();
    wallet.json(&again.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(wallet.json(&["network", "show", "again"])["genesisHash"], genesis);
    wallet.json(&["network", "remove", "again", "--yes"]);
    assert_eq!(wallet.failure(&["network", "show", "again"]), (9, "NETWORK_NOT_FOUND".into()));

    let signed = wallet.json(&["message", "sign", "I am alice", "--from", "alice"]);
    let signature = signed["signature"].as_str().unwrap();
    assert_eq!(wallet.json(&["message", "verify", "alice", signature, "I am alice"])["valid"], true);
    for (who, text) in [("alice", "I am Alice"), ("bob", "I am alice"), ("carol", "I am alice")] {
        let verify = ["message", "verify", who, signature, text];
        assert_eq!(wallet.failure(&verify), (10, "SIGNATURE_INVALID".into()), "{who} {text}");
    }
    let file = wallet.write("text", "I am alice");
    wallet.json(&["message", "verify", "alice", signature, "--file", &file]);

    let mut show = wallet.command();
    show.env("TALLY_TIMEOUT", "9s").args(["config", "show", "--origin", "--from", "bob", "--output", "json"]);
    let output = show.spawn_and_wait();
    let settings: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, value, origin) in [
        ("from", "bob", "--from"),
        ("timeout", "9s", "TALLY_TIMEOUT"),
        ("color", "auto", "default"),
        ("network", "cold", wallet.path("config/config.toml").as_str()),
    ] {
        assert_eq!((&settings[name]["value"], &settings[name]["origin"]), (&value.into(), &origin.into()), "{name}");
    }

    // With no node to ask, both commands of a sponsor are shown; doctor says what is wrong, and how to help it.
    let receive = wallet.text(&["receive", "--from", "carol", "--amount", "5"]);
    assert!(receive.contains(&format!("tally-wallet create-account {carol} 5")), "{receive}");
    assert!(receive.contains(&format!("tally-wallet send {carol} 5")), "{receive}");
    let key = wallet.path("config/keys/alice.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let doctor = wallet.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(8), "the first thing wrong is the key");
    let checks: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let wrong: Vec<&Value> =
        checks["checks"].as_array().unwrap().iter().filter(|check| check["status"] == "wrong").collect();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert_eq!(wrong[0]["nextStep"], format!("chmod 600 {key}"));
    assert!(wrong[1]["what"].as_str().unwrap().contains("cannot be reached"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(wallet.run(&["doctor"]).status.code(), Some(3));
    wallet.write("config/config.toml", "netwrok = 1\n");
    assert_eq!(wallet.run(&["doctor"]).status.code(), Some(2), "a broken configuration is a finding");

    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = wallet.text(&["completions", shell]);
        assert!(script.contains("create-account") && script.contains("verify-backup"), "{shell}");
    }
    assert!(wallet.text(&["man"]).starts_with(".ie"), "roff, although the configuration is broken");
    wallet.text(&["man", "--out-dir", wallet.folder().to_str().unwrap()]);
    assert!(fs::read_to_string(wallet.path("tally-wallet-keys-export.1")).unwrap().contains("keystore"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_on_the_chain_is_told_in_every_form() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let [_, bob, carol] = network.people();
    wallet.json(&["contacts", "add", "carol", &carol.name()]);

    // Somebody watches, reads one transaction, and ends by itself.
    let mut watcher = wallet.command();
    watcher.args(["watch", "carol", "--count", "2", "--output", "json"]);
    let mut watcher = watcher.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    let mut ids = Vec::new();
    // It begins at the block after the one it found: a first payment may come before that.
    let first = loop {
        ids.push(wallet.json(&["send", "carol", "1", "--from", "alice", "--yes"])["txId"].clone());
        wallet.json(&["send", "bob", "1", "--from", "alice", "--yes"]);
        if ids.len() == 3 {
            break lines.next().unwrap().unwrap();
        }
    };
    let second = lines.next().unwrap().unwrap();
    let watched = [first, second].map(|line| serde_json::from_str::<Value>(&line).unwrap()["txId"].clone());
    assert!(ids.windows(2).any(|pair| pair == watched), "{watched:?} are not two that follow each other of {ids:?}");
    assert!(watcher.wait().unwrap().success());

    // Everything but the fee; an account that is opened on the way.
    let nobody = Payer::new(60, &network.genesis.chain);
    let missing = wallet.json(&["send", &nobody.name(), "2", "--from", "bob", "--create-if-missing", "--yes"]);
    assert!(missing["body"]["operations"][0]["createAccount"].is_object(), "{missing}");
    let there = wallet.json(&["send", &nobody.name(), "2", "--from", "bob", "--create-if-missing", "--yes"]);
    assert!(there["body"]["operations"][0]["transfer"].is_object(), "{there}");
    wallet.json(&["send", "alice", "all", "--from", "bob", "--yes"]);
    assert_eq!(network.nodes[0].balance(&bob.name()).await, 0);
    let all = wallet.json(&["balance", "--all"]);
    let expected = FUNDS - 3_000_000_000 - 4_000_000_000 + FUNDS - 6 * FEE - 3 * FEE;
    assert_eq!(all["total"], expected.to_string());
    assert_eq!(wallet.json(&["receive", "--from", "bob"])["exists"], true);

    // Every line of a CSV, every transaction of a history.
    let csv = wallet.text(&["history", "carol", "--all", "--csv"]);
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert!(csv.lines().skip(1).all(|line| line.contains(",in,") && line.contains(",1,,")), "{csv}");
    assert_eq!(wallet.json(&["history", "alice", "--limit", "3"])["transactions"].as_array().unwrap().len(), 3);

    let latest = wallet.json(&["chain", "block", "--full"]);
    let (height, hash) = (latest["header"]["height"].as_str().unwrap(), latest["blockHash"].as_str().unwrap());
    assert_eq!(wallet.json(&["chain", "block", height])["blockHash"], hash);
    assert_eq!(wallet.json(&["chain", "block", hash])["header"]["height"], height);
    assert_eq!(wallet.failure(&["chain", "block", "999999999"]), (9, "BLOCK_NOT_FOUND".into()));
    let validators = wallet.json(&["chain", "validators"]);
    assert_eq!(validators["totalVotingPower"], "1000000000000");
    let leaders = wallet.json(&["chain", "leaders", "--count", "5"]);
    let leaders = leaders["slots"].as_array().unwrap();
    assert_eq!(leaders.len(), 5);
    assert!(leaders.iter().all(|slot| slot["leader"] == validators["validators"][0]["address"]));
    assert_eq!(wallet.run(&["doctor"]).status.code(), Some(0));

    // Every call as a command, and how it went; stdout is the result alone.
    let output = wallet.command().args(["balance", "carol", "--explain", "-v"]).spawn_and_wait();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1000003 TALLY\n");
    let said = String::from_utf8(output.stderr).unwrap();
    let place = network.nodes[0].client;
    let call = format!(
        "grpcurl -plaintext -d '{{\"address\":\"{}\"}}' {place} tally.v1.AccountService/GetAccount",
        carol.name()
    );
    assert!(said.lines().any(|line| line == call), "{said}");
    assert!(said.contains(&format!("AccountService/GetAccount at http://{place}: OK after ")), "{said}");

    // A history that goes on: the past, oldest first, and then what comes.
    let mut follower = wallet.command();
    follower.args(["history", "carol", "--follow", "--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut follower = follower.spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["txId"].clone();
    assert_eq!([next(), next(), next()].to_vec(), ids);
    let new = wallet.json(&["send", "carol", "1", "--from", "alice", "--yes"])["txId"].clone();
    assert_eq!(next(), new);
    follower.kill().unwrap();
    follower.wait().unwrap();
}
