//! AccountService: reads of the state.

use std::{sync::Arc, time::Instant};

use tally_ledger::Account;
use tally_proto::v1::{self, ErrorReason, account_service_server::AccountService};
use tally_types::{Address, Height};
use tonic::{Request, Response, Status};

use super::{
    Api, address_in,
    errors::Refusal,
    pages::{Query, invalid_token, page_size},
};
use crate::context::Latest;

/// Height, and the address after which a page starts.
const POSITION_BYTES: usize = 8 + 32;

#[tonic::async_trait]
impl AccountService for Api {
    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let request = request.into_inner();
        let address = address_in("address", &request.address)?;
        let latest = self.latest_from(Height(request.min_height)).await?;
        let account = latest.ledger.state().account(&address).ok_or_else(|| {
            Refusal::new(ErrorReason::AccountNotFound, format!("account {address} does not exist"))
                .with("address", address)
                .with("height", latest.height)
        })?;
        let account = Some(self.account(&address, &account));
        Ok(Response::new(v1::GetAccountResponse { account, height: latest.height.0 }))
    }

    async fn list_accounts(
        &self,
        request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, 50, 1000)?;
        let query = Query::new("ListAccounts", &self.shared().genesis.chain.genesis_hash, &());
        let now = Instant::now();
        let (state, page, is_last) = match query.position::<POSITION_BYTES>(&request.page_token)? {
            None => {
                let latest = self.latest();
                match page_after(&latest, None, size) {
                    (page, true) => (latest, page, true),
                    (_, false) => {
                        let kept = self.0.snapshots.start(&latest, now);
                        let (page, is_last) = page_after(&kept, None, size);
                        (kept, page, is_last)
                    }
                }
            }
            Some(position) => {
                let (height, after) = read_position(&position);
                let kept = self.0.snapshots.at(height, now).ok_or_else(|| {
                    invalid_token("page_token is too old: the state it reads is gone; start again without one")
                })?;
                let (page, is_last) = page_after(&kept, Some(&after), size);
                (kept, page, is_last)
            }
        };
        let next = page.last().filter(|_| !is_last).map(|(last, _)| query.token(&position(state.height, last)));
        Ok(Response::new(v1::ListAccountsResponse {
            accounts: page.iter().map(|(address, account)| self.account(address, account)).collect(),
            next_page_token: next.unwrap_or_default(),
            height: state.height.0,
        }))
    }
}

impl Api {
    /// The latest state, once it is at `height` or above.
    async fn latest_from(&self, height: Height) -> Result<Arc<Latest>, Refusal> {
        let latest = self.latest();
        if latest.height >= height {
            return Ok(latest);
        }
        let _permit = self.wait_permit()?;
        let mut states = self.shared().latest.clone();
        let reached = states.wait_for(|latest| latest.height >= height);
        let waited = tokio::time::timeout(self.limits().min_height_wait, reached).await;
        if let Ok(Ok(latest)) = waited {
            return Ok(latest.clone());
        }
        let latest = self.latest();
        let message = format!("this node is at height {}, not yet at {height}; ask again, or another", latest.height);
        let refusal = Refusal::new(ErrorReason::NodeBehind, message);
        Err(refusal.with("min_height", height).with("height", latest.height))
    }

    fn account(&self, address: &Address, account: &Account) -> v1::Account {
        let next = account.nonces.next();
        let pending = self.shared().admission.next_nonce(address).map_or(next, |pending| pending.max(next));
        v1::Account {
            address: address.to_string(),
            balance: account.balance.0,
            next_nonce: next.0,
            pending_nonce: pending.0,
            creator: account.creator.map(|creator| creator.to_string()).unwrap_or_default(),
            created_height: account.created_height.0,
        }
    }
}

/// Up to `size` accounts above `after`, and whether they are the last.
fn page_after(state: &Latest, after: Option<&Address>, size: usize) -> (Vec<(Address, Account)>, bool) {
    let mut page = state.ledger.state().accounts_after(after, size.saturating_add(1));
    let is_last = page.len() <= size;
    page.truncate(size);
    (page, is_last)
}

fn position(height: Height, after: &Address) -> [u8; POSITION_BYTES] {
    let mut position = [0; POSITION_BYTES];
    let (head, tail) = position.split_at_mut(8);
    head.copy_from_slice(&height.to_be_bytes());
    tail.copy_from_slice(after.as_bytes());
    position
}

fn read_position(position: &[u8; POSITION_BYTES]) -> (Height, Address) {
    let height = position.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let after = position.last_chunk().copied().unwrap_or_default();
    (Height(height), Address(after))
}
