//! A small chain that all targets share: its genesis and the frozen bytes of everything on it.

use std::{collections::HashMap, sync::OnceLock};

use tally_types::Genesis;

/// The vectors that libraries in other languages check themselves against.
const VECTORS: &str = include_str!("../../clients/vectors/vectors.txt");

/// Value of a line of the vectors, as bytes.
pub fn vector(name: &str) -> Vec<u8> {
    static LINES: OnceLock<HashMap<&str, &str>> = OnceLock::new();
    let lines = LINES.get_or_init(|| VECTORS.lines().filter_map(|line| line.split_once(' ')).collect());
    let value = lines.get(name).unwrap_or_else(|| panic!("no vector {name}"));
    hex::decode(value).unwrap_or_else(|_| value.as_bytes().to_vec())
}

/// The chain of the vectors.
pub fn genesis() -> &'static Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| Genesis::parse(&vector("genesis.file")).expect("the frozen genesis is good"))
}

/// Bytes that are read as one decision each: any will do, so some with different lengths and patterns.
pub fn decisions() -> Vec<Vec<u8>> {
    let pattern =
        |step: u8| (0..400u16).map(|at| (at as u8).wrapping_mul(step).rotate_left(u32::from(at % 7))).collect();
    [1, 7, 37, 101, 151, 211].into_iter().map(pattern).collect()
}
