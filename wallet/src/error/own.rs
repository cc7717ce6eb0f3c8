//! The reasons that the wallet itself gives, beside those of nodes: docs/errors.md lists them.

/// A reason for scripts, and what it is about.
#[derive(Clone, Copy, Debug)]
pub struct OwnReason {
    /// Its name, stable.
    pub name: &'static str,
    /// The exit codes it comes with.
    pub exit: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it; empty: nothing.
    pub next: &'static str,
}

const fn own(name: &'static str, exit: &'static str, meaning: &'static str, next: &'static str) -> OwnReason {
    OwnReason { name, exit, meaning, next }
}

/// All of them, by exit code.
pub const OWN_REASONS: [OwnReason; 36] = [
    own(
        "FILE",
        "1, 2",
        "A file cannot be read, or not be written.",
        "See the message: it names the file and the system's answer.",
    ),
    own("IN_USE", "1", "Another `pay` works with that journal.", "Wait until it has ended."),
    own("STDOUT", "1", "The result could not be written.", ""),
    own("SYSTEM", "1", "The system refused something that the wallet cannot do without.", ""),
    own(
        "USAGE",
        "2",
        "The command line does not fit together, or a value is out of range.",
        "See `--help` of the command.",
    ),
    own(
        "ADDRESS_INVALID",
        "2",
        "No address, and no name of a key or contact.",
        "Copy the whole address: 64 characters that start with tally1.",
    ),
    own(
        "AMOUNT_INVALID",
        "2",
        "No amount, or more decimal places than the token has.",
        "Write the amount in tokens, for example 12.5.",
    ),
    own(
        "SECRET_TYPED",
        "2",
        "A secret key or its words stand where an address or a name belongs.",
        "It is in the shell's history now: if it is a real key, move its tokens to a new one.",
    ),
    own(
        "CONFIG",
        "2",
        "The configuration cannot be read, or a name in it is not possible.",
        "Correct the file that the message names.",
    ),
    own(
        "NETWORK_EXISTS",
        "2",
        "There is a network of that name.",
        "Choose another name, or `network remove` it first.",
    ),
    own(
        "TRANSACTION_FILE",
        "2",
        "A file holds no transaction, or one that was changed.",
        "Make it again with `send --build-only`.",
    ),
    own(
        "TRANSACTION_INVALID",
        "2",
        "What was to be signed is no transaction of that chain.",
        "Shorten the memo, or send less at once.",
    ),
    own(
        "PAYMENT_FILE",
        "2",
        "A line of a list of payments is wrong; nothing was paid.",
        "Correct the line that the message names.",
    ),
    own(
        "JOURNAL",
        "2",
        "The journal of a list is of another list, chain or sender, or damaged.",
        "Name another with `--journal`; keep this one.",
    ),
    own("UNREACHABLE", "3", "No connection, or it broke.", "Start the node, or name another with `--node`."),
    own(
        "NO_ANSWER",
        "3",
        "The node took the connection and did not answer in time.",
        "Try again, or name another with `--node`.",
    ),
    own("ANSWER_INVALID", "3", "A node's answer makes no sense.", "Name another node, and tell who runs this one."),
    own("NODE_ERROR", "3", "A node failed inside.", "Try again, or name another node."),
    own(
        "UNIMPLEMENTED",
        "3",
        "The node does not know the call: it is another version, or no Tally node.",
        "Name another node.",
    ),
    own(
        "NODES_DISAGREE",
        "3",
        "No answer has more than a third of the stake behind it.",
        "Name more nodes, or one that you trust.",
    ),
    own("UNWELL", "3, 8, 10", "`doctor` found something.", "Do what each line says."),
    own(
        "OUTCOME_UNKNOWN",
        "6",
        "Nobody knows yet what became of a transaction. It may still run until the time that the message names.",
        "Do not send it again; go on waiting with the command that the message shows.",
    ),
    own(
        "KEY_FILE",
        "8",
        "A key file is damaged, or not what it should be.",
        "Restore it from a backup, or import the words again.",
    ),
    own("KEY_EXISTS", "8", "There is a key of that name.", "Choose another name."),
    own("KEY_NAME_INVALID", "8", "No possible name of a key.", "Use letters, digits, `-` and `_`."),
    own(
        "PASSPHRASE_WRONG",
        "8",
        "The passphrase does not open the key.",
        "Try again; nobody can recover it. The words make the key again.",
    ),
    own(
        "PROMPT_IMPOSSIBLE",
        "8",
        "A question must be answered and nobody can be asked.",
        "Give the flag that the message names.",
    ),
    own(
        "SECRET_INPUT",
        "8",
        "What was typed or piped in is no passphrase, no key or no words.",
        "See the message; nothing was changed.",
    ),
    own("NOT_CONFIRMED", "8", "The question was answered with no, or not at all.", "Nothing was done."),
    own(
        "RECIPIENT_NOT_CONFIRMED",
        "8",
        "The last characters of a lookalike address were not repeated.",
        "Compare the whole address over another way than the one it came by.",
    ),
    own(
        "BACKUP_DIFFERS",
        "8",
        "The words are another key's.",
        "Try `--account N`; otherwise the paper is another key's.",
    ),
    own("KEY_NOT_FOUND", "8", "There is no key of that name here.", ""),
    own("CONTACT_NOT_FOUND", "9", "There is no contact of that name.", ""),
    own("NETWORK_NOT_FOUND", "9", "There is no network of that name.", ""),
    own("WRONG_NETWORK", "10", "The node follows another chain than the one that was pinned. Nothing was signed.", ""),
    own("INTERRUPTED", "130", "Ctrl-C.", ""),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use tally_proto::v1::ErrorReason;

    use super::OWN_REASONS;

    /// Words in capitals that are no reasons: a symbol of a token, and what fills a gap in an example.
    const OTHERS: [&str; 2] = ["TALLY", "AMOUNT"];

    fn sources(folder: &Path, found: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.ends_with("error/own.rs") {
                found.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_reason_that_the_wallet_gives_is_listed_and_every_one_listed_is_given() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        // What an arm gives, and what a field or a constant holds: `=> "X"`, `reason: "X"`, `: &str = "X"`.
        let parts: Vec<&str> = text.split('"').collect();
        let is_given = |before: &str| ["=>", "reason:", ": &str ="].iter().any(|end| before.trim_end().ends_with(end));
        let is_name = |word: &str| word.len() > 3 && word.chars().all(|sign| sign.is_ascii_uppercase() || sign == '_');
        let pairs = parts.windows(2).filter(|pair| is_given(pair[0]) && is_name(pair[1]));
        let said: BTreeSet<&str> = pairs.map(|pair| pair[1]).collect();
        let listed: BTreeSet<&str> = OWN_REASONS.iter().map(|own| own.name).collect();
        assert_eq!(listed.len(), OWN_REASONS.len(), "one stands twice");
        for word in &said {
            if word.starts_with("TALLY_") {
                continue;
            }
            let of_nodes = ErrorReason::from_str_name(&format!("ERROR_REASON_{word}")).is_some();
            assert!(of_nodes || listed.contains(word) || OTHERS.contains(word), "{word} is not in the list");
        }
        assert!(listed.is_subset(&said), "never given: {:?}", listed.difference(&said));
    }
}
