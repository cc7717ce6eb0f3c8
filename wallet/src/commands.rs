//! One file per group of commands, and what they share: configuration, keystore, the chosen network and sender.

mod account;
mod chain;
mod keys;
mod network;
mod pay;
mod transaction;
mod watch;

use std::path::PathBuf;

use tally_types::Address;

use crate::{
    cli::{ChainCommand, Cli, Command, Globals},
    client::{ChainView, Client},
    config::{Config, Network},
    error::{UsageError, WalletError},
    keystore::{KeyInfo, Keystore},
    output::Output,
    prompt::Prompt,
    target,
};

/// What every command works with.
struct Context {
    globals: Globals,
    output: Output,
    prompt: Prompt,
    config_folder: PathBuf,
    config: Config,
    keystore: Keystore,
}

/// The network a command speaks to.
#[derive(Clone, Debug)]
struct Chosen {
    /// Its name and its pin; none when only `--node` was given.
    pinned: Option<(String, Network)>,
    /// Node to ask.
    node: String,
}

/// Carries out a command.
pub async fn run(cli: Cli, output: Output) -> Result<(), WalletError> {
    let context = Context::new(cli.globals, output)?;
    match cli.command {
        Command::Keys(command) => keys::run(&context, command),
        Command::Network(command) => network::run(context, command).await,
        Command::Balance { account } => account::balance(&context, account.as_deref()).await,
        Command::Send { to, amount, pay } => {
            pay::run(&context, pay::Order { kind: pay::Kind::Transfer, to, amount, args: pay }).await
        }
        Command::CreateAccount { new, amount, pay } => {
            pay::run(&context, pay::Order { kind: pay::Kind::CreateAccount, to: new, amount, args: pay }).await
        }
        Command::History { account, limit } => account::history(&context, account.as_deref(), limit).await,
        Command::Tx(command) => transaction::run(&context, command).await,
        Command::Chain(ChainCommand::Info) => chain::info(&context).await,
    }
}

impl Context {
    fn new(globals: Globals, output: Output) -> Result<Context, WalletError> {
        let config_folder = match &globals.config_dir {
            Some(folder) => folder.clone(),
            None => default_config_folder(|name| {
                std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
            })
            .ok_or(UsageError::NoConfigFolder)?,
        };
        let keystore_folder = globals.keystore_dir.clone().unwrap_or_else(|| config_folder.join("keys"));
        Ok(Context {
            output,
            prompt: Prompt::new(globals.no_input),
            config: Config::load(&config_folder)?,
            keystore: Keystore::open(keystore_folder),
            config_folder,
            globals,
        })
    }

    fn chosen(&self) -> Result<Chosen, WalletError> {
        let node = self.globals.node.clone();
        match (self.globals.network.as_ref().or(self.config.network.as_ref()), node) {
            (Some(name), node) => {
                let network = self.config.network(name)?;
                let node = node.unwrap_or_else(|| network.node.clone());
                Ok(Chosen { pinned: Some((name.clone(), network.clone())), node })
            }
            (None, Some(node)) => Ok(Chosen { pinned: None, node }),
            (None, None) => Err(UsageError::NoNetwork.into()),
        }
    }

    /// Connects to the chosen node and refuses another chain than the pinned one.
    async fn connect(&self) -> Result<(Chosen, Client, ChainView), WalletError> {
        let chosen = self.chosen()?;
        let client = Client::connect(&chosen.node, self.globals.timeout).await?;
        let chain = client.chain(chosen.pinned.as_ref().map(|(name, network)| (name.as_str(), network))).await?;
        if chosen.pinned.is_none() {
            self.output.warning("no network is chosen, so the node's chain is not checked against a pinned one");
        }
        Ok((chosen, client, chain))
    }

    /// The key that pays: `--from`, or the configured one, or the only one.
    fn sender(&self) -> Result<KeyInfo, WalletError> {
        if let Some(name) = self.globals.from.as_ref().or(self.config.from.as_ref()) {
            refuse_secret(name)?;
            return Ok(self.keystore.find(name)?);
        }
        let mut keys = self.keystore.list()?;
        match (keys.len(), keys.pop()) {
            (1, Some(key)) => Ok(key?),
            (count, _) => Err(UsageError::NoSender(count).into()),
        }
    }

    /// The account that `text` names; without a text, the sender's.
    fn account(&self, text: Option<&str>) -> Result<Address, WalletError> {
        match text {
            Some(text) => Ok(target::resolve(text, &self.keystore)?),
            None => Ok(self.sender()?.address),
        }
    }

    /// The command that waits for a transaction, with the flags that lead to the same node.
    fn wait_command(&self, id: &tally_types::Hash) -> String {
        let mut command = format!("tally-wallet tx wait {id}");
        for (flag, value) in [("--network", &self.globals.network), ("--node", &self.globals.node)] {
            if let Some(value) = value {
                command = format!("{command} {flag} {value}");
            }
        }
        command
    }
}

/// Refuses a secret where a name belongs, before any message repeats it.
fn refuse_secret(name: &str) -> Result<(), WalletError> {
    match target::secret_kind(name) {
        Some(kind) => Err(UsageError::Secret(kind).into()),
        None => Ok(()),
    }
}

fn default_config_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG specification: a relative path counts as unset.
    let xdg = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    xdg.or_else(|| variable("HOME").map(|home| home.join(".config"))).map(|folder| folder.join("tally"))
}

/// Lines of "name  value", the values one below the other.
fn rows(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_configuration_is_where_xdg_says() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            default_config_folder(|name| if name == "HOME" { home } else { xdg }.map(PathBuf::from))
        };
        assert_eq!(with(Some("/x"), Some("/h")).as_deref(), Some(Path::new("/x/tally")));
        assert_eq!(with(Some("x"), Some("/h")).as_deref(), Some(Path::new("/h/.config/tally")));
        assert_eq!(with(None, Some("/h")).as_deref(), Some(Path::new("/h/.config/tally")));
        assert_eq!(with(None, None), None);
    }
}
