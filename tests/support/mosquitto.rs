//! A real mosquitto, started on a free port of loopback.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{port, soon};

pub struct Mosquitto {
    address: SocketAddr,
    folder: TempDir,
    options: String,
    child: Option<Child>,
}

impl Mosquitto {
    pub async fn start() -> Mosquitto {
        Mosquitto::start_with("allow_anonymous true\n").await
    }

    /// With these lines in its configuration, and no persistence.
    pub async fn start_with(options: &str) -> Mosquitto {
        // mosquitto has no port 0: take a free one, and another if somebody was quicker.
        for _ in 0..20 {
            let folder = TempDir::new().unwrap();
            let mut mosquitto =
                Mosquitto { address: port::unused(), folder, options: options.into(), child: None };
            if mosquitto.launch().await {
                return mosquitto;
            }
        }
        panic!("mosquitto does not start: {options}");
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A path in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("mosquitto.log")).unwrap()
    }

    /// Asks it to end, and waits: its clients are told, its retained messages saved if it was told to.
    pub async fn terminate(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        soon("mosquitto's end", tokio::task::spawn_blocking(move || child.wait())).await.unwrap().unwrap();
    }

    /// Ends it without a word, as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// On the same port; it remembers nothing, unless its options say `persistence true` and where.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(self.launch().await, "mosquitto does not start again");
    }

    async fn launch(&mut self) -> bool {
        let config = self.file("mosquitto.conf");
        let mut file = std::fs::File::create(&config).unwrap();
        let SocketAddr::V4(address) = self.address else { panic!("IPv4") };
        write!(file, "listener {} {}\n{}", address.port(), address.ip(), self.options).unwrap();
        let binary = std::env::var("KASA2MQTT_TEST_MOSQUITTO").unwrap_or("/usr/sbin/mosquitto".into());
        // It logs to standard error: a file, so that nobody has to empty a pipe.
        let log = self.file("mosquitto.log");
        let stderr = std::fs::File::create(&log).unwrap();
        let child = Command::new(&binary).arg("-c").arg(&config).stdout(Stdio::null()).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|error| panic!("{binary}: {error}: tests/run installs it"));
        let child = self.child.insert(child);
        soon("mosquitto", async {
            loop {
                if child.try_wait().unwrap().is_some() {
                    return false;
                }
                // It says so once it listens. That something accepts connections would not do: another mosquitto, of a
                // test program beside this one, may have been quicker.
                if std::fs::read_to_string(&log).unwrap().contains(" running") {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
