//! A record of what people see: `screens.txt` against a real network, `outcomes.txt` against one that decides nothing for a
//! while (see wallet_outcomes.rs), `help.txt` for every command.
//!
//! Made anew with `TALLY_WRITE_SCREENS=1 cargo test --test it wallet_`; the difference is then for a person to read.

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
};

use crate::{
    network::{Network, Plan},
    payer::Payer,
    wallet::Wallet,
};

fn check(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(name);
    if std::env::var_os("TALLY_WRITE_SCREENS").is_some() {
        fs::write(&path, seen).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    for (number, (recorded, seen)) in (1..).zip(recorded.lines().zip(seen.lines())) {
        assert_eq!(seen, recorded, "tests/it/{name}, line {number}: if it is meant so, run with TALLY_WRITE_SCREENS=1");
    }
    assert_eq!(
        seen.lines().count(),
        recorded.lines().count(),
        "tests/it/{name} is longer or shorter than what is seen"
    );
}

/// Everything that differs from run to run, replaced by what it is.
fn settled(text: &str, known: &[(String, &str)]) -> String {
    let mut text = text.to_owned();
    for (value, name) in known {
        text = text.replace(value, name);
    }
    let ends = |c: char| matches!(c, ' ' | '\n' | ',' | '(' | ')');
    text.split_inclusive(ends)
        .map(|piece| {
            let bare = piece.trim_end_matches(ends).trim_end_matches([':', '.']);
            let hex = |length| bare.len() == length && bare.bytes().all(|b| b.is_ascii_hexdigit());
            let name = match bare {
                _ if hex(64) => "HASH",
                _ if hex(128) => "SIGNATURE",
                _ if bare.starts_with("tally1") && bare.len() == 64 => "ADDRESS",
                _ if bare.len() >= 20 && bare.ends_with('Z') && bare.as_bytes()[10] == b'T' => "TIME",
                _ => return piece.to_owned(),
            };
            piece.replace(bare, name)
        })
        .collect()
}

/// Heights and views depend on how fast the machine is: the numbers behind these words.
fn without_heights(text: &str) -> String {
    let mut settled = Vec::new();
    for line in text.lines() {
        // A row of CSV: the height follows the time.
        if let Some((height, rest)) = line.strip_prefix("TIME,").and_then(|rest| rest.split_once(',')) {
            assert!(height.bytes().all(|b| b.is_ascii_digit()), "{line}");
            settled.push(format!("TIME,N,{rest}"));
            continue;
        }
        // A row of the leaders begins with its view.
        if let Some((view, rest)) = line.split_once("  ADDRESS")
            && view.bytes().all(|b| b.is_ascii_digit())
        {
            settled.push(format!("N  ADDRESS{rest}"));
            continue;
        }
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            let before = words[..at].iter().rev().find(|word| !word.is_empty()).map(String::as_str).unwrap_or_default();
            let is_height = matches!(before, "height" | "view" | "(after" | "block" | "index" | "TIME");
            let digits = words[at].trim_end_matches([')', ',', ':', ';']);
            if is_height && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                words[at] = words[at].replace(digits, "N");
            }
        }
        settled.push(words.join(" "));
    }
    settled.join("\n") + "\n"
}

