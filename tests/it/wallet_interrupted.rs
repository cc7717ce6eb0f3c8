//! Whatever interrupts the wallet while it writes, what was there stays as it was or is the new one, whole; and whoever interrupts
//! it while a payment is on its way is told how to go on.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::{
    network::{DEADLINE, Network},
    terminal::Terminal,
    wallet::Wallet,
};

/// Everything in the wallet's folder but the files that were left behind unfinished.
fn content(wallet: &Wallet) -> BTreeMap<String, Vec<u8>> {
    fn read(folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => read(&entry.path(), found),
                false => drop(found.insert(entry.path().display().to_string(), fs::read(entry.path()).unwrap())),
            }
        }
    }
    let mut found = BTreeMap::new();
    read(wallet.folder(), &mut found);
    found
}

fn finished(content: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    content.clone().into_iter().filter(|(name, _)| !name.rsplit('/').next().unwrap().starts_with(".tmp")).collect()
}

/// Runs a command that may not write a single byte into a file: it is killed by the system at the first one, as a power cut could
/// have done it, or told that there is no room.
fn without_room(wallet: &Wallet, arguments: &[&str], is_killed: bool) -> Output {
    let trap = if is_killed { "" } else { "trap '' XFSZ && " };
    let limited = format!("{trap}ulimit -c 0 && ulimit -f 0 && exec \"$@\"");
    let inner = wallet.command();
    let mut command = Command::new("sh");
    command.args(["-c", &limited, "sh"]).arg(inner.get_program());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(arguments).args(["--no-input", "--output", "json"]).stdin(Stdio::null());
    command.current_dir(wallet.folder()).output().unwrap()
}

