//! Configuration of a node: `node.toml` in its home.
//!
//! A flag beats an environment variable, which beats the file, which beats the default. Unknown keys are errors.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tally_types::Address;
use thiserror::Error;

use crate::files;

/// Most threads that check signatures.
const SIGNATURE_THREADS_MAX: usize = 1024;

/// Name of the file in a home.
pub const FILE: &str = "node.toml";

/// Content of `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Where clients are served. Loopback unless told otherwise: the client API is not encrypted.
    #[serde(default = "default_client_listen")]
    pub client_listen: SocketAddr,
    /// Where other validators are served.
    #[serde(default = "default_peer_listen")]
    pub peer_listen: SocketAddr,
    /// Longest wait from a transaction's arrival to its batch while others are on their way, "1ms" to "10s". Longer makes
    /// larger batches and later payments.
    #[serde(default = "default_batch_delay", with = "duration")]
    pub batch_delay: Duration,
    /// How often this node announces what it holds at least, "50ms" to "1m". A leader that is not heard for two of these
    /// is skipped.
    #[serde(default = "default_heartbeat", with = "duration")]
    pub heartbeat: Duration,
    /// Threads that check signatures; 0: one per core.
    #[serde(default)]
    pub signature_threads: usize,
    /// The other validators. This node itself may be listed, too; it is passed over.
    // An empty list would stand in the way of the tables that people add.
    #[serde(default, rename = "peer", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerConfig>,
}

/// Where another validator listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its operator account.
    pub address: String,
    /// Its peer port, as "http://host:port".
    pub endpoint: String,
}

fn default_client_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9101))
}

fn default_peer_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9201))
}

fn default_batch_delay() -> Duration {
    Duration::from_millis(20)
}

fn default_heartbeat() -> Duration {
    Duration::from_secs(1)
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Disk {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML of the right shape.
    #[error("{path}: {source}")]
    Toml {
        /// The file.
        path: String,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("configuration {field}: {problem}")]
    Field {
        /// The key.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            client_listen: default_client_listen(),
            peer_listen: default_peer_listen(),
            batch_delay: default_batch_delay(),
            heartbeat: default_heartbeat(),
            signature_threads: 0,
            peers: Vec::new(),
        }
    }
}

impl NodeConfig {
    /// Reads the file in `home`.
    pub fn load(home: &Path) -> Result<NodeConfig, ConfigError> {
        let path = home.join(FILE);
        let shown = path.display().to_string();
        let text = files::read_text(&path).map_err(|source| ConfigError::Disk { path: shown.clone(), source })?;
        NodeConfig::parse(&text).map_err(|source| ConfigError::Toml { path: shown, source: Box::new(source) })
    }

    /// Reads the file's text; [`NodeConfig::check`] says whether the values make sense.
    pub fn parse(text: &str) -> Result<NodeConfig, toml::de::Error> {
        toml::from_str(text)
    }

    /// The file's text.
    pub fn encode(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Checks each value, and the relations between them.
    pub fn check(&self) -> Result<Vec<(Address, String)>, ConfigError> {
        let wrong = |field: &str, problem: String| ConfigError::Field { field: field.into(), problem };
        let (one_ms, ten_s) = (Duration::from_millis(1), Duration::from_secs(10));
        if !(one_ms..=ten_s).contains(&self.batch_delay) {
            return Err(wrong("batch_delay", "must be \"1ms\" to \"10s\"".into()));
        }
        if !(Duration::from_millis(50)..=Duration::from_secs(60)).contains(&self.heartbeat) {
            return Err(wrong("heartbeat", "must be \"50ms\" to \"1m\"".into()));
        }
        if self.batch_delay >= self.heartbeat {
            return Err(wrong("batch_delay", "must be below heartbeat".into()));
        }
        if self.signature_threads > SIGNATURE_THREADS_MAX {
            return Err(wrong("signature_threads", format!("must be 0 (one per core) to {SIGNATURE_THREADS_MAX}")));
        }
        if self.client_listen == self.peer_listen && self.client_listen.port() != 0 {
            return Err(wrong("peer_listen", "must differ from client_listen".into()));
        }
        let mut peers: Vec<(Address, String)> = Vec::new();
        for peer in &self.peers {
            let address: Address = peer.address.parse().map_err(|error| wrong("peer.address", format!("{error}")))?;
            if let Err(error) = crate::peers::check_endpoint(&peer.endpoint) {
                let problem = format!("{:?} is not like \"http://host:port\" ({error})", peer.endpoint);
                return Err(wrong("peer.endpoint", problem));
            }
            if peers.iter().any(|(known, _)| *known == address) {
                return Err(wrong("peer.address", format!("{address} is listed twice")));
            }
            peers.push((address, peer.endpoint.clone()));
        }
        Ok(peers)
    }
}

/// Durations as people write them: "250ms", "10s".
mod duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(*value).to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{text:?} is no duration ({error})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_unknown_keys_are_errors() {
        let config = NodeConfig::default();
        let text = config.encode().unwrap();
        assert_eq!(toml::from_str::<NodeConfig>(&text).unwrap(), config);
        assert_eq!(toml::from_str::<NodeConfig>("").unwrap(), config);
        assert!(toml::from_str::<NodeConfig>("hearbeat = \"1s\"").is_err());
        assert!(toml::from_str::<NodeConfig>("heartbeat = 1").is_err());
        assert!(toml::from_str::<NodeConfig>("heartbeat = \"soon\"").is_err());
    }

    #[test]
    fn values_and_their_relations_are_checked() {
        let check = |change: fn(&mut NodeConfig)| {
            let mut config = NodeConfig::default();
            change(&mut config);
            config.check().map_err(|error| error.to_string())
        };
        assert!(check(|_| {}).is_ok());
        for (change, field) in [
            ((|c| c.heartbeat = Duration::from_millis(10)) as fn(&mut NodeConfig), "heartbeat"),
            (|c| c.batch_delay = Duration::from_secs(1), "batch_delay"),
            (|c| c.peer_listen = c.client_listen, "peer_listen"),
            (|c| c.signature_threads = SIGNATURE_THREADS_MAX + 1, "signature_threads"),
            (|c| c.peers.push(PeerConfig { address: "x".into(), endpoint: "http://a:1".into() }), "peer.address"),
        ] {
            assert!(check(change).unwrap_err().contains(field), "{field}");
        }
    }
}
