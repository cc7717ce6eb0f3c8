//! Hundreds of wrong inputs: each ends in the exit code that its kind has, says why in one line of JSON, prints no result, and
//! repeats no secret.
//!
//! `bad_inputs.txt` holds command lines, one after its exit code. What stands in files is in the tables below. The network is
//! pinned to a node that does not exist, so whatever gets past the checks ends in 3, which no line here expects.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{payer::key, wallet::Wallet};

/// A secret, and words: neither may be repeated by any message.
const SECRET: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const WORDS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

fn pinned() -> Wallet {
    let wallet = Wallet::new();
    let genesis = "ab".repeat(32);
    wallet.json(&[
        "network",
        "add",
        "club",
        "--offline",
        "--node",
        "http://127.0.0.1:1",
        "--genesis-hash",
        &genesis,
        "--chain-id",
        "club-abababab",
        "--symbol",
        "TALLY",
        "--decimals",
        "9",
    ]);
    wallet
}

/// Runs a command that must fail with `code`, and looks at everything it says.
fn refused(wallet: &Wallet, arguments: &[&str], code: i32) -> String {
    let output = wallet.command().args(arguments).args(["--output", "json", "--no-input"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {:?}", String::from_utf8_lossy(&output.stdout));
    let last: Value =
        serde_json::from_str(said.lines().last().unwrap()).unwrap_or_else(|e| panic!("{arguments:?}: {e} {said}"));
    assert_eq!(last["exitCode"], code, "{arguments:?}: {said}");
    assert!(!last["message"].as_str().unwrap().is_empty(), "{arguments:?}: {said}");
    assert!(!said.contains(&SECRET[..16]) && !said.contains("sausage"), "{arguments:?} repeats a secret: {said}");
    last["reason"].as_str().unwrap().to_owned()
}

#[test]
fn every_wrong_command_line_is_refused_with_its_code() {
    let wallet = pinned();
    let alice = key(1).public_key().address().to_string();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/bad_inputs.txt");
    let table = fs::read_to_string(table).unwrap();
    let lines: Vec<&str> = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(lines.len() >= 300, "{}", lines.len());
    let mut done = std::collections::BTreeSet::new();
    for line in lines {
        assert!(done.insert(line), "twice: {line}");
        let (code, arguments) = line.split_once(' ').unwrap();
        // Spaces inside an argument are written "_" here, a single one is "\_".
        let argument = |text: &str| {
            let text = text.replace("\\_", "\u{1}").replace('_', " ").replace('\u{1}', "_");
            let text = text.replace("{alice}", &alice).replace("{secret}", SECRET).replace("{words}", WORDS);
            text.replace("{empty}", "").replace("{tab}", "\t").replace("{long}", &"x".repeat(300))
        };
        let arguments: Vec<String> = arguments.split(' ').map(argument).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&wallet, &arguments, code.parse().unwrap());
    }
}

#[test]
fn a_complaint_names_what_is_missing_and_hides_what_the_environment_says() {
    let wallet = pinned();
    let said = |name: &str, value: &str, arguments: &[&str]| {
        let output = wallet.command().args(arguments).env("TALLY_OUTPUT", "json").env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = said("TALLY_YES", "", &["send", "bob"]);
    assert!(missing.contains("<AMOUNT>"), "{missing}");
    for name in ["TALLY_NODE", "TALLY_TIMEOUT", "TALLY_COLOR"] {
        for secret in [SECRET, WORDS] {
            let said = said(name, secret, &["chain", "info"]);
            assert!(!said.contains(&SECRET[..16]) && !said.contains("sausage"), "{name}: {said}");
        }
    }
}

#[test]
fn an_empty_variable_is_none() {
    let wallet = pinned();
    let mut command = wallet.command();
    for name in ["NETWORK", "NODE", "FROM", "OUTPUT", "YES", "TIMEOUT", "COLOR", "CONFIG_DIR", "KEYSTORE_DIR"] {
        let name = format!("TALLY_{name}");
        // The folder is the test's own, and has to be given.
        command.env(&name, if name == "TALLY_CONFIG_DIR" { wallet.path("config") } else { String::new() });
    }
    let output = command.args(["network", "show"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_wrong_file_is_refused_with_its_code() {
    let wallet = pinned();
    let bad = wallet.path("bad");
    let check = |content: &[u8], arguments: &[&str], code| {
        fs::write(&bad, content).unwrap();
        let arguments: Vec<&str> =
            arguments.iter().map(|word| if *word == "{bad}" { bad.as_str() } else { word }).collect();
        refused(&wallet, &arguments, code);
        assert_eq!(fs::read(&bad).unwrap(), content, "{arguments:?} changed the file");
    };
    let long = "x".repeat(5000);
    let long = long.as_bytes();

    for words in ["", "\n", "abandon", "abandon abandon", &"abandon ".repeat(24), &"abandon ".repeat(25), &WORDS[1..]] {
        check(words.as_bytes(), &["keys", "import", "new", "--words-file", "{bad}"], 8);
        check(words.as_bytes(), &["keys", "verify-backup", "alice", "--words-file", "{bad}"], 8);
    }
    check(long, &["keys", "import", "new", "--words-file", "{bad}"], 8);
    check(b"\xff\xfe", &["keys", "import", "new", "--words-file", "{bad}"], 8);
    for secret in ["", "\n", &SECRET[1..], &format!("{SECRET}0"), &format!("0x{SECRET}"), &format!("{SECRET} x"), "zz"]
    {
        // One digit short of 64: what is given here is no key.
        let cut = if secret.len() > 64 { secret.to_owned() } else { secret.chars().take(63).collect() };
        check(cut.as_bytes(), &["keys", "import", "new", "--secret-file", "{bad}"], 8);
    }
    let key_file = fs::read_to_string(wallet.path("config/keys/alice.key")).unwrap();
    for (from, to) in [
        ("tally-key 1", "tally-key 2"),
        ("tally-key 1", "tally-kez 1"),
        ("name alice", "name bob"),
        ("name alice", "name ../x"),
        ("address tally1", "address tally2"),
        ("argon2id", "scrypt"),
        ("memory_kib=65536", "memory_kib=4294967295"),
        ("memory_kib=65536", "memory_kib=0"),
        ("passes=3", "passes=4294967295"),
        ("lanes=4", "lanes=0"),
        ("\nsalt ", "\nsalt 0"),
        ("\nnonce ", "\nnonce 0"),
        ("\nsecret ", "\nsecret 0"),
        ("\nsecret ", "\n"),
        ("\n", "\r\n"),
    ] {
        let content = key_file.replacen(from, to, 1);
        assert_ne!(content, key_file);
        check(content.as_bytes(), &["keys", "import", "new", "--keystore-file", "{bad}"], 8);
    }
    for content in [&b""[..], b"\xff", long, &key_file.as_bytes()[..200]] {
        check(content, &["keys", "import", "new", "--keystore-file", "{bad}"], 8);
    }
    for content in [&b""[..], b"\n", b"\xff", long] {
        check(content, &["keys", "export", "alice", "--secret-file", "out", "--yes", "--passphrase-file", "{bad}"], 8);
    }
    for content in [
        "",
        "{}",
        "[]",
        "null",
        "\"x\"",
        "{\"format\":\"tally-transaction 1\"}",
        "{\"format\":\"tally-transaction 2\",\"chainId\":\"\",\"genesisHash\":\"\",\"body\":\"\",\"signatures\":[]}",
        "{\"format\":\"tally-transaction 1\",\"chainId\":\"\",\"genesisHash\":\"\",\"body\":\"\",\"signatures\":[]}",
        "{\"format\":\"tally-transaction 1\",\"chainId\":\"\",\"genesisHash\":\"\",\"body\":\"\",\"signatures\":[],\"x\":1}",
        &long_transaction(),
    ] {
        for command in [&["tx", "decode", "{bad}"][..], &["tx", "sign", "{bad}", "--yes"], &["tx", "submit", "{bad}"]] {
            check(content.as_bytes(), command, 2);
        }
    }
    for list in [
        "",
        "\n",
        "to\nbob\n",
        "amount,to\n1,bob\n",
        "to,amount\n",
        "To,Amount\nbob,1\n",
        "to,amount,memo\nbob,1,x\n",
        "to;amount\nbob;1\n",
        "to,amount\nbob\n",
        "to,amount\nbob,1,2\n",
        "to,amount\nbob,\n",
        "to,amount\nbob,0\n",
        "to,amount\nbob,-1\n",
        "to,amount\nbob,+1\n",
        "to,amount\nbob,1e3\n",
        "to,amount\nbob,\"1,5\"\n",
        "to,amount\nbob,1.0000000001\n",
        "to,amount\nbob,99999999999999999999\n",
        "to,amount\nbob,all\n",
        "to,amount\n,1\n",
        "to,amount\nnobody,1\n",
        "to,amount\nBOB,1\n",
        "to,amount\ntally1,1\n",
        "to,amount\nbob,1\nbob,x\n",
        &format!("to,amount\n{SECRET},1\n"),
        &format!("to,amount\n{WORDS},1\n"),
        &format!("to,amount\n{}", "bob,1\n".repeat(10_001)),
    ] {
        check(list.as_bytes(), &["pay", "{bad}", "--from", "alice", "--yes"], 2);
    }
    check(b"to,amount\nbob,\xff\n", &["pay", "{bad}", "--from", "alice", "--yes"], 2);

    let (config, contacts) = (wallet.path("config/config.toml"), wallet.path("config/contacts.toml"));
    let good = fs::read_to_string(&config).unwrap();
    for (from, to) in [
        ("network = ", "netwrok = "),
        ("network = \"club\"", "network = 1"),
        ("network = \"club\"", "network = \"other\""),
        ("http://", "https://"),
        ("http://", ""),
        ("abababab\"", "abababac\""),
        ("abab\"\nsymbol", "aba\"\nsymbol"),
        ("\"TALLY\"", "\"tally\""),
        ("\"TALLY\"", "\"\""),
        ("decimals = 9", "decimals = 19"),
        ("decimals = 9", "decimals = -1"),
        ("decimals = 9", "decimals = 9\ntls = true"),
        ("decimals = 9", "decimals = 9\n[panels.club]\ntotal_stake = 1\nnodes = []"),
        ("decimals = 9", "decimals = 9\n[panels.other]\ntotal_stake = 1\nnodes = []"),
        ("[networks.club]", "[networks.Club]"),
        ("[networks.club]", "[networks.club"),
    ] {
        let content = good.replacen(from, to, 1);
        assert_ne!(content, good, "{from}");
        fs::write(&config, &content).unwrap();
        assert_eq!(refused(&wallet, &["network", "list"], 2), "CONFIG", "{to}");
        assert_eq!(fs::read_to_string(&config).unwrap(), content);
    }
    fs::write(&config, &good).unwrap();
    for content in [
        "[contact]\n",
        "contacts = 1\n",
        "[contacts]\nbob = 1\n",
        "[contacts]\nbob = \"tally1\"\n",
        "[contacts]\n-b = \"\"\n",
    ] {
        fs::write(&contacts, content).unwrap();
        assert_eq!(refused(&wallet, &["contacts", "list"], 2), "CONFIG", "{content}");
    }
}

/// Longer than any transaction file.
fn long_transaction() -> String {
    format!("{{\"format\":\"{}\"}}", "x".repeat(17 * 1024))
}
