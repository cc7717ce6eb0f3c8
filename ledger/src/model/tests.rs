//! Random blocks, and one execution in two processes.

use std::process::Command;

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::*;

fn draft() -> impl Strategy<Value = Draft> {
    let size = prop_oneof![
        8 => (1u64..300).prop_map(Size::Units),
        2 => (1u64..2 * BALANCE).prop_map(Size::Units),
        2 => (0u64..2).prop_map(Size::Rest),
        1 => Just(Size::Units(u64::MAX)),
        1 => (MIN_OPENING - 1..=MIN_OPENING).prop_map(Size::Units),
    ];
    let operation =
        (prop::bool::weighted(0.3), 0u8..12, size).prop_map(|(create, to, size)| DraftOperation { create, to, size });
    let ahead = prop_oneof![8 => Just(1i64), 2 => -3i64..4, 1 => -130i64..-125, 1 => 125i64..131];
    let limit = MAX_EXPIRY as i64;
    let expires = prop_oneof![8 => 0i64..1000, 1 => -1i64..1, 1 => limit - 1..limit + 2];
    let fee_above = prop_oneof![4 => Just(None), 1 => (-1i64..2).prop_map(Some)];
    let operations = prop_oneof![6 => prop::collection::vec(operation.clone(), 1..4),
        1 => prop::collection::vec(operation, 10..20)];
    (1u8..12, ahead, expires, fee_above, operations).prop_map(|(sender, ahead, expires, fee_above, operations)| Draft {
        sender,
        ahead,
        expires,
        fee_above,
        operations,
    })
}

/// Blocks of three lanes.
fn blocks() -> impl Strategy<Value = Vec<[Vec<Draft>; 3]>> {
    let lane = || prop::collection::vec(draft(), 0..8);
    prop::collection::vec([lane(), lane(), lane()], 1..6)
}

proptest! {
    #[test]
    fn ledger_and_model_agree_on_every_block(blocks in blocks()) {
        let ledger = play(blocks, |ledger, model, outcome, expected| {
            compare(ledger, model, outcome, expected);
            Ok::<_, TestCaseError>(())
        })?;
        let copy = Ledger::decode_snapshot(&ledger.encode_snapshot(), &testing::genesis()).unwrap();
        prop_assert_eq!(copy.executed(), ledger.executed());
    }
}

/// Set in the processes that only execute and print.
const PRINT: &str = "TALLY_LEDGER_PRINT_ROOTS";

/// Whatever differs between two processes, seeds of hash maps and addresses in memory among it, must not show in a root.
#[test]
fn the_same_transactions_in_two_processes_give_identical_roots() {
    if std::env::var_os(PRINT).is_some() {
        let mut runner = TestRunner::deterministic();
        for _ in 0..50 {
            let blocks = blocks().new_tree(&mut runner).unwrap().current();
            let print = |ledger: &Ledger, _: &Model, _, _| {
                println!("executed {:?}", ledger.executed());
                Ok::<_, TestCaseError>(())
            };
            play(blocks, print).unwrap();
        }
        return;
    }
    let roots = || {
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.args([
            "--exact",
            "model::tests::the_same_transactions_in_two_processes_give_identical_roots",
            "--nocapture",
        ]);
        let output = process.env(PRINT, "1").output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with("executed ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, other) = (roots(), roots());
    assert!(one.len() > 100, "{} blocks", one.len());
    assert_eq!(one, other);
}
