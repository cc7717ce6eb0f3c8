//! What goes wrong with disks: bits rot, writes go astray, syncs fail, space runs out.

use tally_node::store::{
    disk::Disk as _,
    sim_disk::{SECTOR_BYTES, SimDisk},
};

use crate::world::World;

impl World {
    /// Damages what a stopped node's disk holds, sometimes. One bit is damage that rule R2 mends; more may cost both copies, and
    /// the next start shows whether it did: see [`World::start`].
    pub fn rot(&mut self, node: usize) {
        if !self.rng.percent(60) {
            return;
        }
        if self.rng.percent(25) {
            // A snapshot is a cache, and shows every damage.
            let disk = self.nodes[node].snapshots.clone();
            match self.rng.percent(50) {
                true => self.flip_bits(node, &disk, 8),
                false => _ = self.misdirect(node, &disk),
            }
            return;
        }
        let disk = self.nodes[node].disk.clone();
        match self.rng.below(5) {
            0 | 1 => self.flip_bits(node, &disk, 1),
            4 => {
                // The whole disk is gone: the node finds an empty journal where there was one, and follows. Rule R3 makes
                // that safe, so it is still held to what it signed.
                self.lose_disk(node);
                self.nodes[node].synced = 1;
                self.nodes[node].disk_gone = true;
                self.note(node as u64 ^ 0xd1, || format!("the disk of {node} is gone"));
            }
            2 => {
                let bits = 2 + self.rng.below(8);
                // A group is without a trace once each of its sectors is damaged, and has two at least.
                self.nodes[node].may_lack += bits / 2;
                self.flip_bits(node, &disk, bits);
            }
            _ => self.nodes[node].may_lack += self.misdirect(node, &disk),
        }
    }

    fn flip_bits(&mut self, node: usize, disk: &SimDisk, bits: u64) {
        for _ in 0..bits {
            let Some((name, bytes)) = self.some_file(disk) else { return };
            let (offset, bit) = (self.rng.index(bytes.len()), self.rng.below(8) as u8);
            disk.flip_bit(&name, offset, bit);
            self.note(offset as u64, || format!("a bit rots on the disk of {node}: {name} at byte {offset}"));
        }
    }

    /// A write that went elsewhere, in this file or another: the content of some sectors lies over others, and mostly where it
    /// should be there are the zeros that were there before. It may be as long as whole groups of the journal, both copies of what
    /// is vital among it. How many groups it may have hit.
    fn misdirect(&mut self, node: usize, disk: &SimDisk) -> u64 {
        let (Some((name, mut bytes)), Some((other, mut over))) = (self.some_file(disk), self.some_file(disk)) else {
            return 0;
        };
        let sectors = [&bytes, &over].map(|file| file.len() / SECTOR_BYTES);
        let [from, to] = sectors.map(|sectors| self.rng.index(sectors.max(1)));
        let wanted = if self.rng.percent(50) { 1 } else { 2 + self.rng.index(15) };
        let count = wanted.min(sectors[0] - from.min(sectors[0])).min(sectors[1] - to.min(sectors[1]));
        if count == 0 || (&name, from) == (&other, to) {
            return 0;
        }
        let range = |sector: usize| sector * SECTOR_BYTES..(sector + count) * SECTOR_BYTES;
        let content = bytes[range(from)].to_vec();
        if self.rng.percent(70) {
            bytes[range(from)].fill(0);
            disk.put(&name, bytes.clone());
        }
        if name == other {
            over = bytes;
        }
        over[range(to)].copy_from_slice(&content);
        disk.put(&other, over);
        self.note(to as u64, || {
            format!(
                "a write goes astray on the disk of {node}: {count} sectors of {name} from {from}, to {other} at {to}"
            )
        });
        // What was there and what is there now, each in groups of a sector or more.
        2 * count as u64 + 1
    }

    fn some_file(&mut self, disk: &SimDisk) -> Option<(String, Vec<u8>)> {
        let names = disk.list().ok()?;
        if names.is_empty() {
            return None;
        }
        let name = names[self.rng.index(names.len())].clone();
        let bytes = disk.bytes(&name).filter(|bytes| !bytes.is_empty())?;
        Some((name, bytes))
    }

    /// Leaves a running node's disk room for a little more than it holds.
    pub fn fill_disk(&mut self, node: usize) {
        let disk = self.nodes[node].disk.clone();
        let names = disk.list().unwrap_or_default();
        let used: usize = names.iter().filter_map(|name| disk.bytes(name)).map(|bytes| bytes.len()).sum();
        let room = self.rng.below(40_000);
        disk.set_capacity(Some(used as u64 + room));
        let snapshots = self.nodes[node].snapshots.clone();
        let used: usize =
            snapshots.list().unwrap_or_default().iter().filter_map(|name| snapshots.bytes(name)).map(|b| b.len()).sum();
        snapshots.set_capacity(Some(used as u64 + room / 8));
        self.note(room, || format!("the disk of {node} has room for {room} bytes more"));
    }
}
