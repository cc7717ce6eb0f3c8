//! The wallet's configuration: which networks it knows, and what each one's chain is pinned to.
//!
//! `config.toml` in the configuration folder, mode 0600, replaced whole or not at all:
//!
//! ```toml
//! network = "local"          # used when --network does not say otherwise
//! from = "alice"             # optional: key used when --from does not say otherwise
//!
//! [networks.local]
//! node = "http://127.0.0.1:9101"
//! chain_id = "local-1a2b3c4d"
//! genesis_hash = "1a2b3c4d…" # 64 hex digits
//! symbol = "TALLY"
//! decimals = 9
//! ```
//!
//! A network that was added with several nodes has a panel besides, whose stakes are as the genesis file proves them:
//!
//! ```toml
//! [panels.local]
//! total_stake = 4000000000000
//!
//! [[panels.local.nodes]]
//! url = "http://127.0.0.1:9101"
//! validator = "tally1…"      # which validator the node said it is; empty: none
//! stake = 1000000000000
//! ```
//!
//! Everything but `node` is pinned when the network is added. A node that says otherwise later is refused before
//! anything is signed; the decimals are among it because a node that could change them could change what "12.5" means.

mod panel;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tally_types::{Decimals, Hash};
use thiserror::Error;

pub use panel::{PANEL_NODES_MAX, Panel, PanelNode};

use crate::{files, token::Token};

/// Name of the file in the configuration folder.
pub const FILE_NAME: &str = "config.toml";
/// Most characters of a network's name.
pub const NETWORK_NAME_LEN_MAX: usize = 32;

const FILE_BYTES_MAX: usize = 256 * 1024;
const NOTICE: &str = "# Written by tally-wallet: the `network` commands replace this file.\n";

/// Content of the file. A missing file is the default: no networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Network used when `--network` does not name one; one of `networks`. Default: none, so `--network` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Key used when `--from` does not name one. Default: the only key there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Networks by name.
    #[serde(default)]
    pub networks: BTreeMap<String, Network>,
    /// Networks that are asked through several nodes at once. Default: none, so each has its one `node`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub panels: BTreeMap<String, Panel>,
}

/// A network and what its chain is pinned to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// `http://HOST:PORT` of a node's client API. A wrong one is unreachable, or refused by what follows.
    pub node: String,
    /// Chain id: genesis name, "-", first 8 hex digits of the genesis hash.
    pub chain_id: String,
    /// Genesis hash, 64 hex digits: what every signature is bound to.
    pub genesis_hash: String,
    /// Token symbol.
    pub symbol: String,
    /// Decimal places of the token, 0 to 18. A wrong one makes every amount wrong by a power of ten.
    pub decimals: u32,
}

/// What can be wrong with the configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, a missing key, or an unknown one.
    #[error("{}: {problem}", .file.display())]
    Toml {
        /// The file.
        file: PathBuf,
        /// What the parser says, with line and column.
        problem: String,
    },
    /// A value that cannot be, or that contradicts another.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the key.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No such network.
    #[error("there is no network {0:?} in the configuration")]
    NetworkNotFound(String),
    /// The name is taken.
    #[error("a network {0:?} is already in the configuration, with its genesis hash pinned")]
    NetworkExists(String),
}

impl Config {
    /// Reads `config.toml` in `folder`; a missing one is the default.
    pub fn load(folder: &Path) -> Result<Config, ConfigError> {
        let file = folder.join(FILE_NAME);
        let bytes = match files::read_bounded(&file, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(source) => return Err(ConfigError::Io { file, source }),
        };
        Config::parse(&bytes, &file)
    }

