//! What a newcomer does: `tally-node localnet`, and the wallet commands it prints.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;

use crate::network::{Node, SpawnAndWait as _, candidate, place, tally_node, until};

/// How long Ctrl-C may take to end everything.
const GOODBYE: Duration = Duration::from_secs(10);

/// A running `tally-node localnet`.
struct Localnet {
    home: PathBuf,
    base_port: u16,
    child: Child,
    said: Arc<Mutex<String>>,
    _place: SemaphorePermit<'static>,
}

impl Localnet {
    async fn start(home: &Path, nodes: u16, base_port: u16) -> Localnet {
        let place = place().await;
        let mut command = tally_node();
        command.args(["localnet", "--nodes", &nodes.to_string(), "--base-port", &base_port.to_string(), "--home"]);
        let errors = fs::OpenOptions::new().create(true).append(true).open(home.with_extension("log")).unwrap();
        let mut child = command.arg(home).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (lines, heard) = (BufReader::new(child.stdout.take().unwrap()).lines(), said.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *heard.lock().unwrap() += &format!("{line}\n");
            }
        });
        Localnet { home: home.to_owned(), base_port, child, said, _place: place }
    }

    /// Waits until it has said how to stop it, and returns everything it said.
    async fn welcome(&mut self) -> String {
        until("the welcome", async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "localnet ended with {status}: {}",
                    fs::read_to_string(self.home.with_extension("log")).unwrap()
                );
            }
            Some(self.said.lock().unwrap().clone()).filter(|said| said.contains("Ctrl-C stops the network"))
        })
        .await
    }

    /// Validator `number`, from 1, as its clients see it.
    fn node(&self, number: u16) -> Node {
        Node::new(self.home.join(format!("node{number}")), self.base_port + number, self.base_port + 100 + number)
    }

    /// Process of validator `number`, from 1.
    fn process(&self, number: u16) -> Pid {
        let lock = fs::read_to_string(self.home.join(format!("node{number}/lock"))).unwrap();
        Pid::from_raw(lock.trim().parse().unwrap()).unwrap()
    }

    /// Ctrl-C, and its end.
    async fn interrupt(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let child = &mut self.child;
        until("localnet ends at Ctrl-C", async || child.try_wait().unwrap()).await
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_alive(process: Pid) -> bool {
    // A zombie that nobody has waited for yet is dead, too.
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(process).is_ok() && !stat.contains(") Z ")
}

/// A base port of which all ports for `nodes` validators are free.
fn free_base_port(nodes: u16) -> u16 {
    loop {
        let base = candidate(128);
        let ports = (1..=nodes).flat_map(|number| [base + number, base + 100 + number]);
        if ports.map(|port| TcpListener::bind(("127.0.0.1", port))).collect::<Result<Vec<_>, _>>().is_ok() {
            return base;
        }
    }
}

/// The terminal of somebody who does what the welcome says.
struct Shell {
    export: String,
    wallet: String,
    folder: TempDir,
}

impl Shell {
    fn new(welcome: &str) -> Shell {
        let line = |start: &str| welcome.lines().map(str::trim).find(|line| line.starts_with(start));
        let wallet = welcome.lines().find_map(|line| line.trim().strip_suffix(" balance")).expect("the wallet");
        let export = line("export TALLY_CONFIG_DIR=").expect("how to reach the wallet").to_owned();
        Shell { export, wallet: wallet.to_owned(), folder: tempfile::tempdir().unwrap() }
    }

    /// Runs a line as it would be pasted.
    fn paste(&self, line: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{}\n{line}", self.export)).current_dir(self.folder.path()).stdin(Stdio::null());
        shell.spawn_and_wait()
    }

    /// Runs the wallet, which must succeed, and returns its stdout.
    fn wallet(&self, arguments: &str) -> String {
        let output = self.paste(&format!("{} {arguments}", self.wallet));
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments}: {}\n{out}{err}", output.status);
        out
    }

    /// The same, as JSON.
    fn json(&self, arguments: &str) -> Value {
        let out = self.wallet(&format!("{arguments} --output json"));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments}: {error}\n{out}"))
    }

    fn balance(&self, name: &str) -> u64 {
        self.json(&format!("balance {name}"))["account"]["balance"].as_str().unwrap().parse().unwrap()
    }

    fn height(&self) -> u64 {
        self.json("chain info")["latestHeight"].as_str().unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_pastes_the_printed_commands_and_the_chain_survives_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("localnet");
    let mut localnet = Localnet::start(&home, 4, free_base_port(4)).await;
    let welcome = localnet.welcome().await;
    assert!(welcome.contains("is up: 4 validators."), "{welcome}");
    assert!(welcome.contains("It tolerates one faulty validator."), "{welcome}");
    assert!(welcome.contains(&format!("http://127.0.0.1:{}", localnet.base_port + 4)), "{welcome}");

    // Every printed command, pasted as it stands.
    let shell = Shell::new(&welcome);
    let commands: Vec<_> = welcome.lines().map(str::trim).filter(|line| line.starts_with(&shell.wallet)).collect();
    let start =
        ["balance", "send bob 12.5 --yes", "keys new dave --words-file dave.words", "create-account dave 100 --yes"];
    assert_eq!(commands, start.map(|arguments| format!("{} {arguments}", shell.wallet)));
    for command in &commands {
        let output = shell.paste(command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty(), "{command} says nothing");
    }
    assert!(shell.folder.path().join("dave.words").exists());
    assert_eq!(shell.wallet("balance dave"), "100 TALLY\n");
    assert_eq!(shell.wallet("balance bob"), "1000012.5 TALLY\n");
    assert_eq!(shell.wallet("balance"), "999887.498 TALLY\n");

    // The queries, for people and for scripts.
    let history = shell.wallet("history");
    assert!(history.contains("-12.5 TALLY to ") && history.contains("-100 TALLY opening to "), "{history}");
    let history = shell.json("history");
    let rows = history["transactions"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let id = rows[0]["txId"].as_str().unwrap();
    let shown = shell.json(&format!("tx show {id}"));
    assert_eq!(shown["state"], "TRANSACTION_STATE_FINALIZED");
    assert_eq!(shown["receipt"]["result"], "EXECUTION_RESULT_OK");
    assert!(shell.wallet(&format!("tx show {id}")).contains("final"));
    let info = shell.json("chain info");
    assert!(welcome.contains(info["chainId"].as_str().unwrap()));
    assert!(shell.wallet("chain info").contains("TALLY"));

    // Ctrl-C, and once more.
    let before = (shell.height(), ["alice", "bob", "carol", "dave"].map(|name| shell.balance(name)));
    let validators = [1, 2, 3, 4].map(|number| localnet.process(number));
    let asked = Instant::now();
    assert!(localnet.interrupt().await.success());
    assert!(asked.elapsed() < GOODBYE, "{:?}", asked.elapsed());
    assert!(validators.iter().all(|process| !is_alive(*process)));
    let base_port = localnet.base_port;
    drop(localnet);
    let mut localnet = Localnet::start(&home, 4, base_port).await;
    let again = localnet.welcome().await;
    assert_eq!(again, welcome);
    let after = (shell.height(), ["alice", "bob", "carol", "dave"].map(|name| shell.balance(name)));
    assert!(after.0 >= before.0, "{after:?} after {before:?}");
    assert_eq!(after.1, before.1);
    assert_eq!(shell.json("history")["transactions"], history["transactions"]);
    shell.wallet("send bob 1 --yes");
    let height = shell.height();
    assert!(height > before.0, "{height} after {before:?}");
    assert!(localnet.interrupt().await.success());
}

#[tokio::test]
async fn validators_end_with_a_localnet_that_is_killed_and_no_home_has_two_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("localnet");
    let mut localnet = Localnet::start(&home, 3, free_base_port(3)).await;
    let welcome = localnet.welcome().await;
    assert!(welcome.contains("It tolerates no fault"), "{welcome}");

    // A second process on one home.
    let node = localnet.node(1);
    let refused = Node::new(node.home.clone(), free_base_port(1), free_base_port(1)).start_refused();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("is in use by process"), "{said}");
    assert!(said.contains(&localnet.process(1).as_raw_nonzero().to_string()), "{said}");
    let reindex = tally_node().arg("reindex").arg("--home").arg(&node.home).spawn_and_wait();
    assert_eq!(reindex.status.code(), Some(1), "{}", String::from_utf8_lossy(&reindex.stderr));
    let height = node.height().await;
    node.reach(height + 1).await;

    // Another number of validators than it was made with.
    let other = tally_node().args(["localnet", "--nodes", "4", "--home"]).arg(&home).spawn_and_wait();
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(!other.status.success() && said.contains("holds a network of 3"), "{said}");

    let validators = [1, 2, 3].map(|number| localnet.process(number));
    assert!(validators.iter().all(|process| is_alive(*process)));
    localnet.child.kill().unwrap();
    localnet.child.wait().unwrap();
    until("the validators end", async || (!validators.iter().any(|process| is_alive(*process))).then_some(())).await;
}

#[test]
fn localnet_leaves_a_folder_that_is_not_its_own_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
    for arguments in [&["localnet"][..], &["localnet", "--reset"]] {
        let output = tally_node().args(arguments).arg("--home").arg(folder.path()).spawn_and_wait();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("is not empty") || said.contains("left as it is"), "{said}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("thesis.txt")).unwrap(), "years of work");
}
