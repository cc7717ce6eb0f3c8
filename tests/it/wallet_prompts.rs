//! What a person is asked, and what a person sees, in a pseudo-terminal.

use std::{fs, path::Path, process::Stdio};

use pty_process::blocking::Command;

use crate::{
    network::{FUNDS, Network, Plan},
    payer::Payer,
    terminal::Terminal,
    wallet::Wallet,
};

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
        let address = tally_types::SecretKey::from_seed(&seed).public_key().address().to_string();
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
    // Given where nobody would have asked, it is meant all the same.
    let known = ["send", "bob", "1", "--from", "alice", "--yes", "--confirm-recipient", "abcdef"];
    assert_eq!(wallet.failure(&known), (8, "RECIPIENT_NOT_CONFIRMED".into()));
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

/// What nobody agreed to is not done: every question of the wallet, answered with no, with the end of input, and with yes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_asked_and_the_end_of_input_is_no() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let erin = Payer::new(60, &network.genesis.chain).name();
    let list = wallet.write("list.csv", "to,amount\nbob,1\nbob,2\n");
    let (built, signed, bare) = (wallet.path("built"), wallet.path("signed"), wallet.path("bare"));
    wallet.json(&["send", "bob", "1", "--from", "alice", "--build-only", "--out", &built]);
    let config = || fs::read_to_string(wallet.path("config/config.toml")).unwrap();
    let before = config();
    // What is asked, whether a passphrase is asked for then, and what is shown before and after.
    let questions: [(&[&str], &str, bool, &str, &str); 5] = [
        (
            &["create-account", &erin, "5", "--from", "alice"],
            "Open the account? [y/N] ",
            true,
            &erin,
            "final according",
        ),
        (&["pay", &list, "--from", "alice"], "Pay all of them? [y/N] ", true, "2 lines in 1 transaction", "2/2 lines"),
        (&["tx", "sign", &built, "--out", &signed], "Sign? [y/N] ", true, "1 TALLY", "signed"),
        (
            &["keys", "export", "bob", "--secret-file", &bare],
            "Write the bare secret? [y/N] ",
            true,
            "all tokens of bob",
            "bob",
        ),
        (
            &["network", "remove", "it"],
            "Forget this network and what it is pinned to? [y/N] ",
            false,
            "it: ",
            "forgot it",
        ),
    ];
    for (arguments, question, _, shown, _) in questions {
        for answer in ["n\r", "\u{4}"] {
            let mut terminal = Terminal::start(&wallet, arguments);
            terminal.expect(question);
            assert!(terminal.said().contains(shown), "{arguments:?}: {}", terminal.said());
            terminal.types(answer).expect("nothing was changed, signed or sent").ends_with(8);
        }
    }
    // A yes without a passphrase is no yes either.
    for (arguments, question, secret, ..) in questions {
        if secret {
            let mut terminal = Terminal::start(&wallet, arguments);
            terminal.expect(question).types("y\r").expect("Passphrase of key").types("\u{4}").ends_with(8);
            terminal.expect("the passphrase is empty");
        }
    }
    let [alice, bob, _] = network.people();
    let balance = async |name: &str| network.nodes[0].account(name).await.map(|account| account.balance).ok();
    assert_eq!((balance(&bob.name()).await, balance(&erin).await), (Some(FUNDS), None));
    assert_eq!(balance(&alice.name()).await, Some(FUNDS));
    assert!(!Path::new(&signed).exists() && !Path::new(&bare).exists());
    assert_eq!(config(), before);

    for (arguments, question, secret, _, done) in questions {
        let mut terminal = Terminal::start(&wallet, arguments);
        terminal.expect(question).types("y\r");
        if secret {
            terminal.expect("Passphrase of key").types("correct horse\r");
        }
        terminal.expect(done).ends_with(0);
        assert!(!terminal.said().contains("correct horse"), "{}", terminal.said());
    }
    assert_eq!((balance(&bob.name()).await, balance(&erin).await), (Some(FUNDS + 3_000_000_000), Some(5_000_000_000)));
    assert!(Path::new(&signed).exists() && Path::new(&bare).exists());
    assert_ne!(config(), before);
}

#[test]
fn secrets_are_typed_unseen_and_the_end_of_input_is_none() {
    let wallet = Wallet::empty();
    let phrase = format!("{}art", "abandon ".repeat(23));
    let import = ["keys", "import", "frank"];
    let words = "The words, separated by spaces: ";
    for (typed, said) in [("\u{4}", "the words is empty"), ("\r", "the words is empty"), ("abandon art\r", "12")] {
        let mut terminal = Terminal::start(&wallet, &import);
        terminal.expect(words).types(typed).expect(said).ends_with(8);
    }
    let mut terminal = Terminal::start(&wallet, &import);
    terminal.expect(words).types(&format!("{phrase}\r")).expect("New passphrase for key frank: ");
    terminal.types("\u{4}").expect("the passphrase is empty").ends_with(8);
    let mut terminal = Terminal::start(&wallet, &import);
    terminal.expect(words).types(&format!("{phrase}\r")).expect("New passphrase for key frank: ");
    terminal.types("sesame\r").expect("The same again: ").types("\u{4}").expect("the passphrase is empty").ends_with(8);
    assert_eq!(wallet.failure(&["keys", "show", "frank"]), (8, "KEY_NOT_FOUND".into()));

    let mut terminal = Terminal::start(&wallet, &import);
    terminal.expect(words).types(&format!("{phrase}\r")).expect("New passphrase for key frank: ");
    terminal.types("sesame\r").expect("The same again: ").types("sesame\r").expect("tally1").ends_with(0);
    let said = terminal.said();
    assert!(!said.contains("abandon") && !said.contains("sesame"), "{said}");
    // Who types before the question is on the screen, which Ctrl-S holds back here: nothing of it is shown, and Ctrl-C counts.
    let mut terminal = Terminal::start(&wallet, &["keys", "new", "gina"]);
    terminal.types("\u{13}").expect_echo(false).types("barley\u{3}\u{11}").ends_with(130);
    let said = terminal.said();
    assert!(said.contains("New passphrase for key gina: ") && !said.contains("barley"), "{said}");
    // Interrupted or ended, the old passphrase still opens the key.
    for typed in ["\u{4}", "\u{3}"] {
        let mut terminal = Terminal::start(&wallet, &["keys", "passphrase", "frank"]);
        terminal.expect("Passphrase of key frank: ").types("sesame\r").expect("New passphrase for key frank: ");
        terminal.types(typed).ends_with(if typed == "\u{3}" { 130 } else { 8 });
    }
    let mut terminal = Terminal::start(&wallet, &["keys", "rename", "frank", "franz"]);
    terminal.expect("Passphrase of key frank: ").types("sesame\r").ends_with(0);
}

