//! Whoever asks it for headers, batches or blocks gets something else. Rules S0 and S2: everything proves itself.

use tally_types::{Batch, UnixMillis};

use super::{Behaviour, Scene, changed};
use crate::network::Answer;

pub struct FalseAnswers;

impl Behaviour for FalseAnswers {
    fn on_answer(&mut self, scene: &mut Scene<'_>, answer: Answer) -> Answer {
        let draw = scene.rng.below(8);
        match answer {
            Answer::Headers(mut headers) => {
                match draw {
                    0..=2 => headers.clear(),
                    _ => headers.iter_mut().for_each(|header| {
                        *header = changed(header, |header| header.time = UnixMillis(header.time.0 + 1));
                    }),
                }
                Answer::Headers(headers)
            }
            Answer::Batches(mut batches) => {
                match draw {
                    0 => batches.clear(),
                    1 => batches.reverse(),
                    2 => batches.truncate(1),
                    _ => batches.iter_mut().for_each(|batch| *batch = doubled(batch)),
                }
                Answer::Batches(batches)
            }
            Answer::Blocks(mut blocks) => {
                let first = blocks.first().and_then(|block| block.commit.clone());
                match draw {
                    0 => blocks.clear(),
                    1 => blocks.reverse(),
                    2 => drop(blocks.drain(..blocks.len().min(1))),
                    3 => blocks.iter_mut().for_each(|block| block.commit = first.clone()),
                    4 => blocks.iter_mut().for_each(|block| block.commit = None),
                    5 => blocks.iter_mut().for_each(|block| drop(block.batches.pop())),
                    6 => blocks.iter_mut().for_each(|block| {
                        block.batches = block.batches.iter().map(doubled).collect();
                    }),
                    _ => blocks.iter_mut().for_each(|block| {
                        block.header = changed(&block.header, |header| header.time = UnixMillis(header.time.0 + 1));
                    }),
                }
                Answer::Blocks(blocks)
            }
        }
    }
}

/// The same place of the same lane, with its first transaction twice.
fn doubled(batch: &Batch) -> Batch {
    let mut transactions = batch.transactions().to_vec();
    transactions.push(transactions[0].clone());
    Batch::new(batch.epoch(), batch.lane(), batch.parent_tip(), transactions)
}
