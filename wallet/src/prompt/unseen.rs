//! What is typed at a hidden prompt, from the first key on.

use std::{
    fs::{File, OpenOptions},
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The terminal as it was before a hidden prompt; none while there is no such prompt.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);
/// How long the listener for Ctrl-C may take to end the program.
const END_TIME: Duration = Duration::from_secs(2);

/// Asks on the terminal of this process and returns what is typed until Enter.
///
/// rpassword asks first and switches the echo off afterwards: who types at once would see the secret on the screen, and a
/// Ctrl-C in between would not be one of its own. So the terminal is switched before.
///
/// # Errors
/// `UnexpectedEof` for the end of input, and whatever the terminal says. Ctrl-C ends the program.
pub fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
    switch()?;
    let typed = rpassword::prompt_password(prompt);
    restore_terminal();
    if typed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
        // rpassword has raised SIGINT, and whoever listens for it says so and ends the program.
        std::thread::sleep(END_TIME);
    }
    typed.map(Zeroizing::new)
}

/// Without echo, line editing and signals, as rpassword needs it.
fn switch() -> io::Result<()> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut modes = before.clone();
    modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    let mut kept = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    *kept = Some((terminal, before));
    Ok(())
}

/// Gives the terminal back as it was, if a hidden prompt has it.
pub fn restore_terminal() {
    let kept = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((terminal, before)) = kept {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}
