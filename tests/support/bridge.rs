//! The bridge, in this process or as the real program.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use kasa2mqtt::app::{self, Ended};
use kasa2mqtt::config::Config;
use kasa2mqtt::http::Door;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::house::FREE;
use super::{DEADLINE, soon};

/// The bridge as a task of the test.
pub struct Bridge {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<Ended, app::Error>>,
}

impl Bridge {
    /// The same with a status page on a free port.
    pub async fn with_page(mut config: Config) -> (Bridge, SocketAddr) {
        config.http.listen.get_or_insert(FREE);
        let door = Door::open(&config.http).unwrap().unwrap();
        let page = door.address();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            app::run_behind(Some(door), &config, Instant::now(), stopped).await
        });
        (Bridge { stop: Some(stop), task }, page)
    }

    pub fn start(config: Config) -> Bridge {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            app::run(&config, Instant::now(), async {
                let _ = stopped.await;
            })
            .await
        });
        Bridge { stop: Some(stop), task }
    }

    pub async fn stop(mut self) -> Result<Ended, app::Error> {
        drop(self.stop.take());
        self.ended().await
    }

    pub async fn ended(&mut self) -> Result<Ended, app::Error> {
        soon("the bridge to end", &mut self.task).await.unwrap()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The real program, configured by its environment.
pub struct Program {
    child: Option<Child>,
}

impl Program {
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kasa2mqtt"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Tests stay on loopback.
        command.env("KASA2MQTT_SCAN__ENABLED", "false");
        command
    }

    /// `run` with a broker and plugs.
    pub fn run(broker: SocketAddr, plugs: &[SocketAddr]) -> Program {
        let plugs: Vec<String> = plugs.iter().map(|plug| format!("{{host=\"{plug}\"}}")).collect();
        Program::run_with(broker, &plugs)
    }

    /// `run` with a broker and plugs as the configuration writes them.
    pub fn run_with(broker: SocketAddr, plugs: &[String]) -> Program {
        let mut command = Program::command();
        command.arg("run").env("KASA2MQTT_MQTT__URL", format!("mqtt://{broker}"));
        command.env("KASA2MQTT_PLUG", format!("[{}]", plugs.join(",")));
        // A pipe that nobody reads would fill up.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Program::spawn(&mut command)
    }

    /// `run` with a broker and plugs; what it logs goes to a file.
    pub fn run_logged(broker: &str, plugs: &[SocketAddr], log: &Path) -> Program {
        let mut command = Program::logged(broker, plugs, log);
        Program::spawn(&mut command)
    }

    /// The same, to be changed before it starts.
    pub fn logged(broker: &str, plugs: &[SocketAddr], log: &Path) -> Command {
        let plugs: Vec<String> = plugs.iter().map(|plug| format!("{{host=\"{plug}\"}}")).collect();
        let mut command = Program::command();
        command.args(["run", "--log", "info"]).env("KASA2MQTT_MQTT__URL", format!("mqtt://{broker}"));
        command.env("KASA2MQTT_PLUG", format!("[{}]", plugs.join(",")));
        command.env("KASA2MQTT_POLL__INTERVAL", "1s");
        command.stdout(Stdio::null()).stderr(File::create(log).unwrap());
        command
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn spawn(command: &mut Command) -> Program {
        Program { child: Some(command.spawn().unwrap()) }
    }

    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Reads lines of its output until one fits; a program that never says it is ended, so that the test is, too.
    pub fn read_until(&mut self, mut fits: impl FnMut(&str) -> bool) -> String {
        let child = self.child.as_mut().unwrap();
        let id = child.id();
        let output = child.stdout.as_mut().unwrap();
        let (said, hears) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if hears.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                    signal("KILL", id);
                }
            });
            // Dropped as this closure ends, however it does.
            let _said = said;
            let (mut line, mut all) = (String::new(), String::new());
            let mut reader = BufReader::with_capacity(1, output);
            loop {
                line.clear();
                let is_end = reader.read_line(&mut line).unwrap() == 0;
                assert!(!is_end, "the program ended without saying it, but this:\n{all}");
                if fits(&line) {
                    return line;
                }
                all.push_str(&line);
            }
        })
    }

    /// Reads the rest of its output, so that it never waits for us.
    pub fn drain(&mut self) {
        let mut output = self.child.as_mut().unwrap().stdout.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    }

    /// Sends a signal by its name, as in `kill -TERM`.
    pub fn signal(&self, name: &str) {
        signal(name, self.id());
    }

    pub async fn ended(mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        soon("the program to end", tokio::task::spawn_blocking(move || child.wait().unwrap())).await.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(name: &str, id: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap().success());
}
