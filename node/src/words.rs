//! What commands say: results on standard output, progress on standard error. A reader that went away and a disk that is full end no
//! network and no measurement: what could not be said is told by the exit code, once the command is through.

use std::{
    fmt,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

/// The first error of standard output.
static UNSAID: Mutex<Option<io::Error>> = Mutex::new(None);

/// Says a line of a result.
macro_rules! say {
    ($($arg:tt)*) => { $crate::words::say_line(format_args!($($arg)*)) };
}

/// Says a line of progress, if anybody listens.
macro_rules! note {
    ($($arg:tt)*) => { $crate::words::note_line(format_args!($($arg)*)) };
}

pub(crate) use {note, say};

pub fn say_line(line: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        UNSAID.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

pub fn note_line(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Why a result was not said whole; none: it was.
pub fn unsaid() -> Option<io::Error> {
    UNSAID.lock().unwrap_or_else(PoisonError::into_inner).take()
}
