//! What a person is asked, in a pseudo-terminal.

use std::{
    io::{Read as _, Write as _},
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::Instant,
};

use pty_process::blocking::{Command, Pty, open};

use crate::{
    network::{DEADLINE, FUNDS, Network, Plan},
    wallet::Wallet,
};

/// A wallet that somebody sits in front of.
struct Terminal {
    child: std::process::Child,
    pty: Arc<Pty>,
    said: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    fn start(wallet: &Wallet, arguments: &[&str]) -> Terminal {
        let (pty, pts) = open().unwrap();
        // Wide enough that no line is broken.
        pty.resize(pty_process::Size::new(50, 400)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tally-wallet"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TALLY_")) {
            command = command.env_remove(name);
        }
        command = command.env("TALLY_CONFIG_DIR", wallet.path("config")).env("NO_COLOR", "1").args(arguments);
        let child = command.current_dir(wallet.folder()).spawn(pts).unwrap();
        let (pty, said) = (Arc::new(pty), Arc::new(Mutex::new(String::new())));
        let (reader, heard) = (pty.clone(), said.clone());
        let reader_thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is an error on Linux.
            while let Ok(count @ 1..) = (&*reader).read(&mut buffer) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Terminal { child, pty, said, reader: Some(reader_thread) }
    }

    /// Waits until it has said `text`.
    fn expect(&mut self, text: &str) -> &mut Terminal {
        let begin = Instant::now();
        while !self.said().contains(text) {
            if let Some(status) = self.ended() {
                assert!(self.said().contains(text), "{status} before {text:?}: {}", self.said());
            }
            assert!(begin.elapsed() < DEADLINE, "no {text:?} in {}", self.said());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self
    }

    fn types(&mut self, keys: &str) -> &mut Terminal {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
        self
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// How it ended, if it did; everything it said was then heard.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Some(status)
    }

    fn ends(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if begin.elapsed() > DEADLINE {
                let _ = self.child.kill();
                panic!("it does not end: {}", self.said());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn ends_with(&mut self, code: i32) {
        let status = self.ends();
        assert_eq!(status.code(), Some(code), "{}", self.said());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_shown_and_only_yes_is_yes() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let [alice, bob, _] = network.people();
    let pay = ["send", "bob", "12.5", "--from", "alice", "--memo", "rent"];
    let shown = [
        format!("network  it ({}) at http://", network.genesis.chain.id),
        format!("from     {} (alice)", alice.name()),
        format!("to       {} (bob)", bob.name()),
        "amount   12.5 TALLY".into(),
        "fee      0.001 TALLY".into(),
        "left     999987.499 TALLY".into(),
        "memo     \"rent\"".into(),
    ];
    // No, nothing, the end of input, and something that is not yes.
    for answer in ["n\r", "\r", "\u{4}", "yep\r"] {
        let mut terminal = Terminal::start(&wallet, &pay);
        terminal.expect("Send? [y/N] ");
        let said = terminal.said();
        assert!(shown.iter().all(|line| said.contains(line)), "{said}");
        terminal.types(answer).ends_with(8);
        terminal.expect("nothing was changed, signed or sent");
    }
    // Ctrl-C at the passphrase, and a wrong one.
    let mut terminal = Terminal::start(&wallet, &pay);
    terminal.expect("Send? [y/N] ").types("y\r").expect("Passphrase of key alice: ").types("\u{3}").ends_with(130);
    let mut terminal = Terminal::start(&wallet, &pay);
    terminal.expect("Send? [y/N] ").types("y\r").expect("Passphrase of key alice: ").types("wrong\r").ends_with(8);
    assert_eq!(network.nodes[0].balance(&bob.name()).await, FUNDS);

    let mut terminal = Terminal::start(&wallet, &pay);
    terminal.expect("Send? [y/N] ").types("y\r").expect("Passphrase of key alice: ").types("correct horse\r");
    terminal.expect("final according to").ends_with(0);
    assert!(!terminal.said().contains("correct horse"), "a passphrase is never shown");
    assert_eq!(network.nodes[0].balance(&bob.name()).await, FUNDS + 12_500_000_000);

    // With --no-input nothing is asked, terminal or not.
    let mut terminal = Terminal::start(&wallet, &[&pay[..], &["--no-input"]].concat());
    terminal.ends_with(8);
    terminal.expect("give --yes");
}

/// Two addresses of real keys with the same first four characters: among two thousand there are some.
fn lookalikes() -> (String, String) {
    let mut seen = std::collections::BTreeMap::new();
    for number in 0u64.. {
        let seed = tally_types::Hash::of(&number.to_be_bytes()).0;
        let address = tally_types::SecretKey::from_seed(seed).public_key().address().to_string();
        if let Some(other) = seen.insert(address[6..10].to_owned(), address.clone()) {
            return (other, address);
        }
    }
    unreachable!("numbers do not end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_looks_like_a_contact_is_looked_at_twice() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let (carol, forged) = lookalikes();
    wallet.json(&["contacts", "add", "carol", &carol]);
    let pay = ["send", &forged, "1", "--from", "alice", "--yes"];
    for typed in ["\r", "\u{4}", "abcdef\r"] {
        let mut terminal = Terminal::start(&wallet, &pay);
        terminal.expect("(carol) but is another address").expect("Type the last 6 characters");
        terminal.types(typed).ends_with(8);
    }
    let mut terminal = Terminal::start(&wallet, &pay);
    terminal.expect("Type the last 6 characters").types(&format!("{}\r", &forged[58..]));
    terminal.expect("Passphrase of key alice: ").types("correct horse\r").ends_with(4);
    terminal.expect("has no account");
    // A script answers with a flag, and nobody else's answer counts.
    assert_eq!(wallet.failure(&pay), (8, "PROMPT_IMPOSSIBLE".into()));
    let with = |last: &str| wallet.failure(&[&pay[..], &["--confirm-recipient", last]].concat());
    assert_eq!(with("abcdef"), (8, "RECIPIENT_NOT_CONFIRMED".into()));
    assert_eq!(with(&forged[58..]), (4, "RECIPIENT_NOT_FOUND".into()));
    // A list does not ask: the address has to be made a contact.
    let list = wallet.write("list.csv", format!("to,amount\n{forged},1\n"));
    assert_eq!(wallet.failure(&["pay", &list, "--from", "alice", "--yes"]), (2, "PAYMENT_FILE".into()));
    // What was paid before is known, and so are contacts.
    wallet.json(&["create-account", &forged, "1", "--from", "alice", "--yes", "--confirm-recipient", &forged[58..]]);
    wallet.json(&["send", &forged, "1", "--from", "alice", "--yes"]);
    wallet.json(&["contacts", "add", "not-carol", &forged]);
    wallet.json(&["send", &forged, "1", "--from", "bob", "--yes"]);
}

#[test]
fn new_words_are_shown_once_and_bring_the_key_back() {
    let wallet = Wallet::empty();
    let mut terminal = Terminal::start(&wallet, &["keys", "new", "dave"]);
    terminal
        .expect("New passphrase for key dave: ")
        .types("one\r")
        .expect("The same again: ")
        .types("other\r")
        .ends_with(8);
    let mut terminal = Terminal::start(&wallet, &["keys", "new", "dave"]);
    terminal.expect("New passphrase for key dave: ").types("sesame\r").expect("The same again: ").types("sesame\r");
    terminal.expect("public key").ends_with(0);
    let said = terminal.said();
    let mut words: Vec<(usize, String)> = Vec::new();
    let tokens: Vec<&str> = said.split_whitespace().collect();
    for pair in tokens.windows(2) {
        if let Ok(number @ 1..=24) = pair[0].parse::<usize>()
            && pair[1].bytes().all(|b| b.is_ascii_lowercase())
            && words.len() + 1 == number
        {
            words.push((number, pair[1].to_owned()));
        }
    }
    assert_eq!(words.len(), 24, "{said}");
    let words: Vec<&str> = words.iter().map(|(_, word)| word.as_str()).collect();
    let phrase = words.join(" ");

    let mut terminal = Terminal::start(&wallet, &["keys", "verify-backup", "dave"]);
    terminal.expect("The words, separated by spaces: ").types(&format!("{phrase}\r"));
    terminal.expect("these words bring back dave").ends_with(0);
    assert!(!terminal.said().contains(&phrase), "typed words are not shown");
    let other = format!("{}art", "abandon ".repeat(23));
    let mut terminal = Terminal::start(&wallet, &["keys", "verify-backup", "dave"]);
    terminal.expect("The words, separated by spaces: ").types(&format!("{other}\r")).ends_with(8);
    terminal.expect("these words bring back tally1");

    // Another passphrase: the old one first.
    let mut terminal = Terminal::start(&wallet, &["keys", "passphrase", "dave"]);
    terminal.expect("Passphrase of key dave: ").types("barley\r").ends_with(8);
    let mut terminal = Terminal::start(&wallet, &["keys", "passphrase", "dave"]);
    terminal.expect("Passphrase of key dave: ").types("sesame\r").expect("New passphrase for key dave: ");
    terminal.types("poppy\r").expect("The same again: ").types("poppy\r").ends_with(0);
    let mut terminal = Terminal::start(&wallet, &["keys", "rename", "dave", "david"]);
    terminal.expect("Passphrase of key dave: ").types("poppy\r").ends_with(0);
    // Deleting is asked about.
    let mut terminal = Terminal::start(&wallet, &["keys", "remove", "david"]);
    terminal.expect("what this account holds is lost").expect("Delete the key? [y/N] ").types("n\r").ends_with(8);
    let mut terminal = Terminal::start(&wallet, &["keys", "remove", "david"]);
    terminal.expect("Delete the key? [y/N] ").types("y\r").ends_with(0);
    assert_eq!(wallet.failure(&["keys", "show", "david"]), (8, "KEY_NOT_FOUND".into()));
}
