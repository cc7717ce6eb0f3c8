//! `doctor`: what is wrong with this wallet, its files and its nodes, and what to do about each.
//!
//! It changes nothing and opens no key. Every check is made although an earlier one failed, unless it needs what that one
//! looked for. The exit code is that of the first thing that is wrong.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tally_proto::v1::SyncState;

use super::{Chosen, Context, config_folder, keystore_folder, rows};
use crate::{
    cli::Globals,
    client::{Client, time},
    config::{self, Config},
    contacts::Contacts,
    error::{Exit, WalletError},
    interrupt::Interrupts,
    keystore::Keystore,
    origin::Origins,
    output::{Output, clean},
    prompt::{PASSPHRASE_ENV, Prompt},
};

/// A clock that differs by more than this from a fresh block's time is called wrong.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// What the checks found.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
}

struct Finding {
    check: String,
    what: String,
    /// What to do; none when all is well.
    next: Option<String>,
    /// The exit code, when it is wrong and not only worth knowing.
    exit: Option<Exit>,
}

impl Findings {
    fn good(&mut self, check: &str, what: impl Into<String>) {
        self.list.push(Finding { check: check.into(), what: what.into(), next: None, exit: None });
    }

    fn note(&mut self, check: &str, what: impl Into<String>, next: impl Into<String>) {
        self.list.push(Finding { check: check.into(), what: what.into(), next: Some(next.into()), exit: None });
    }

    fn wrong(&mut self, check: &str, error: &WalletError) {
        let next = Some(error.next_step()).filter(|next| !next.is_empty());
        self.list.push(Finding { check: check.into(), what: error.to_string(), next, exit: Some(error.exit()) });
    }

    fn bad(&mut self, check: &str, what: impl Into<String>, next: impl Into<String>, exit: Exit) {
        self.list.push(Finding { check: check.into(), what: what.into(), next: Some(next.into()), exit: Some(exit) });
    }
}

/// Makes every check, and shows what they found.
pub async fn run(
    globals: Globals,
    origins: Origins,
    output: Output,
    interrupts: Interrupts,
) -> Result<(), WalletError> {
    let mut findings = Findings::default();
    match config_folder(&globals) {
        Err(error) => findings.wrong("configuration", &error),
        Ok(folder) => {
            let keys = keystore_folder(&globals, &folder);
            check_secrecy(&mut findings, "key folder", &keys);
            let keystore = Keystore::open(keys);
            check_keys(&mut findings, &keystore);
            check_passphrase(&mut findings);
            let config = load(&mut findings, "configuration", config::FILE_NAME, &folder, Config::load);
            let contacts = load(&mut findings, "contacts", crate::contacts::FILE_NAME, &folder, Contacts::load);
            if let (Some(config), Some(contacts)) = (config, contacts) {
                let prompt = Prompt::new(globals.no_input);
                let context = Context {
                    globals,
                    origins,
                    output,
                    interrupts,
                    prompt,
                    config_folder: folder,
                    config,
                    contacts,
                    keystore,
                };
                check_network(&mut findings, &context).await;
            }
        }
    }
    report(output, &findings)
}

fn load<T>(
    findings: &mut Findings,
    check: &str,
    name: &str,
    folder: &Path,
    load: impl Fn(&Path) -> Result<T, config::ConfigError>,
) -> Option<T> {
    let file = folder.join(name);
    match load(folder) {
        Ok(loaded) if file.exists() => {
            findings.good(check, file.display().to_string());
            Some(loaded)
        }
        Ok(loaded) => {
            findings.good(check, format!("{} does not exist yet", file.display()));
            Some(loaded)
        }
        Err(error) => {
            findings.wrong(check, &error.into());
            None
        }
    }
}

/// Others on this machine must not read what is in `path`.
fn check_secrecy(findings: &mut Findings, check: &str, path: &Path) {
    let Ok(metadata) = fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let fix = if metadata.is_dir() { "700" } else { "600" };
        findings.bad(
            check,
            format!("{} can be opened by other users of this machine (mode {mode:o})", path.display()),
            format!("chmod {fix} {}", crate::client::trace::quoted_if_odd(&path.display().to_string())),
            Exit::Key,
        );
    }
}

fn check_keys(findings: &mut Findings, keystore: &Keystore) {
    let keys = match keystore.list() {
        Ok(keys) => keys,
        Err(error) => return findings.wrong("keys", &error.into()),
    };
    let mut names = Vec::new();
    for key in keys {
        match key {
            Ok(key) => {
                check_secrecy(findings, "key file", &key.file);
                if key.kdf.memory_kib < crate::keystore::KdfParams::RECOMMENDED.memory_kib {
                    findings.note(
                        "key file",
                        format!("{} is encrypted too cheaply ({}) to resist guessing", key.name, key.kdf),
                        format!("tally-wallet keys passphrase {} makes it costly", key.name),
                    );
                }
                names.push(key.name.to_string());
            }
            Err(error) => findings.wrong("key file", &error.into()),
        }
    }
    match names.is_empty() {
        true => findings.note("keys", "there is no key yet", "make one: tally-wallet keys new NAME"),
        false => findings.good("keys", names.join(", ")),
    }
}

fn check_passphrase(findings: &mut Findings) {
    if std::env::var_os(PASSPHRASE_ENV).is_some() {
        let what = format!("{PASSPHRASE_ENV} is set: every program that you start can read it");
        findings.note("passphrase", what, "use --passphrase-file, or type it, where tokens matter");
    }
}