/// Half a terminal is none: somebody who cannot see a question cannot answer it, nor somebody who cannot type.
#[test]
fn with_one_terminal_of_two_nothing_is_asked() {
    let wallet = Wallet::new();
    for arguments in [&["keys", "remove", "bob"][..], &["keys", "new", "carl"]] {
        let mut deaf = Terminal::start_with(&wallet, arguments, |command| command.stdin(Stdio::null()));
        deaf.expect("there is no terminal to ask on").ends_with(8);
        let said = wallet.path("said");
        let stderr = fs::File::create(&said).unwrap();
        let mut blind = Terminal::start_with(&wallet, arguments, |command| command.stderr(stderr));
        blind.ends_with(8);
        let said = fs::read_to_string(said).unwrap();
        assert!(said.contains("there is no terminal to ask on"), "{said}");
        // A result that goes elsewhere is no reason not to ask.
        let mut piped = Terminal::start_with(&wallet, arguments, |command| command.stdout(Stdio::null()));
        piped.expect(if arguments[1] == "new" { "New passphrase" } else { "[y/N] " }).types("\u{4}").ends_with(8);
    }
}

/// One line, written over and over, for people alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_shown_on_a_terminal_and_nowhere_else() {
    let network = Network::start(Plan::of(1)).await;
    let wallet = Wallet::of(&network);
    let list = |name: &str| wallet.write(name, "to,amount\nbob,1\nbob,2\nbob,3\nbob,4\n");
    let pay = |list: &str| {
        let words = ["pay", list, "--from", "alice", "--yes", "--per-transaction", "1"];
        words.map(str::to_owned).to_vec()
    };
    let with_passphrase = |command: Command| command.env("TALLY_PASSPHRASE", "correct horse");
    let on_terminal = |list: &str, more: &[&str]| {
        let arguments = pay(list);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut terminal = Terminal::start_with(&wallet, &arguments, with_passphrase);
        terminal.ends_with(0);
        terminal.said()
    };
    let said = on_terminal(&list("seen"), &[]);
    let bar = |filled: usize| format!("\r[{}{}] ", "#".repeat(filled), "-".repeat(40 - filled));
    for (filled, count) in [(0, "0/4 lines"), (10, "1/4 lines"), (20, "2/4 lines"), (40, "4/4 lines")] {
        assert!(said.contains(&format!("{}{count}", bar(filled))), "{count}: {said:?}");
    }
    let quiet = on_terminal(&list("quiet"), &["--quiet"]);
    assert!(!quiet.contains("lines\r") && !quiet.contains("[#"), "{quiet:?}");
    let json = on_terminal(&list("json"), &["--output", "json"]);
    assert!(!json.contains("[#"), "{json:?}");
    let output = wallet.command().args(pay(&list("piped"))).output().unwrap();
    let piped = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !piped.contains('\r') && !piped.contains("[#"), "{piped:?}");
    assert_eq!(wallet.balance("bob"), FUNDS + 4 * 10_000_000_000);
}

#[test]
fn colour_is_for_terminals_unless_somebody_says_otherwise() {
    let wallet = Wallet::empty();
    let red = "\u{1b}[1;31merror:\u{1b}[0m";
    let on_terminal = |more: &[&str], change: fn(Command) -> Command| {
        let arguments = [&["keys", "show", "nobody"][..], more].concat();
        let mut terminal = Terminal::start_with(&wallet, &arguments, |command| change(command.env_remove("NO_COLOR")));
        terminal.ends_with(8);
        terminal.said().contains(red)
    };
    let piped = |more: &[&str]| {
        let mut command = wallet.command();
        let output = command.args(["keys", "show", "nobody"]).args(more).env_remove("NO_COLOR").output().unwrap();
        String::from_utf8(output.stderr).unwrap().contains(red)
    };
    let plain = |command| command;
    assert!(on_terminal(&[], plain));
    assert!(!on_terminal(&[], |command| command.env("NO_COLOR", "1")));
    assert!(on_terminal(&[], |command| command.env("NO_COLOR", "")), "https://no-color.org: not when it is empty");
    assert!(on_terminal(&["--color", "always"], |command| command.env("NO_COLOR", "1")), "a flag is nearer");
    assert!(!on_terminal(&["--color", "never"], plain));
    assert!(!on_terminal(&["--output", "json"], plain));
    assert!(!piped(&[]));
    assert!(piped(&["--color", "always"]));
    assert!(!piped(&["--color", "never"]));
}
