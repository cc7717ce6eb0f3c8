//! The `tally-wallet` binary: everything it does is in the library `tally_wallet`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tally_wallet::run(std::env::args_os())
}
