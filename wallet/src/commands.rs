//! One file per group of commands, and what they share: configuration, keystore, the chosen network and sender.

mod account;
mod batch;
mod chain;
mod contacts;
mod deliver;
mod doctor;
mod files;
mod follow;
mod history;
mod keys;
mod message;
mod network;
mod outcome;
mod pay;
mod plan;
mod receive;
mod settings;
mod shell;
mod transaction;

use std::path::PathBuf;

use tally_types::{Address, Hash, genesis::Chain};

use crate::{
    cli::{Cli, Command, Globals, groups::ConfigCommand},
    client::{
        ChainView, Nodes, Trace,
        nodes::{NODES_MAX, Way},
        trace::quoted_if_odd,
    },
    config::{Config, Network},
    contacts::Contacts,
    error::{FileError, UsageError, WalletError},
    files::lock_folder,
    interrupt::Interrupts,
    keystore::{KeyInfo, Keystore},
    origin::{Origin, Origins},
    output::Output,
    prompt::Prompt,
    target::{self, Book, Target},
    token::Token,
};

/// What every command works with.
struct Context {
    globals: Globals,
    interrupts: Interrupts,
    origins: Origins,
    output: Output,
    prompt: Prompt,
    config_folder: PathBuf,
    config: Config,
    contacts: Contacts,
    keystore: Keystore,
}

/// The network a command speaks to.
#[derive(Clone, Debug)]
struct Chosen {
    /// Its name and its pin; none when only `--node` was given.
    pinned: Option<(String, Network)>,
    /// Nodes to ask, at least one.
    urls: Vec<String>,
}

/// A connection to the chosen network, whose chain is the pinned one.
struct Session {
    chosen: Chosen,
    nodes: Nodes,
    chain: ChainView,
}

/// Carries out a command.
pub async fn run(cli: Cli, origins: Origins, output: Output, interrupts: Interrupts) -> Result<(), WalletError> {
    // These two need no configuration, so that they work where there is none.
    match &cli.command {
        Command::Completions { shell } => return shell::completions(output, *shell),
        Command::Man { out_dir } => return shell::man(output, out_dir.as_deref()),
        // What is wrong with the configuration must not keep it from being said.
        Command::Doctor => return doctor::run(cli.globals, origins, output, interrupts).await,
        _ => {}
    }
    let _lock = lock(&cli)?;
    let context = Context::new(cli.globals, origins, output, interrupts)?;
    match cli.command {
        Command::Keys(command) => keys::run(&context, command).await,
        Command::Network(command) => network::run(context, command).await,
        Command::Contacts(command) => contacts::run(&context, command),
        Command::Receive { amount } => receive::run(&context, amount.as_deref()).await,
        Command::Balance { account: None, all: true } => account::all(&context).await,
        Command::Balance { account, all: _ } => account::balance(&context, account.as_deref()).await,
        Command::Send { to, amount, create_if_missing, pay } => {
            let kind = if create_if_missing { plan::Kind::EitherWay } else { plan::Kind::Transfer };
            pay::run(&context, plan::Order { kind, to, amount, args: pay }).await
        }
        Command::CreateAccount { new, amount, pay } => {
            pay::run(&context, plan::Order { kind: plan::Kind::CreateAccount, to: new, amount, args: pay }).await
        }
        Command::Pay { pay } => batch::run(&context, pay).await,
        Command::History { account, limit, all, follow, csv } => {
            let limit = if all { history::ALL_MAX } else { limit };
            history::run(&context, account.as_deref(), history::Options { limit, follow, csv }).await
        }
        Command::Watch { account, count } => follow::watch(&context, account.as_deref(), count).await,
        Command::Tx(command) => transaction::run(&context, command).await,
        Command::Message(command) => message::run(&context, command),
        Command::Chain(command) => chain::run(&context, command).await,
        Command::Config(ConfigCommand::Show { origin }) => settings::show(&context, origin),
        Command::Completions { .. } | Command::Man { .. } | Command::Doctor => Ok(()),
    }
}

impl Context {
    fn new(globals: Globals, origins: Origins, output: Output, interrupts: Interrupts) -> Result<Context, WalletError> {
        let config_folder = config_folder(&globals)?;
        let keystore = Keystore::open(keystore_folder(&globals, &config_folder));
        Ok(Context {
            output,
            origins,
            interrupts,
            prompt: Prompt::new(globals.no_input),
            config: Config::load(&config_folder)?,
            contacts: Contacts::load(&config_folder)?,
            keystore,
            config_folder,
            globals,
        })
    }

    fn trace(&self) -> Trace {
        Trace::new(self.output, self.globals.explain, self.globals.verbose)
    }

