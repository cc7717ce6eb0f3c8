//! Who did what, when: a digest of everything that happens, and readable lines when somebody wants to read them.

use std::{cell::RefCell, collections::VecDeque};

use crate::keys::fold;

/// Lines kept of a run that is being traced.
const LINES_KEPT: usize = 200_000;

thread_local! {
    /// Outlives the world, so that the lines of a run that panics can still be read.
    static LINES: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// See the module.
pub struct Trace {
    /// Digest of everything that happened: equal seeds give equal traces.
    pub history: u64,
    reading: bool,
    /// Somebody wants to read the lines of whatever fails.
    asked: bool,
}

impl Trace {
    pub fn new(reading: bool) -> Trace {
        LINES.with_borrow_mut(VecDeque::clear);
        let asked = std::env::var_os("SIM_TRACE").is_some() && !reading;
        Trace { history: 0x7461_6c6c_7921, reading: reading || asked, asked }
    }

    /// Notes something at `now`; `digest` tells it from anything else that may happen then.
    pub fn note(&mut self, now: u64, digest: u64, line: impl FnOnce() -> String) {
        self.history = fold(self.history ^ now, 0x9e37_79b9_7f4a_7c15) ^ fold(digest | 1 << 63, 0xd6e8_feb8_6659_fd93);
        if self.reading {
            let line = format!("{now:>8} {}", line());
            LINES.with_borrow_mut(|lines| {
                if lines.len() >= LINES_KEPT {
                    lines.pop_front();
                }
                lines.push_back(line);
            });
        }
    }
}

impl Drop for Trace {
    /// A world that a scenario fails in says how to see it again, or shows itself. Those of drawn seeds have a command of their own.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        match std::thread::current().name() {
            _ if self.asked => last_lines(LINES_KEPT).iter().for_each(|line| eprintln!("{line}")),
            Some(test) if test != "campaign::one_seed" && !self.reading => {
                eprintln!("what happened: SIM_TRACE=1 {} {test} -- --exact --nocapture", command());
            }
            _ => {}
        }
    }
}

/// The command that runs tests of worlds as this was built: what overflows fails in one profile and not in the other.
pub fn command() -> &'static str {
    if cfg!(debug_assertions) { "cargo test --test sim" } else { "cargo test --release --test sim" }
}

/// The last `most` lines of the run traced last on this thread.
pub fn last_lines(most: usize) -> Vec<String> {
    LINES.with_borrow(|lines| lines.iter().skip(lines.len().saturating_sub(most)).cloned().collect())
}
