//! Bends good inputs: the same run bends the same way, on every machine.

/// Values that often stand at the edge of something.
const EDGES: [u8; 10] = [0x00, 0x01, 0x7f, 0x80, 0x81, 0xfe, 0xff, 0x08, 0x10, 0x20];
/// No input is longer.
const BYTES_MAX: usize = 64 * 1024;

/// A generator of numbers (splitmix64): what is needed here, and no dependency.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// One of `seeds` with a few things done to it, by the number of the run.
pub fn bend(seeds: &[Vec<u8>], run: u64) -> Vec<u8> {
    let mut numbers = Numbers(run);
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(6) {
        bend_once(&mut bytes, seeds, &mut numbers);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn bend_once(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(bytes.len() + 1);
    let end = (at + numbers.below(40)).min(bytes.len());
    match numbers.below(10) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        3 => {
            let random: Vec<u8> = (0..numbers.below(9)).map(|_| numbers.next() as u8).collect();
            bytes.splice(at..at, random);
        }
        4 => {
            // A part of another seed.
            let other = &seeds[numbers.below(seeds.len())];
            let from = numbers.below(other.len() + 1);
            let to = (from + numbers.below(100)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        5 => bytes.insert(at, EDGES[numbers.below(EDGES.len())]),
        kind => {
            let Some(byte) = bytes.get_mut(at) else { return };
            *byte = match kind {
                6 => *byte ^ 1 << numbers.below(8),
                7 => byte.wrapping_add(1),
                8 => EDGES[numbers.below(EDGES.len())],
                _ => numbers.next() as u8,
            };
        }
    }
}
