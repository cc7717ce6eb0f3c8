//! Several nodes of one network, and what each one's word weighs.

use serde::{Deserialize, Serialize};
use tally_types::{Address, Amount};

use super::ConfigError;

/// Most nodes of a panel.
pub const PANEL_NODES_MAX: usize = 16;

/// Nodes of one network that are asked together, and what each one's word weighs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// Stake of all validators, base units, at most 2^63-1. A smaller one than the real makes fewer nodes enough.
    pub total_stake: u64,
    /// 2 to [`PANEL_NODES_MAX`] nodes with different URLs.
    pub nodes: Vec<PanelNode>,
}

/// A node of a panel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanelNode {
    /// `http://HOST:PORT` of its client API.
    pub url: String,
    /// Operator account of the validator it is; empty when it is none.
    pub validator: String,
    /// That validator's stake, base units; 0 when it is none, and then its word weighs nothing.
    pub stake: u64,
}

impl Panel {
    /// The node of this URL.
    pub fn of(&self, url: &str) -> Option<&PanelNode> {
        self.nodes.iter().find(|node| node.url == url)
    }

    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let wrong = |key, problem| Err(ConfigError::Field { field: format!("panels.{name}.{key}"), problem });
        if self.total_stake == 0 || self.total_stake > Amount::SUPPLY_MAX.0 {
            return wrong("total_stake", "is not 1 to 2^63-1");
        }
        if !(2..=PANEL_NODES_MAX).contains(&self.nodes.len()) {
            return wrong("nodes", "are not 2 to 16");
        }
        for (place, node) in self.nodes.iter().enumerate() {
            if !node.url.starts_with("http://") {
                return wrong("nodes.url", "is not of the form http://HOST:PORT");
            }
            if self.nodes.iter().take(place).any(|other| other.url == node.url) {
                return wrong("nodes.url", "stands there twice");
            }
            if node.stake > self.total_stake || (node.stake == 0) != node.validator.is_empty() {
                return wrong("nodes.stake", "is above total_stake, or belongs to no validator");
            }
            if !node.validator.is_empty() && node.validator.parse::<Address>().is_err() {
                return wrong("nodes.validator", "is not an address");
            }
        }
        Ok(())
    }
}
