//! Headers: those known to be final, and the tree of those that may become so.

use std::{collections::BTreeMap, ops::Deref};

use tally_types::{Epoch, Hash, Header, Height, Tip, View, header::HeaderFields};

use crate::config::{Config, FINAL_HEADERS_KEPT, OPEN_HEADERS_MAX};

/// A block as a parent: a header, or genesis. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub hash: Hash,
    /// Of genesis: made up, but for time, roots and the validators that it names.
    content: Header,
    genesis: bool,
}

impl Block {
    pub fn of(header: &Header) -> Block {
        Block { hash: header.hash(), content: header.clone(), genesis: false }
    }

    fn genesis(config: &Config) -> Block {
        let validators = config.genesis_validators.hash();
        let content = Header::new(HeaderFields {
            epoch: Epoch::ZERO,
            height: Height::ZERO,
            view: View::ZERO,
            parent: Hash::ZERO,
            proposer: 0,
            time: config.genesis_time,
            cut: Vec::new(),
            executed: config.genesis_executed,
            validators,
            next_validators: validators,
        });
        Block { hash: config.genesis_hash, content, genesis: true }
    }

    /// Its header; none: genesis.
    pub fn header(&self) -> Option<&Header> {
        (!self.genesis).then_some(&self.content)
    }

    /// The cut that a child in `epoch` with `lanes` lanes starts from: lanes begin anew with an epoch.
    pub fn cut_for(&self, epoch: Epoch, lanes: usize) -> Vec<Tip> {
        if self.lanes_go_on(epoch) { self.cut.clone() } else { vec![Tip::START; lanes] }
    }

    fn lanes_go_on(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && !self.genesis
    }
}

impl Deref for Block {
    type Target = HeaderFields;

    fn deref(&self) -> &HeaderFields {
        self.content.fields()
    }
}

/// What stands between a block and the final tip.
pub(crate) enum Path {
    /// The blocks above the final tip, lowest first; the last is the one asked for.
    Open(Vec<Header>),
    /// It is final.
    Final,
    /// This header is missing.
    Missing(Hash),
    /// It branches off below the final tip, or leaves out a height: no honest quorum makes such a thing.
    Conflict,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Chain {
    genesis: Block,
    /// Not final, by hash.
    open: BTreeMap<Hash, Header>,
    /// Final and kept, by height; without gaps up to the tip.
    last: BTreeMap<Height, Header>,
    by_hash: BTreeMap<Hash, Height>,
    /// The highest final block, genesis at first.
    tip: Block,
    /// Height of the highest final block that ordered batches.
    final_move: Height,
    /// Per lane of the tip's epoch, the height of the highest final block that ordered batches of it.
    final_moves: Vec<Height>,
}

impl Chain {
    pub fn new(config: &Config) -> Chain {
        let genesis = Block::genesis(config);
        Chain {
            tip: genesis.clone(),
            genesis,
            open: BTreeMap::new(),
            last: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            final_move: Height::ZERO,
            final_moves: Vec::new(),
        }
    }

    /// The highest final block.
    pub fn tip(&self) -> &Block {
        &self.tip
    }

    pub fn tip_height(&self) -> Height {
        self.tip.height
    }

    pub fn knows(&self, hash: &Hash) -> bool {
        *hash == self.genesis.hash || self.open.contains_key(hash) || self.by_hash.contains_key(hash)
    }

    pub fn header(&self, hash: &Hash) -> Option<&Header> {
        let in_final = || self.last.get(self.by_hash.get(hash)?);
        self.open.get(hash).or_else(in_final)
    }

    pub fn block(&self, hash: &Hash) -> Option<Block> {
        if *hash == self.genesis.hash {
            return Some(self.genesis.clone());
        }
        self.header(hash).map(Block::of)
    }

    pub fn is_final(&self, hash: &Hash) -> bool {
        *hash == self.genesis.hash || self.by_hash.contains_key(hash)
    }

    /// Keeps a header; false if it was known, or if there is no room: see [`Chain::keep_only`].
    pub fn insert(&mut self, header: &Header) -> bool {
        if self.knows(&header.hash()) || header.height <= self.tip_height() {
            return false;
        }
        if self.is_full() {
            return false;
        }
        self.open.insert(header.hash(), header.clone());
        true
    }

    pub fn is_full(&self) -> bool {
        self.open.len() >= OPEN_HEADERS_MAX
    }

