//! Transaction files: reading, and writing to a new file or to stdout.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::Context;
use crate::{
    client::trace::quoted_if_odd,
    envelope::{Envelope, EnvelopeError, FILE_BYTES_MAX},
    error::{FileError, WalletError},
    files,
    output::rfc3339,
};

/// A transaction file; "-" is standard input.
pub fn read(file: &Path) -> Result<Envelope, WalletError> {
    let bytes = match file.as_os_str() == "-" {
        true => files::read_all_bounded(io::stdin().lock(), FILE_BYTES_MAX),
        false => files::read_bounded(file, FILE_BYTES_MAX),
    };
    let wrong = |problem| FileError::Envelope { file: file.to_owned(), problem };
    let bytes = bytes.map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => wrong(EnvelopeError::TooLarge),
        _ => FileError::Read { file: file.to_owned(), source },
    })?;
    Ok(Envelope::parse(&bytes).map_err(wrong)?)
}

/// Writes `envelope` to a new file and says so, or to stdout as the result.
pub fn write(context: &Context, envelope: &Envelope, out: Option<&PathBuf>) -> Result<(), WalletError> {
    let Some(out) = out else { return context.output.raw(envelope.to_text().as_bytes()) };
    files::write_new(out, envelope.to_text().as_bytes())
        .map_err(|source| FileError::Write { file: out.clone(), source })?;
    let (id, until) = (envelope.id(), rfc3339(envelope.expire_time()));
    let (state, next) = match envelope.is_signed() {
        true => ("signed", format!("tally-wallet tx submit {}", quoted_if_odd(&out.display().to_string()))),
        false => ("unsigned", format!("tally-wallet tx sign {}", quoted_if_odd(&out.display().to_string()))),
    };
    let text = format!("{state} transaction {id} in {}, to run until {until}\nnext: {next}", out.display());
    let json = json!({
        "txId": id.to_string(),
        "signed": envelope.is_signed(),
        "file": out.display().to_string(),
        "expireTime": until,
    });
    context.output.result(&text, &json)
}
