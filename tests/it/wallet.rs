//! `tally-wallet` against a real network: what a script sees.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    network::{FEE, FUNDS, Network, Plan, SpawnAndWait as _},
    payer::{Payer, key},
};

/// A wallet of its own, with alice's and bob's keys.
pub struct Wallet {
    folder: TempDir,
}

impl Wallet {
    /// A wallet with two keys and no network.
    pub fn new() -> Wallet {
        let wallet = Wallet::empty();
        for (seed, name) in [(1, "alice"), (2, "bob")] {
            let file = wallet.file(name);
            let hex: String = key(seed).seed().iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(&file, hex).unwrap();
            wallet.json(&["keys", "import", name, "--secret-file", file.to_str().unwrap()]);
        }
        wallet
    }

    /// A wallet without a key.
    pub fn empty() -> Wallet {
        Wallet { folder: tempfile::tempdir().unwrap() }
    }

    /// A wallet with two keys, for this network.
    pub fn of(network: &Network) -> Wallet {
        let wallet = Wallet::new();
        wallet.json(&["network", "add", "it", "--node", &format!("http://{}", network.nodes[0].client)]);
        wallet
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file of this name and content.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.file(name), content).unwrap();
        self.path(name)
    }

    /// The path of a file of this name.
    pub fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// `tally-wallet`, ready for arguments, without whatever the tests' own environment says.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tally-wallet"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TALLY_")) {
            command.env_remove(name);
        }
        command.env("TALLY_CONFIG_DIR", self.file("config")).env("TALLY_PASSPHRASE", "correct horse");
        command.current_dir(self.folder()).stdin(Stdio::null());
        command
    }

    /// What a command that must succeed prints for people.
    pub fn text(&self, arguments: &[&str]) -> String {
        // Read while it runs: scripts and pages are longer than a pipe holds.
        let output = self.command().args(arguments).args(["--no-input", "--timeout", "20s"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Base units that an account has.
    pub fn balance(&self, account: &str) -> u64 {
        self.json(&["balance", account])["account"]["balance"].as_str().unwrap().parse().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command as a script would.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).args(["--output", "json", "--no-input", "--timeout", "20s"]).spawn_and_wait()
    }

    /// Runs a command that must succeed, and returns its result.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{said}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Runs a command that must fail, and returns its exit code and reason.
    pub fn failure(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(output.stdout.is_empty(), "{arguments:?}: {:?}", String::from_utf8_lossy(&output.stdout));
        let said = String::from_utf8(output.stderr).unwrap();
        let last = said.lines().last().unwrap_or_default();
        let last: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{said}"));
        assert_eq!(last["exitCode"].as_i64(), output.status.code().map(i64::from), "{said}");
        (output.status.code().unwrap(), last["reason"].as_str().unwrap().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_pays_and_its_exit_codes_tell_outcomes_apart() {
    let network = Network::start(Plan::of(1)).await;
    let url = format!("http://{}", network.nodes[0].client);
    let wallet = Wallet::new();
    wallet.json(&["network", "add", "it", "--node", &url]);
    assert_eq!(wallet.failure(&["network", "add", "it", "--node", &url]).0, 2);

    let paid = wallet.json(&["send", "bob", "12.5", "--from", "alice", "--memo", "invoice 7", "--yes"]);
    assert_eq!(paid["receipt"]["result"], "EXECUTION_RESULT_OK");
    let id = paid["txId"].as_str().unwrap();
    let balance = |name: &str| wallet.json(&["balance", name])["account"]["balance"].as_str().unwrap().to_owned();
    assert_eq!(balance("alice"), (FUNDS - 12_500_000_000 - FEE).to_string());
    assert_eq!(balance("bob"), (FUNDS + 12_500_000_000).to_string());
    let record = network.nodes[0].transaction(id).await.unwrap();
    assert_eq!(record.body.unwrap().memo, "invoice 7");
    let taken = wallet.json(&["send", "bob", "1", "--from", "alice", "--no-wait", "--yes"]);
    let waited = wallet.json(&["tx", "wait", taken["txId"].as_str().unwrap()]);
    assert_eq!(waited["state"], "TRANSACTION_STATE_FINALIZED");

    let nobody = Payer::new(60, &network.genesis.chain).name();
    let zero = "0".repeat(64);
    let other = "1".repeat(64);
    for (arguments, code, reason) in [
        (&["send", "bob", "2000000", "--from", "alice", "--yes"][..], 4, "INSUFFICIENT_FUNDS"),
        (&["send", &nobody, "1", "--from", "alice", "--yes"], 4, "RECIPIENT_NOT_FOUND"),
        (&["create-account", "bob", "1", "--from", "alice", "--yes"], 4, "ACCOUNT_ALREADY_EXISTS"),
        (&["send", "bob", "1", "--from", "alice", "--nonce", "1", "--yes"], 4, "NONCE_IN_USE"),
        (&["send", "bob", "1", "--from", "alice", "--max-fee", "0.0009", "--yes"], 4, "FEE_TOO_LOW"),
        (&["send", "bob", "1", "--from", "alice"], 8, "PROMPT_IMPOSSIBLE"),
        (&["send", "bob", "1", "--from", "carol", "--yes"], 8, "KEY_NOT_FOUND"),
        (&["send", "bob", "zero", "--from", "alice", "--yes"], 2, "AMOUNT_INVALID"),
        (&["send", "bob", "0", "--from", "alice", "--yes"], 2, "USAGE"),
        (&["balance", &nobody], 9, "ACCOUNT_NOT_FOUND"),
        (&["tx", "show", &zero], 9, "TRANSACTION_NOT_FOUND"),
        (&["balance", "alice", "--node", "http://127.0.0.1:1"], 3, "UNREACHABLE"),
        (&["network", "add", "else", "--node", &url, "--genesis-hash", &other], 10, "WRONG_NETWORK"),
        (&["balance", "alice", "--network", "elsewhere"], 9, "NETWORK_NOT_FOUND"),
    ] {
        assert_eq!(wallet.failure(arguments), (code, reason.to_owned()), "{arguments:?}");
    }

    // A node of another chain at the same address is refused before anything is signed.
    let chain = network.genesis.chain.clone();
    drop(network);
    let other = Network::start(Plan::of(1)).await;
    let url = format!("http://{}", other.nodes[0].client);
    let refused = wallet.failure(&["send", "bob", "1", "--from", "alice", "--yes", "--node", &url]);
    assert_eq!(refused, (10, "WRONG_NETWORK".to_owned()));
    assert_eq!(other.nodes[0].account(&Payer::new(1, &chain).name()).await.unwrap().next_nonce, 1);
}
