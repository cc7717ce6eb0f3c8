//! `completions` and `man`: both are made of the command line's own definition.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::{
    cli::Cli,
    error::{FileError, WalletError},
    output::Output,
};

/// Prints the completion script of a shell.
pub fn completions(output: Output, shell: Shell) -> Result<(), WalletError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tally-wallet", &mut script);
    output.raw(&script)
}

/// Prints the page of the whole program, or writes one page for each command into a folder.
pub fn man(output: Output, folder: Option<&Path>) -> Result<(), WalletError> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|source| WalletError::Stdout { done: String::new(), source })?;
        return output.raw(&page);
    };
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|source| FileError::Write { file: folder.to_owned(), source })?;
    let text =
        format!("manual pages are in {}; read one with: man -l {}/tally-wallet.1", folder.display(), folder.display());
    output.result(&text, &json!({ "folder": folder.display().to_string() }))
}
