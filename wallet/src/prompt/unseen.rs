//! What is typed at a hidden prompt, from the first key on.

use std::{
    fs::{File, OpenOptions},
    io,
};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Asks on the terminal of this process and returns what is typed until Enter.
///
/// rpassword asks first and switches the echo off afterwards: who types at once would see the secret on the screen, and a
/// Ctrl-C in between would be a signal that nothing acts on while this thread reads. So the terminal is switched before.
///
/// # Errors
/// `Interrupted` for Ctrl-C, `UnexpectedEof` for the end of input, and whatever the terminal says.
pub fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
    let _switched = Switched::now()?;
    // Blocks this thread on purpose: rpassword answers Ctrl-C by raising SIGINT, and the terminal must have its echo back before
    // anything acts on that.
    rpassword::prompt_password(prompt).map(Zeroizing::new)
}

/// The terminal without echo, line editing and signals, as rpassword needs it; as it was once this is dropped.
struct Switched {
    terminal: File,
    before: Termios,
}

impl Switched {
    fn now() -> io::Result<Switched> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        Ok(Switched { terminal, before })
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