/// What was seen so far.
pub struct Screen {
    known: Vec<(String, &'static str)>,
    seen: String,
}

impl Screen {
    /// Nothing yet; `known` are values that differ from run to run, with what they are.
    pub fn new(known: Vec<(String, &'static str)>) -> Screen {
        Screen { known, seen: String::new() }
    }

    /// One more value that differs from run to run.
    pub fn knows(&mut self, value: String, name: &'static str) {
        self.known.push((value, name));
    }

    /// Runs a command and adds what it shows: stdout, stderr behind "| ", the exit code.
    pub fn shows(&mut self, wallet: &Wallet, line: &str) {
        let output = wallet.command().args(line.split(' ')).arg("--no-input").output().unwrap();
        self.adds(line, output);
    }

    /// Adds what a command showed.
    pub fn adds(&mut self, line: &str, output: Output) {
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        self.seen.push_str(&format!("$ tally-wallet {line}\n{out}"));
        err.lines().for_each(|line| self.seen.push_str(&format!("| {line}\n")));
        self.seen.push_str(&format!("[{}]\n\n", output.status.code().unwrap()));
    }

    /// Compares all of it with the record of this name.
    pub fn is_as_recorded(&self, name: &str) {
        check(name, &without_heights(&settled(&self.seen, &self.known)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn screens_are_as_recorded() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::new();
    let url = format!("http://{}", network.nodes[0].client);
    let [alice, bob, carol] = network.people();
    let nobody = Payer::new(60, &network.genesis.chain).name();
    let chain = network.genesis.chain.clone();
    let mut screen = Screen::new(vec![
        (url.clone(), "NODE"),
        (chain.id, "CHAIN"),
        (chain.genesis_hash.to_string(), "GENESIS"),
        (alice.name(), "ALICE"),
        (bob.name(), "BOB"),
        (carol.name(), "CAROL"),
        (nobody.clone(), "NOBODY"),
        (wallet.folder().to_str().unwrap().to_owned(), "HOME"),
    ]);
    let list = format!("to,amount,note\nbob,1,one\ncarol,2,two\n{nobody},3,three\n");
    wallet.write("list.csv", list);
    let add = format!("network add it --node {url}");
    let contact = format!("contacts add carol {}", carol.name());
    let unknown = format!("send {nobody} 1 --from alice --yes");
    for line in [
        "balance",
        &add,
        "network list",
        "network show",
        &contact,
        "contacts list",
        "keys list",
        "keys show alice",
        "config show --origin --from alice",
        "balance --all",
        "send bob 12.5 --from alice --dry-run",
        "send bob 12.5 --from alice",
        "send bob 12.5 --from alice --yes",
        "send bob 2000000 --from alice --yes",
        &unknown,
        "create-account bob 5 --from alice --yes",
        "receive --from alice",
        "send bob 1 --from alice --build-only --out rent.tx",
        "tx decode rent.tx",
        "tx sign rent.tx --yes --out rent.signed",
        "tx submit rent.tx",
        "tx submit rent.signed",
        "pay list.csv --from alice --yes",
        "pay list.csv --from alice --yes --create-if-missing --dry-run",
        "pay list.csv --from alice --yes --create-if-missing",
        "pay list.csv --from alice --yes --create-if-missing",
        "history alice",
        "history alice --csv",
        "message sign hello --from alice",
        "chain validators",
        "chain block 1",
        "chain block 999999",
        "doctor",
    ] {
        screen.shows(&wallet, line);
    }
    let sent =
        wallet.json(&["history", "alice", "--limit", "1"])["transactions"][0]["txId"].as_str().unwrap().to_owned();
    screen.shows(&wallet, &format!("tx show {sent}"));
    screen.shows(&wallet, &format!("tx wait {sent}"));
    screen.shows(&wallet, &format!("tx show {}", "0".repeat(64)));
    let signed = wallet.json(&["message", "sign", "hello", "--from", "alice"]);
    let signature = signed["signature"].as_str().unwrap();
    screen.shows(&wallet, &format!("message verify alice {signature} hello"));
    screen.shows(&wallet, &format!("message verify bob {signature} hello"));
    screen.shows(&wallet, "chain info");
    screen.shows(&wallet, "chain leaders --count 2");
    // It begins at the block after the one it found: payments may come before that, and are all the same.
    let mut watcher = wallet.command();
    watcher.args(["watch", "alice", "--count", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watcher = watcher.spawn().unwrap();
    while watcher.try_wait().unwrap().is_none() {
        wallet.json(&["send", "bob", "7", "--from", "alice", "--yes", "--memo", "seven"]);
    }
    screen.adds("watch alice --count 1", watcher.wait_with_output().unwrap());
    for line in [
        "balance nobody",
        "balance alice --network other",
        "network remove it",
        "contacts remove carol",
        "doctor --node http://127.0.0.1:1",
    ] {
        screen.shows(&wallet, line);
    }
    screen.is_as_recorded("screens.txt");
}

#[test]
fn the_help_of_every_command_is_as_recorded() {
    let wallet = Wallet::empty();
    let mut seen = String::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let mut command = wallet.command();
        let output = command.args(&path).arg("--help").env("COLUMNS", "100").output().unwrap();
        assert!(output.status.success(), "{path:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Example:\n  tally-wallet"), "{path:?} has no example");
        assert!(path.len() <= 2, "{path:?} is deeper than two levels");
        let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        let commands = commands.lines().take_while(|line| !line.is_empty());
        let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let mut deeper: Vec<Vec<String>> = names
            .map(|line| [path.clone(), vec![line.split_whitespace().next().unwrap().to_owned()]].concat())
            .collect();
        deeper.reverse();
        open.extend(deeper);
        // The global options are the same everywhere, and stand in the first text.
        let own = if path.is_empty() { help.as_str() } else { help.split("\nGlobal options:").next().unwrap() };
        let tail = help.split("\n\n").last().unwrap();
        let tail = if path.is_empty() { String::new() } else { format!("\n{tail}") };
        seen.push_str(&format!("$ tally-wallet {} --help\n{own}{tail}\n", path.join(" ")));
    }
    check("help.txt", &seen);
}