async fn check_network(findings: &mut Findings, context: &Context) {
    let chosen = match context.chosen() {
        Ok(chosen) => chosen,
        Err(error) => return findings.wrong("network", &error),
    };
    match &chosen.pinned {
        Some((name, network)) => findings.good("network", format!("{name}, pinned to {}", network.chain_id)),
        None => findings.note(
            "network",
            "no network is chosen, so nothing pins the node's chain",
            "tally-wallet network add NAME --node URL",
        ),
    }
    let mut reached = 0;
    for url in &chosen.urls {
        reached += usize::from(check_node(findings, context, &chosen, url).await);
    }
    if reached == 0 {
        return;
    }
    // Together: whether they agree, and whether the sender has an account.
    match context.connect().await {
        Err(error) => findings.wrong("nodes", &error),
        Ok(session) => {
            if chosen.urls.len() > 1 {
                findings.good("nodes", format!("{} agree", session.nodes.name()));
            }
            let Ok(payer) = context.payer() else { return };
            match session.nodes.account(&payer.address, &session.chain.token).await {
                Ok((account, _)) => {
                    let balance = session.chain.token.show(tally_types::Amount(account.balance));
                    findings.good("account", format!("{} has {balance}", payer.describe()));
                }
                Err(error) if error.exit == Exit::NotFound => findings.note(
                    "account",
                    format!("{} has no account on this chain yet", payer.describe()),
                    "tally-wallet receive prints the command that somebody else runs to open it",
                ),
                Err(error) => findings.wrong("account", &error.into()),
            }
        }
    }
}

/// Looks at one node; true when it is on the right chain.
async fn check_node(findings: &mut Findings, context: &Context, chosen: &Chosen, url: &str) -> bool {
    let check = format!("node {}", clean(url));
    let client = match Client::connect(url, context.globals.timeout, context.trace()).await {
        Ok(client) => client,
        Err(error) => {
            findings.wrong(&check, &error);
            return false;
        }
    };
    let pinned = chosen.pinned.as_ref().map(|(name, network)| (name.as_str(), network));
    let chain = match client.chain(pinned).await {
        Ok(chain) => chain,
        Err(error) => {
            findings.wrong(&check, &error);
            return false;
        }
    };
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => {
            findings.wrong(&check, &error.into());
            return true;
        }
    };
    let height = format!("height {}", status.latest_height);
    let other = "ask another node with --node URL, or wait";
    match status.sync_state() {
        SyncState::Synced => findings.good(&check, format!("version {}, at {height}", clean(&status.version))),
        SyncState::CatchingUp => findings.bad(
            &check,
            format!("is still catching up: it is at {height}, the chain at {}", status.highest_seen_height),
            other,
            Exit::Unreachable,
        ),
        SyncState::Stalled => findings.bad(
            &check,
            format!("sees no new blocks above {height}: more than a third of the stake may be down"),
            other,
            Exit::Unreachable,
        ),
        SyncState::Unspecified => findings.note(&check, "does not say whether it is up to date", other),
    }
    // Only a fresh block says something about this machine's clock.
    if status.sync_state() == SyncState::Synced
        && let Some(block_time) = status.latest_block_time.and_then(time)
    {
        let idle = chain.info.params.as_ref().and_then(|params| params.idle_interval);
        let idle = idle.and_then(|idle| Duration::try_from(idle).ok()).unwrap_or_default();
        check_clock(findings, SystemTime::now(), block_time, idle);
    }
    true
}

fn check_clock(findings: &mut Findings, now: SystemTime, block_time: SystemTime, idle: Duration) {
    let (skew, direction) = match now.duration_since(block_time) {
        // An idle chain's latest block is as old as the interval.
        Ok(behind) => (behind.saturating_sub(idle.saturating_mul(2)), "ahead of"),
        Err(ahead) => (ahead.duration(), "behind"),
    };
    if skew > CLOCK_SKEW_MAX {
        let skew = humantime::format_duration(Duration::from_secs(skew.as_secs()));
        findings.bad(
            "clock",
            format!("this machine's clock is {skew} {direction} the chain's"),
            "set it right: transactions may expire at once or be refused",
            Exit::Usage,
        );
    }
}

fn report(output: Output, findings: &Findings) -> Result<(), WalletError> {
    let mut lines = Vec::new();
    let mut json = Vec::new();
    for Finding { check, what, next, exit } in &findings.list {
        // What is said of a node begins with its URL, which the check names already.
        let what = check.strip_prefix("node ").and_then(|url| what.strip_prefix(url)).map_or(what.as_str(), str::trim);
        let status = match (exit, next) {
            (Some(_), _) => "wrong",
            (None, Some(_)) => "note",
            (None, None) => "good",
        };
        lines.push((status, format!("{check}: {what}")));
        lines.extend(next.iter().map(|next| ("", format!("→ {next}"))));
        let next = next.as_ref().map_or(Value::Null, |next| next.clone().into());
        json.push(json!({ "check": check, "status": status, "what": what, "nextStep": next }));
    }
    output.result(&rows(&lines), &json!({ "checks": json }))?;
    let wrong: Vec<Exit> = findings.list.iter().filter_map(|finding| finding.exit).collect();
    match wrong.first() {
        Some(first) => Err(WalletError::Unwell(wrong.len(), *first)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told_from_an_idle_chain() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let wrong = |now, block| {
            let mut findings = Findings::default();
            check_clock(&mut findings, at(now), at(block), Duration::from_secs(10));
            findings.list.pop().map(|finding| finding.what)
        };
        assert_eq!(wrong(1000, 1000), None);
        assert_eq!(wrong(1080, 1000), None, "two idle intervals and a minute");
        assert_eq!(wrong(1081, 1000).unwrap(), "this machine's clock is 1m 1s ahead of the chain's");
        assert_eq!(wrong(1000, 1061).unwrap(), "this machine's clock is 1m 1s behind the chain's");
    }
}
