//! Pages: how many items, how many bytes, and a token that leads to the next one.
//!
//! A token holds a position and a checksum over method, request and position: it works only with the query that gave it. For
//! blocks, transactions and validators it does so across restarts and on any node of the chain; a list of accounts goes on in the
//! state that this node keeps for it, and lists of evidence and peers count in this node's own. It is no secret and no promise:
//! whoever forges one reads from a position of their choice, which every position may be.

use prost::Message;
use tally_proto::v1::ErrorReason;
use tally_types::Hash;

use super::{errors::Refusal, limits::PAGE_BYTES_MAX};

/// Tag of a token's checksum.
const TAG: &str = "tally.page.v1";
/// Bytes of it that a token carries.
const CHECKSUM_BYTES: usize = 8;

/// What is asked, whatever the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query(Hash);

impl Query {
    /// `request` with `page_size` and `page_token` cleared, to a method of the chain of `genesis`.
    pub(super) fn new(method: &str, genesis: &Hash, request: &impl Message) -> Query {
        Query(Hash::tagged(TAG, &[genesis.as_bytes(), method.as_bytes(), &[0], &request.encode_to_vec()]))
    }

    /// The token of a position.
    pub(super) fn token(&self, position: &[u8]) -> String {
        hex::encode([position, &self.checksum(position)].concat())
    }

    /// The position in a token; `None`: there is no token, so the first page is asked for.
    pub(super) fn position<const N: usize>(&self, token: &str) -> Result<Option<[u8; N]>, Refusal> {
        if token.is_empty() {
            return Ok(None);
        }
        // Of a client's text no more is decoded than a token can have.
        let bytes = if token.len() == 2 * (N + CHECKSUM_BYTES) { hex::decode(token).ok() } else { None };
        let found = bytes.as_deref().and_then(|bytes| bytes.split_first_chunk::<N>());
        match found {
            Some((position, checksum)) if *checksum == self.checksum(position) => Ok(Some(*position)),
            _ => Err(invalid_token("page_token belongs to another query; start again without one")),
        }
    }

    fn checksum(&self, position: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let hash = Hash::tagged(TAG, &[self.0.as_bytes(), position]);
        hash.0.first_chunk().copied().unwrap_or_default()
    }
}

/// A token that leads nowhere.
pub(super) fn invalid_token(message: &str) -> Refusal {
    Refusal::new(ErrorReason::PageTokenInvalid, message)
}

/// How many items a page may have: `default` for 0, at most `maximum`.
pub(super) fn page_size(asked: i32, default: usize, maximum: usize) -> Result<usize, Refusal> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(asked) => Ok(asked.min(maximum)),
        Err(_) => Err(Refusal::field("page_size", "is negative; leave it out for the default")),
    }
}

/// Room left on a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    items: usize,
    bytes: usize,
    is_empty: bool,
}

impl Room {
    /// An empty page of at most `items` and [`PAGE_BYTES_MAX`].
    pub(super) fn for_items(items: usize) -> Room {
        Room { items, bytes: PAGE_BYTES_MAX, is_empty: true }
    }

    /// Takes room for an item of this size; false: the page is full. An item too large for any page has one to itself.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.items > 0 && (self.is_empty || bytes <= self.bytes);
        if fits {
            self.items -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_empty = false;
        }
        fits
    }
}

/// A page of a list that is at hand, from `skip` on; the number is where the next page starts.
pub(super) fn page_of<T: Message + Clone>(all: &[T], skip: usize, size: usize) -> (Vec<T>, Option<usize>) {
    let mut room = Room::for_items(size);
    let rest = all.get(skip..).unwrap_or_default();
    let page: Vec<_> = rest.iter().take_while(|item| room.take(item.encoded_len())).cloned().collect();
    let next = skip.saturating_add(page.len());
    (page, (next < all.len()).then_some(next))
}

/// A number as a position.
pub(super) fn position_of(number: usize) -> [u8; 8] {
    u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes()
}

/// The number that [`position_of`] wrote.
pub(super) fn number_at(position: Option<[u8; 8]>) -> usize {
    position.map_or(0, |bytes| usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use tally_proto::v1::ListPeersRequest;

    use super::*;

    fn query(method: &str, size: i32) -> Query {
        Query::new(method, &Hash::ZERO, &ListPeersRequest { page_size: size, page_token: String::new() })
    }

    #[test]
    fn a_token_works_with_its_query_alone() {
        let token = query("ListPeers", 0).token(&[7; 12]);
        assert_eq!(query("ListPeers", 0).position::<12>(&token).unwrap(), Some([7; 12]));
        assert_eq!(query("ListPeers", 0).position::<12>("").unwrap(), None);
        let refused = |query: Query, token: &str| query.position::<12>(token).unwrap_err().reason();
        assert_eq!(refused(query("ListBlocks", 0), &token), ErrorReason::PageTokenInvalid);
        assert_eq!(refused(query("ListPeers", 1), &token), ErrorReason::PageTokenInvalid);
        let mut other = token.clone();
        other.replace_range(0..1, "1");
        for text in [&other, &token[2..], &"é".repeat(20), "x", &format!("{token}00")] {
            assert_eq!(refused(query("ListPeers", 0), text), ErrorReason::PageTokenInvalid, "{text}");
        }
        assert!(query("ListPeers", 0).position::<8>(&token).is_err());
    }

    #[test]
    fn page_sizes_are_coerced_and_negative_ones_refused() {
        assert_eq!(page_size(0, 50, 1000).unwrap(), 50);
        assert_eq!(page_size(1, 50, 1000).unwrap(), 1);
        assert_eq!(page_size(1000, 50, 1000).unwrap(), 1000);
        assert_eq!(page_size(i32::MAX, 50, 1000).unwrap(), 1000);
        assert_eq!(page_size(-1, 50, 1000).unwrap_err().reason(), ErrorReason::FieldInvalid);
    }

    #[test]
    fn a_page_is_full_by_items_or_by_bytes_but_never_empty() {
        let mut room = Room::for_items(2);
        assert!(room.take(1) && room.take(1) && !room.take(1));
        let mut room = Room::for_items(10);
        assert!(room.take(PAGE_BYTES_MAX - 1) && room.take(1) && !room.take(1));
        let mut room = Room::for_items(10);
        assert!(room.take(PAGE_BYTES_MAX + 1) && !room.take(1));
        let all: Vec<_> = (0..5).map(|size| ListPeersRequest { page_size: size, page_token: String::new() }).collect();
        assert_eq!(page_of(&all, 0, 2), (all[..2].to_vec(), Some(2)));
        assert_eq!(page_of(&all, 3, 2), (all[3..].to_vec(), None));
        assert_eq!(page_of(&all, usize::MAX, 2), (Vec::new(), None));
    }
}