#[test]
fn a_write_that_is_cut_short_changes_nothing() {
    let wallet = Wallet::new();
    let words = wallet.write("words", format!("{}art", "abandon ".repeat(23)));
    let seed = wallet.write("seed", "07".repeat(32));
    let passphrase = wallet.write("new-passphrase", "battery staple");
    let (out, genesis) = (wallet.path("out"), "ab".repeat(32));
    wallet.json(&["contacts", "add", "carol", "tally1rc7fkajxn2ezln4c8ehtegp9fjyl7spuku86n5upedxaalz0swvqcjua52"]);
    let network = |name| {
        let rest = ["--genesis-hash", &genesis, "--chain-id", "c-abababab", "--symbol", "TALLY", "--decimals", "9"];
        let first = ["network", "add", name, "--offline", "--node", "http://127.0.0.1:1"];
        first.iter().chain(&rest).map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    let club = network("club");
    wallet.json(&club.iter().map(String::as_str).collect::<Vec<_>>());
    let other = network("other");
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    let carl = "tally1ax3nk0fasfqdlw352fw5n8p43n0kpa2tn5a7c7yqdcqmaq4stfys9t86rx";
    let commands: [&[&str]; 12] = [
        &["keys", "new", "carl", "--words-file", &out],
        &["keys", "import", "carl", "--words-file", &words],
        &["keys", "import", "carl", "--secret-file", &seed],
        &["keys", "passphrase", "alice", "--new-passphrase-file", &passphrase],
        &["keys", "rename", "alice", "al"],
        &["keys", "export", "alice", "--secret-file", &out, "--yes"],
        &["keys", "export", "alice", "--keystore-file", &out],
        &["contacts", "add", "carl", carl],
        &["contacts", "remove", "carol"],
        &other,
        &["network", "use", "club"],
        &["network", "remove", "club", "--yes"],
    ];
    let before = content(&wallet);
    for arguments in commands {
        let refused = without_room(&wallet, arguments, false);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(matches!(refused.status.code(), Some(2 | 8)), "{arguments:?}: {} {said}", refused.status);
        let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert!(last["message"].as_str().unwrap().contains("File too large"), "{arguments:?}: {said}");
        assert!(content(&wallet) == before, "{arguments:?} left something behind");
    }
    for arguments in commands {
        let killed = without_room(&wallet, arguments, true);
        let signal = killed.status.signal();
        assert_eq!(signal, Some(25), "{arguments:?}: {}", String::from_utf8_lossy(&killed.stderr));
        assert!(finished(&content(&wallet)) == before, "{arguments:?} changed something");
    }
    // The unfinished files are in nobody's way.
    assert_eq!(wallet.json(&["keys", "list"])["keys"].as_array().unwrap().len(), 2);
    for arguments in [commands[0], commands[4], commands[8], commands[9], commands[10]] {
        wallet.json(arguments);
    }
}

#[test]
fn killed_at_any_moment_a_key_opens_with_the_old_or_the_new_passphrase() {
    let wallet = Wallet::new();
    let passphrases = ["correct horse", "battery staple"].map(|text| (text, wallet.write(&text[..3], text)));
    let opens = |file: &str| {
        let out = wallet.path("out");
        let exported =
            wallet.run(&["keys", "export", "alice", "--secret-file", &out, "--yes", "--passphrase-file", file]);
        let secret = exported.status.success().then(|| fs::read(&out).unwrap());
        let _ = fs::remove_file(out);
        secret
    };
    let secret = opens(&passphrases[0].1).unwrap();
    let change = |from: usize| {
        let mut command = wallet.command();
        command.args(["keys", "passphrase", "alice", "--passphrase-file", &passphrases[from].1]);
        command.args(["--new-passphrase-file", &passphrases[1 - from].1]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let begun = Instant::now();
    assert!(change(0).wait().unwrap().success());
    let whole = begun.elapsed();
    let mut current = 1;
    // Ten moments, from the start until after the end.
    for part in 1..=10 {
        let mut child = change(current);
        std::thread::sleep(whole * part / 9);
        let _ = child.kill();
        child.wait().unwrap();
        let found: Vec<usize> = (0..2).filter(|which| opens(&passphrases[*which].1).is_some()).collect();
        let [now] = found.as_slice() else { panic!("opens with {found:?}") };
        current = *now;
        assert_eq!(opens(&passphrases[current].1).unwrap(), secret);
    }
    // Left alone, it does what it was asked.
    let asked = 1 - current;
    assert!(change(current).wait().unwrap().success());
    assert!(opens(&passphrases[asked].1).is_some());
}

fn interrupt(process: u32, signal: rustix::process::Signal) {
    let process = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, signal).unwrap();
}

fn ends(child: &mut std::process::Child) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = child.kill();
    panic!("it does not end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_wait_says_how_to_go_on() {
    let network = Network::without_quorum().await;
    let wallet = Wallet::of(&network);
    // Again and again: which of two listeners would hear it first is chance.
    for round in 0..12 {
        let mut command = wallet.command();
        command.args(["send", "bob", "1", "--from", "alice", "--yes", "--no-input"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        said.find(|line| line.contains("waiting until it is final")).unwrap();
        interrupt(child.id(), rustix::process::Signal::INT);
        let rest: Vec<String> = said.collect();
        assert_eq!(ends(&mut child), Some(6), "{round}: {rest:?}");
        let rest = rest.join("\n");
        assert!(rest.contains("it may still run until") && rest.contains("wait with: tally-wallet tx wait"), "{rest}");
    }
}

#[test]
fn whoever_reads_a_pipe_can_be_interrupted() {
    let wallet = Wallet::new();
    let pipe = wallet.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for arguments in [
        &["tx", "decode", &pipe][..],
        &["keys", "import", "carl", "--words-file", &pipe],
        &["keys", "export", "alice", "--secret-file", "out", "--yes", "--passphrase-file", &pipe],
    ] {
        let mut command = wallet.command();
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let mut said = child.stderr.take().unwrap();
        // It listens before it reads; how soon that is nothing tells.
        while child.try_wait().unwrap().is_none() && begun.elapsed() < DEADLINE {
            std::thread::sleep(std::time::Duration::from_millis(300));
            interrupt(child.id(), rustix::process::Signal::INT);
        }
        let status = child.try_wait().unwrap().unwrap_or_else(|| panic!("{arguments:?} does not end"));
        let mut text = String::new();
        std::io::Read::read_to_string(&mut said, &mut text).unwrap();
        // Before it listens, the system ends it.
        assert!(
            status.code() == Some(130) && text.contains("interrupted") || status.signal() == Some(2),
            "{status} {text}"
        );
    }
}

#[test]
fn a_terminal_is_given_back_whatever_ends_a_hidden_question() {
    let wallet = Wallet::empty();
    for (signal, code) in
        [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143), (rustix::process::Signal::HUP, 129)]
    {
        let mut terminal = Terminal::start(&wallet, &["keys", "new", "gina"]);
        terminal.expect("New passphrase for key gina: ").expect_echo(false);
        interrupt(terminal.id(), signal);
        terminal.ends_with(code);
        terminal.expect_echo(true);
    }
}

/// Of many that change the same folder at once, none undoes what another did.
#[test]
fn changes_of_one_folder_take_turns() {
    let wallet = Wallet::new();
    let address = "tally1ax3nk0fasfqdlw352fw5n8p43n0kpa2tn5a7c7yqdcqmaq4stfys9t86rx";
    let add = |number: usize| {
        let mut command = wallet.command();
        command.args(["contacts", "add", &format!("c{number}"), address]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut all: Vec<_> = (0..12).map(add).collect();
    assert!(all.iter_mut().all(|child| ends(child) == Some(0)));
    assert_eq!(wallet.json(&["contacts", "list"])["contacts"].as_array().unwrap().len(), 12);
    let rename = |number: usize| {
        let mut command = wallet.command();
        let child = command.args(["keys", "rename", "bob", &format!("b{number}")]).arg("--no-input");
        child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut all: Vec<_> = (0..4).map(rename).collect();
    let done = all.iter_mut().filter_map(|child| (ends(child) == Some(0)).then_some(())).count();
    assert_eq!(done, 1, "a key has one name");
    assert_eq!(wallet.json(&["keys", "list"])["keys"].as_array().unwrap().len(), 2);
}
