//! Programs of which the tests read every line.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// A program that runs, and what it says: on standard output and standard error alike. Dropping it ends it.
pub struct Talking {
    name: String,
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Talking {
    pub fn start(name: &str, command: &mut Command) -> Talking {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{name}: {error}: tests/run installs it"));
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Talking { name: name.into(), child, lines, said: Vec::new() }
    }

    /// Waits for a line that fits, among those that nobody has read yet.
    pub fn says(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + super::DEADLINE;
        loop {
            let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                let last = &self.said[self.said.len().saturating_sub(10)..];
                panic!("{} does not say {what}; it said at last {last:#?}", self.name);
            };
            self.said.push(line);
            if let Some(line) = self.said.last().filter(|line| fits(line)) {
                return line.clone();
            }
        }
    }

    /// Everything that it has said so far.
    pub fn said(&mut self) -> &[String] {
        self.said.extend(self.lines.try_iter());
        &self.said
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