    /// Makes room: of the open headers only those on the way to one of `ends` stay. Certified ones of an epoch that follow one
    /// another always leave some: whoever lacks those below them can take them in.
    pub fn keep_only(&mut self, ends: &[Hash]) {
        let mut kept = BTreeMap::new();
        for end in ends {
            let mut at = *end;
            while let Some(header) = self.open.remove(&at) {
                at = header.parent;
                kept.insert(header.hash(), header);
            }
        }
        self.open = kept;
    }

    /// Forgets open headers of epochs that are over.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        self.open.retain(|_, open| open.epoch >= epoch);
    }

    /// The headers that are not final.
    pub fn open(&self) -> impl Iterator<Item = &Header> {
        self.open.values()
    }

    /// The way from the final tip to `hash`.
    pub fn path(&self, hash: &Hash) -> Path {
        let tip = self.tip();
        // Asked on every turn about the highest commit certificate, whose block mostly is the tip.
        if *hash == tip.hash || self.is_final(hash) {
            return Path::Final;
        }
        let mut path: Vec<Header> = Vec::new();
        let mut at = *hash;
        while at != tip.hash {
            if self.is_final(&at) {
                return Path::Conflict;
            }
            let Some(header) = self.open.get(&at) else { return Path::Missing(at) };
            if header.height <= tip.height || path.last().is_some_and(|child| child.height != header.height.next()) {
                return Path::Conflict;
            }
            path.push(header.clone());
            at = header.parent;
        }
        if path.last().is_some_and(|lowest| lowest.height != tip.height.next()) {
            return Path::Conflict;
        }
        path.reverse();
        Path::Open(path)
    }

    /// Makes `header`, a child of the tip, the tip. Returns whether it orders batches.
    pub fn finalize(&mut self, header: &Header) -> bool {
        let moves = moves_lanes(header, &self.tip);
        note_moves(&mut self.final_moves, header, &self.tip);
        self.tip = Block::of(header);
        self.open.remove(&header.hash());
        self.by_hash.insert(header.hash(), header.height);
        self.last.insert(header.height, header.clone());
        if moves {
            self.final_move = header.height;
        }
        self.open.retain(|_, open| open.height > header.height);
        while self.last.len() > usize::try_from(FINAL_HEADERS_KEPT).unwrap_or(usize::MAX) {
            if let Some((_, dropped)) = self.last.pop_first() {
                self.by_hash.remove(&dropped.hash());
            }
        }
        moves
    }

    /// Height of the last block on the chain up to `hash` that ordered batches; none if a header is missing.
    pub fn last_move(&self, hash: &Hash) -> Option<Height> {
        match self.path(hash) {
            Path::Final => Some(self.final_move),
            Path::Open(path) => {
                let mut parent = self.tip.clone();
                let mut last = self.final_move;
                for header in &path {
                    if moves_lanes(header, &parent) {
                        last = header.height;
                    }
                    parent = Block::of(header);
                }
                Some(last)
            }
            Path::Missing(_) | Path::Conflict => None,
        }
    }

    /// Per lane, the height of the last block on the chain up to `parent` that ordered batches of it, as a child of it in `epoch`
    /// with `lanes` lanes sees them: 0 where there is none.
    pub fn lanes_moved(&self, parent: &Block, epoch: Epoch, lanes: usize) -> Vec<Height> {
        let mut moves = self.final_moves.clone();
        if let Path::Open(path) = self.path(&parent.hash) {
            let mut before = self.tip.clone();
            for header in &path {
                note_moves(&mut moves, header, &before);
                before = Block::of(header);
            }
        }
        if !parent.lanes_go_on(epoch) {
            moves.clear();
        }
        moves.resize(lanes, Height::ZERO);
        moves
    }

    pub fn open_len(&self) -> usize {
        self.open.len()
    }
}

/// Notes in `moves` which lanes `header`, a child of `parent`, moves.
fn note_moves(moves: &mut Vec<Height>, header: &Header, parent: &Block) {
    let before = parent.cut_for(header.epoch, header.cut.len());
    if !parent.lanes_go_on(header.epoch) {
        moves.clear();
    }
    moves.resize(header.cut.len(), Height::ZERO);
    for (moved, (tip, before)) in moves.iter_mut().zip(header.cut.iter().zip(&before)) {
        if tip != before {
            *moved = header.height;
        }
    }
}

fn moves_lanes(header: &Header, parent: &Block) -> bool {
    match parent.lanes_go_on(header.epoch) {
        true => header.cut != parent.cut,
        false => header.cut.iter().any(|tip| *tip != Tip::START),
    }
}
