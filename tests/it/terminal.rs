//! A person in front of the wallet: what it says on a pseudo-terminal, and what is typed there.

use std::{
    io::{Read as _, Write as _},
    process::ExitStatus,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use pty_process::blocking::{Command, Pty, open};
use rustix::termios::{LocalModes, tcgetattr};

use crate::{network::DEADLINE, wallet::Wallet};

/// A wallet that somebody sits in front of.
pub struct Terminal {
    child: std::process::Child,
    pty: Arc<Pty>,
    said: Arc<(Mutex<String>, Condvar)>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    /// Runs `tally-wallet`, which asks on this terminal whatever it has to ask.
    pub fn start(wallet: &Wallet, arguments: &[&str]) -> Terminal {
        Terminal::start_with(wallet, arguments, |command| command.env("NO_COLOR", "1"))
    }

    /// The same, after `change` to its environment or its streams.
    pub fn start_with(wallet: &Wallet, arguments: &[&str], change: impl FnOnce(Command) -> Command) -> Terminal {
        let (pty, pts) = open().unwrap();
        // Wide enough that no line is broken.
        pty.resize(pty_process::Size::new(50, 400)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tally-wallet"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TALLY_")) {
            command = command.env_remove(name);
        }
        command = command.env("TALLY_CONFIG_DIR", wallet.path("config")).args(arguments);
        let child = change(command.current_dir(wallet.folder())).spawn(pts).unwrap();
        let (pty, said) = (Arc::new(pty), Arc::<(Mutex<String>, Condvar)>::default());
        let (reader, heard) = (pty.clone(), said.clone());
        let reader_thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is an error on Linux.
            while let Ok(count @ 1..) = (&*reader).read(&mut buffer) {
                heard.0.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
                heard.1.notify_all();
            }
        });
        Terminal { child, pty, said, reader: Some(reader_thread) }
    }

    /// Waits until it has said `text`.
    pub fn expect(&mut self, text: &str) -> &mut Terminal {
        let begin = Instant::now();
        while !self.said().contains(text) {
            if let Some(status) = self.ended() {
                assert!(self.said().contains(text), "{status} before {text:?}: {}", self.said());
            }
            assert!(begin.elapsed() < DEADLINE, "no {text:?} in {}", self.said());
            // At once when something is said, so that a test types as early as anybody can.
            let said = self.said.0.lock().unwrap();
            if !said.contains(text) {
                drop(self.said.1.wait_timeout(said, Duration::from_millis(10)).unwrap());
            }
        }
        self
    }

    /// Types; Enter is "\r", Ctrl-C "\u{3}", the end of input "\u{4}".
    pub fn types(&mut self, keys: &str) -> &mut Terminal {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until what is typed is shown, or no longer is.
    pub fn expect_echo(&mut self, shown: bool) -> &mut Terminal {
        let begin = Instant::now();
        while tcgetattr(&*self.pty).unwrap().local_modes.contains(LocalModes::ECHO) != shown {
            assert!(begin.elapsed() < DEADLINE, "the echo is still {}", if shown { "off" } else { "on" });
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }

    /// All that it has said so far.
    pub fn said(&self) -> String {
        self.said.0.lock().unwrap().clone()
    }

    /// How it ended, if it did; everything it said was then heard.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Some(status)
    }

    fn ends(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if begin.elapsed() > DEADLINE {
                let _ = self.child.kill();
                panic!("it does not end: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it ends, with this exit code.
    pub fn ends_with(&mut self, code: i32) {
        let status = self.ends();
        assert_eq!(status.code(), Some(code), "{}", self.said());
    }
}