    /// Reads the content of `file`, which is only named in errors.
    pub fn parse(content: &[u8], file: &Path) -> Result<Config, ConfigError> {
        let toml = |problem: String| ConfigError::Toml { file: file.to_owned(), problem };
        let text = std::str::from_utf8(content).map_err(|_| toml("is not UTF-8".into()))?;
        let config: Config = toml::from_str(text).map_err(|error| toml(error.to_string().trim_end().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    /// Writes `config.toml` in `folder`, making the folder (mode 0700) when it is missing.
    pub fn save(&self, folder: &Path) -> Result<(), ConfigError> {
        self.check()?;
        let file = folder.join(FILE_NAME);
        let text = toml::to_string(self)
            .map_err(|error| ConfigError::Toml { file: file.clone(), problem: error.to_string() })?;
        files::create_private_folder(folder)
            .and_then(|()| files::replace(&file, format!("{NOTICE}{text}").as_bytes()))
            .map_err(|source| ConfigError::Io { file, source })
    }

    /// The network `name`.
    pub fn network(&self, name: &str) -> Result<&Network, ConfigError> {
        self.networks.get(name).ok_or_else(|| ConfigError::NetworkNotFound(name.to_owned()))
    }

    /// Adds a network; the first one becomes the one in use.
    pub fn add_network(&mut self, name: &str, network: Network) -> Result<(), ConfigError> {
        self.ensure_network_free(name)?;
        network.check(name)?;
        self.networks.insert(name.to_owned(), network);
        self.network.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// Takes a network away, with its panel; none is in use afterwards if it was this one.
    pub fn remove_network(&mut self, name: &str) -> Result<Network, ConfigError> {
        let network = self.networks.remove(name).ok_or_else(|| ConfigError::NetworkNotFound(name.to_owned()))?;
        self.panels.remove(name);
        self.network = self.network.take().filter(|in_use| in_use != name);
        Ok(network)
    }

    /// Fails when the name is taken or no name: asked before a node is.
    pub fn ensure_network_free(&self, name: &str) -> Result<(), ConfigError> {
        check_name(name)?;
        if self.networks.contains_key(name) {
            return Err(ConfigError::NetworkExists(name.to_owned()));
        }
        Ok(())
    }

    /// Makes `name` the network in use.
    pub fn use_network(&mut self, name: &str) -> Result<(), ConfigError> {
        self.network(name)?;
        self.network = Some(name.to_owned());
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (name, network) in &self.networks {
            check_name(name)?;
            network.check(name)?;
        }
        for (name, panel) in &self.panels {
            if !self.networks.contains_key(name) {
                return Err(ConfigError::Field { field: format!("panels.{name}"), problem: "is of no network" });
            }
            panel.check(name)?;
        }
        match &self.network {
            Some(name) if !self.networks.contains_key(name) => {
                Err(ConfigError::Field { field: "network".into(), problem: "names no entry of [networks]" })
            }
            _ => Ok(()),
        }
    }
}

impl Network {
    /// The pinned hash.
    pub fn genesis(&self) -> Option<Hash> {
        Hash::from_hex(&self.genesis_hash)
    }

    /// How amounts are written. None only of a network that was never checked.
    pub(crate) fn token(&self) -> Option<Token> {
        Token::new(&self.symbol, self.decimals)
    }

    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let wrong = |key, problem| Err(ConfigError::Field { field: format!("networks.{name}.{key}"), problem });
        if !self.node.starts_with("http://") {
            return wrong("node", "is not of the form http://HOST:PORT");
        }
        let Some(genesis) = self.genesis() else {
            return wrong("genesis_hash", "is not 64 lower-case hex digits");
        };
        let start = format!("{:.8}", genesis.to_string());
        if self.chain_id.rsplit_once('-').is_none_or(|(_, end)| end != start) {
            return wrong("chain_id", "does not end in \"-\" and the first 8 digits of genesis_hash");
        }
        if self.symbol.is_empty() || self.symbol.len() > 12 || !self.symbol.bytes().all(|b| b.is_ascii_uppercase()) {
            return wrong("symbol", "is not 1 to 12 of A-Z");
        }
        if Decimals::new(self.decimals).is_none() {
            return wrong("decimals", "is not 0 to 18");
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > NETWORK_NAME_LEN_MAX || name.starts_with('-') || !name.bytes().all(fits) {
        let field = format!("network name {:?}", name.chars().take(80).collect::<String>());
        return Err(ConfigError::Field { field, problem: "use 1 to 32 of a-z, 0-9, \"-\" and \"_\"" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn local() -> Network {
        let genesis_hash = Hash::of(b"genesis").to_string();
        Network {
            node: "http://127.0.0.1:9101".into(),
            chain_id: format!("local-{}", &genesis_hash[..8]),
            genesis_hash,
            symbol: "TALLY".into(),
            decimals: 9,
        }
    }

    fn load_text(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), text).unwrap();
        Config::load(folder.path())
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("a/b");
        assert_eq!(Config::load(&home).unwrap(), Config::default());
        let mut config = Config { from: Some("alice".into()), ..Config::default() };
        config.add_network("local", local()).unwrap();
        config.add_network("other", local()).unwrap();
        assert_eq!(config.network.as_deref(), Some("local"));
        config.save(&home).unwrap();
        assert_eq!(Config::load(&home).unwrap(), config);
        config.use_network("other").unwrap();
        config.save(&home).unwrap();
        assert_eq!(Config::load(&home).unwrap().network.as_deref(), Some("other"));
        assert_eq!(fs::metadata(home.join(FILE_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn unknown_keys_are_errors_that_name_them() {
        for text in ["netwrok = \"x\"\n", "[networks.a]\nnode = \"http://a:1\"\ntls = true\n"] {
            let error = load_text(text).unwrap_err();
            assert!(
                matches!(&error, ConfigError::Toml { problem, .. } if problem.contains("unknown field")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_panel_is_checked_and_goes_with_its_network() {
        let node = |port: u16, stake| PanelNode {
            url: format!("http://127.0.0.1:{port}"),
            validator: if stake == 0 { String::new() } else { tally_types::Address([1; 32]).to_string() },
            stake,
        };
        let mut config = Config::default();
        config.add_network("local", local()).unwrap();
        let panel = |total_stake, nodes| Config {
            panels: [("local".to_owned(), Panel { total_stake, nodes })].into(),
            ..config.clone()
        };
        let mut good = panel(100, vec![node(1, 50), node(2, 0)]);
        let folder = tempfile::tempdir().unwrap();
        good.save(folder.path()).unwrap();
        assert_eq!(Config::load(folder.path()).unwrap(), good);
        for (bad, wanted) in [
            (panel(0, vec![node(1, 0), node(2, 0)]), "total_stake"),
            (panel(100, vec![node(1, 50)]), "nodes"),
            (panel(100, vec![node(1, 50), node(1, 50)]), "nodes.url"),
            (panel(100, vec![node(1, 101), node(2, 0)]), "nodes.stake"),
        ] {
            let Err(ConfigError::Field { field, .. }) = bad.save(folder.path()) else { panic!("{bad:?}") };
            assert_eq!(field, format!("panels.local.{wanted}"));
        }
        assert_eq!(good.remove_network("local").unwrap(), local());
        assert_eq!(good, Config::default());
        assert!(matches!(good.remove_network("local"), Err(ConfigError::NetworkNotFound(_))));
    }

    #[test]
    fn a_pinned_network_cannot_be_added_again_nor_an_absent_one_used() {
        let mut config = Config::default();
        config.add_network("local", local()).unwrap();
        let before = config.clone();
        assert!(
            matches!(config.add_network("local", local()), Err(ConfigError::NetworkExists(name)) if name == "local")
        );
        assert!(matches!(config.use_network("x"), Err(ConfigError::NetworkNotFound(name)) if name == "x"));
        assert_eq!(config, before);
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_path() {
        let refused = |change: fn(&mut Network)| {
            let mut network = local();
            change(&mut network);
            match Config::default().add_network("a", network) {
                Err(ConfigError::Field { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(|n| n.node = "127.0.0.1:1".into()), "networks.a.node");
        assert_eq!(refused(|n| n.genesis_hash.make_ascii_uppercase()), "networks.a.genesis_hash");
        assert_eq!(refused(|n| n.chain_id = "local-00000000".into()), "networks.a.chain_id");
        assert_eq!(refused(|n| n.symbol = "tally".into()), "networks.a.symbol");
        assert_eq!(refused(|n| n.decimals = 19), "networks.a.decimals");
        assert!(matches!(load_text("network = \"a\""), Err(ConfigError::Field { field, .. }) if field == "network"));
    }
}
