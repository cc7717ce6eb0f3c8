//! `docs/errors.md`: what a node refuses with, and what to do about it.

use std::fmt::Write as _;

use crate::contract::{ENUMS, MEMBERS, files, numbered};

const HEAD: &str = "# Errors

Every error of the client API is a gRPC status with `google.rpc.ErrorInfo`: `domain` is `tally.v1`, `reason` stands below,
`metadata` has the facts. `google.rpc.BadRequest` names a wrong field, `google.rpc.RetryInfo` says when trying again helps. In
responses that hold many answers, [ErrorDetail](api.md#errordetail) says the same.

The wallet puts each reason into words with its facts, and ends with the exit code; its advice is the last column.

| reason | code, meaning, metadata | wallet's exit code | what to do |
|---|---|---|---|
";

const OWN: &str = "
## Reasons of the wallet itself

What the wallet finds by itself, before or without a node.

| reason | meaning | exit code | what to do |
|---|---|---|---|
";

const TAIL: &str = "
## Exit codes of the wallet

| code | means |
|---|---|
| 0 | done; of a payment that was waited for: final, according to who was asked |
| 1 | the wallet itself could not go on |
| 2 | the command line is wrong |
| 3 | no node answered, or none that can |
| 4 | rejected: it will not run; of bytes that may have been sent before (`tx submit`, `pay`): not taken now, and until their expire time not certain |
| 5 | it ran in a block and failed; the fee is paid |
| 6 | not known yet; the message says until when it may still run, and how to go on waiting |
| 7 | expired: it never ran and never will |
| 8 | key, passphrase or prompt |
| 9 | not found |
| 10 | another network than the one that was pinned, or a signature that does not hold |
| 130 | interrupted |
";

pub fn page() -> String {
    let files = files();
    let file = files.iter().find(|file| file.descriptor.name().ends_with("error.proto")).unwrap();
    let mut page = HEAD.to_owned();
    for (at, value) in numbered(&file.descriptor.enum_type[0].value).skip(1) {
        let reason = value.name().strip_prefix("ERROR_REASON_").unwrap();
        let meaning = file.comment(&[ENUMS, 0, MEMBERS, at]);
        let (exit, advice) = tally_wallet::advice(reason);
        let advice = advice.replace("(not told)", "…").replace('|', "\\|");
        writeln!(page, "| `{reason}` | {meaning} | {exit} | {advice} |").unwrap();
    }
    page.push_str(OWN);
    for own in tally_wallet::OWN_REASONS {
        writeln!(page, "| `{}` | {} | {} | {} |", own.name, own.meaning, own.exit, own.next).unwrap();
    }
    page.push_str(TAIL);
    page
}
