//! Once a payment is signed, neither the key nor its passphrase is anywhere in the wallet's memory.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    process::{Command, Stdio},
};

use sha2::{Digest as _, Sha512};

use crate::{network::Network, payer::key, wallet::Wallet};

const PASSPHRASE: &str = "correct horse";

/// Everything that a process can write to: heap, stacks, data.
fn memory(process: u32) -> Vec<(String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (first, last) = range.split_once('-').unwrap();
        let (first, last) = (u64::from_str_radix(first, 16).unwrap(), u64::from_str_radix(last, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(last - first).unwrap()];
        memory.seek(SeekFrom::Start(first)).unwrap();
        if memory.read_exact(&mut bytes).is_ok() {
            found.push((line.to_owned(), bytes));
        }
    }
    found
}

fn places(memory: &[(String, Vec<u8>)], wanted: &[u8]) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    memory.iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_payment_leaves_no_secret_in_memory() {
    let network = Network::without_quorum().await;
    let wallet = Wallet::of(&network);
    let passphrase = wallet.write("passphrase", format!("{PASSPHRASE}\n"));
    let mut command = wallet.command();
    command.env_remove("TALLY_PASSPHRASE").args(["send", "bob", "1", "--from", "alice", "--memo", "found in memory"]);
    command.args(["--yes", "--passphrase-file", &passphrase, "--no-input", "--timeout", "60s"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // It is signed and sent, and now waits for a quorum that is not there.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    said.find(|line| line.as_ref().unwrap().contains("waiting until it is final")).unwrap().unwrap();
    let memory = memory(child.id());
    child.kill().unwrap();
    child.wait().unwrap();

    let secret = key(1);
    let seed = secret.seed();
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let expanded = Sha512::digest(seed);
    let mut scalar = [0; 32];
    scalar.copy_from_slice(&expanded[..32]);
    scalar[0] &= 248;
    scalar[31] = scalar[31] & 63 | 64;
    assert!(!places(&memory, b"found in memory").is_empty(), "what is looked for is found");
    let secrets = [
        ("the seed", &seed[..]),
        ("its digits", hex.as_bytes()),
        ("the scalar", &scalar),
        ("the other half", &expanded[32..]),
        ("the passphrase", PASSPHRASE.as_bytes()),
    ];
    let found = secrets.map(|(what, secret)| (what, places(&memory, secret)));
    assert!(found.iter().all(|(_, places)| places.is_empty()), "{found:#?}");
}

/// A key that takes more memory to open than there is: a word, and the key as it was.
#[test]
fn a_key_that_takes_more_memory_than_there_is_stays_as_it_is() {
    let wallet = Wallet::new();
    let before = fs::read(wallet.folder().join("config/keys/alice.key")).unwrap();
    let command = wallet.command();
    let program = command.get_program().to_str().unwrap().to_owned();
    let rename = format!("ulimit -v 60000; exec '{program}' keys rename alice carol");
    let mut limited = Command::new("sh");
    limited.args(["-c", &rename]).current_dir(wallet.folder()).stdin(Stdio::null()).stderr(Stdio::piped());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("takes 65536 KiB of memory to open"), "{said}");
    assert_eq!(fs::read(wallet.folder().join("config/keys/alice.key")).unwrap(), before);
}