    fn book(&self) -> Book<'_> {
        Book { keystore: &self.keystore, contacts: &self.contacts }
    }

    /// The network that is chosen, if any, whatever nodes are.
    fn pinned(&self) -> Result<Option<(String, Network)>, WalletError> {
        let Some(name) = self.globals.network.as_ref().or(self.config.network.as_ref()) else { return Ok(None) };
        refuse_secret(name)?;
        Ok(Some((name.clone(), self.config.network(name)?.clone())))
    }

    /// The same, where nothing can go on without.
    fn pinned_network(&self) -> Result<(String, Network), WalletError> {
        self.pinned()?.ok_or_else(|| UsageError::NotPinned.into())
    }

    fn chosen(&self) -> Result<Chosen, WalletError> {
        let pinned = self.pinned()?;
        let mut urls = self.globals.node.clone();
        if urls.is_empty() {
            let Some((name, network)) = &pinned else { return Err(UsageError::NoNetwork.into()) };
            urls = match self.config.panels.get(name) {
                Some(panel) => panel.nodes.iter().map(|node| node.url.clone()).collect(),
                None => vec![network.node.clone()],
            };
        }
        let mut seen = std::collections::BTreeSet::new();
        urls.retain(|url| seen.insert(url.clone()));
        if urls.len() > NODES_MAX {
            return Err(UsageError::TooManyNodes(urls.len()).into());
        }
        Ok(Chosen { pinned, urls })
    }

    /// Connects to the chosen nodes and refuses another chain than the pinned one.
    async fn connect(&self) -> Result<Session, WalletError> {
        let chosen = self.chosen()?;
        let pinned = chosen.pinned.as_ref().map(|(name, network)| (name.as_str(), network));
        let way = Way {
            urls: &chosen.urls,
            pinned,
            panel: pinned.and_then(|(name, _)| self.config.panels.get(name)),
            timeout: self.globals.timeout,
            trace: self.trace(),
            output: self.output,
        };
        let (nodes, chain) = Nodes::connect(way).await?;
        if chosen.pinned.is_none() {
            self.output.warning("no network is chosen, so the node's chain is not checked against a pinned one");
        }
        Ok(Session { chosen, nodes, chain })
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

    /// The account that pays, where its key is not needed: `--from` may then be an address or a contact, too.
    fn payer(&self) -> Result<Target, WalletError> {
        match self.globals.from.as_ref().or(self.config.from.as_ref()) {
            Some(text) => Ok(self.book().resolve(text)?),
            None => self.sender().map(|key| Target { address: key.address, name: Some(key.name.to_string()) }),
        }
    }

    /// The account that `text` names; without a text, the sender's.
    fn account(&self, text: Option<&str>) -> Result<Address, WalletError> {
        match text {
            Some(text) => Ok(self.book().resolve(text)?.address),
            None => Ok(self.payer()?.address),
        }
    }

    /// How amounts of `chain` are written, when a network with that chain is pinned; refused when the chosen network is
    /// of another chain.
    fn token_of(&self, chain: &Chain) -> Result<Option<Token>, WalletError> {
        let genesis = chain.genesis_hash.to_string();
        if let (Some(name), Some((_, network))) = (&self.globals.network, self.pinned()?)
            && network.genesis_hash != genesis
        {
            let (pinned, got) = (network.genesis_hash, genesis);
            return Err(UsageError::OtherChain { network: name.clone(), pinned, got }.into());
        }
        let network = self.config.networks.values().find(|network| network.genesis_hash == genesis);
        Ok(network.and_then(|network| Token::new(&network.symbol, network.decimals)))
    }

    /// The command that waits for a transaction, with the flags that lead to the same node.
    fn wait_command(&self, id: &Hash) -> String {
        self.with_way(&format!("tally-wallet tx wait {id}"))
    }

    /// `command` with the flags that lead to the same network and nodes.
    fn with_way(&self, command: &str) -> String {
        let mut command = command.to_owned();
        if let Some(network) = &self.globals.network {
            command = format!("{command} --network {}", quoted_if_odd(network));
        }
        for node in &self.globals.node {
            command = format!("{command} --node {}", quoted_if_odd(node));
        }
        let folders = [("config_dir", &self.globals.config_dir), ("keystore_dir", &self.globals.keystore_dir)];
        for (id, folder) in folders {
            // One that the environment names is found again.
            if let Some(folder) = folder.as_ref().filter(|_| self.origins.get(id) == Origin::Flag) {
                let folder = quoted_if_odd(&folder.display().to_string());
                command = format!("{command} --{} {folder}", id.replace('_', "-"));
            }
        }
        command
    }
}

impl Session {
    /// Name of the network, for people.
    fn network(&self) -> &str {
        self.chosen.pinned.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default()
    }

    /// The chain as it is now.
    async fn refreshed(&self) -> Result<ChainView, WalletError> {
        let pinned = self.chosen.pinned.as_ref().map(|(name, network)| (name.as_str(), network));
        Ok(self.nodes.chain(pinned).await?)
    }
}

/// For commands that change configuration, contacts or keys: nobody else changes them meanwhile.
fn lock(cli: &Cli) -> Result<Option<std::fs::File>, WalletError> {
    use crate::cli::{
        groups::{ContactsCommand, NetworkCommand},
        keys::KeysCommand,
    };
    let config_folder = config_folder(&cli.globals)?;
    let folder = match &cli.command {
        Command::Network(NetworkCommand::List | NetworkCommand::Show { .. })
        | Command::Contacts(ContactsCommand::List) => return Ok(None),
        Command::Keys(
            KeysCommand::List
            | KeysCommand::Show { .. }
            | KeysCommand::Export { .. }
            | KeysCommand::VerifyBackup { .. },
        ) => return Ok(None),
        Command::Network(_) | Command::Contacts(_) => config_folder,
        Command::Keys(_) => keystore_folder(&cli.globals, &config_folder),
        _ => return Ok(None),
    };
    let locked = lock_folder(&folder).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => FileError::Locked { file: folder.clone() },
        _ => FileError::Write { file: folder.clone(), source },
    })?;
    Ok(Some(locked))
}

/// Where the configuration is, or would be.
fn config_folder(globals: &Globals) -> Result<PathBuf, WalletError> {
    let folder = match &globals.config_dir {
        Some(folder) => Some(folder.clone()),
        None => {
            default_config_folder(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
        }
    };
    folder.ok_or_else(|| UsageError::NoConfigFolder.into())
}

fn keystore_folder(globals: &Globals, config_folder: &std::path::Path) -> PathBuf {
    globals.keystore_dir.clone().unwrap_or_else(|| config_folder.join("keys"))
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

/// "1 line", "2 lines".
fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
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
