//! Programs that nobody here wrote, installed and pinned by `tests/run`.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

/// Where `tests/run` puts other people's programs.
pub fn cache(path: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.cache").join(path);
    assert!(path.exists(), "{} is missing: tests/run installs it", path.display());
    path
}

/// python-kasa's command line on one plug.
pub async fn kasa(plug: SocketAddr, arguments: &[&str]) -> Output {
    kasa_as("plug", plug, arguments).await
}

/// python-kasa's command line on a `plug`, `strip` or `dimmer`.
pub async fn kasa_as(kind: &str, device: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(cache("venv/bin/kasa"));
    command.args(["--host", &device.ip().to_string(), "--port", &device.port().to_string(), "--type", kind]);
    let output = super::soon("kasa", command.args(arguments).kill_on_drop(true).output()).await.unwrap();
    assert!(
        output.status.success(),
        "kasa {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A Python with paho-mqtt.
pub fn python() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(cache("venv/bin/python"));
    command.kill_on_drop(true);
    command
}

/// The npm simulator: plugs that were written by somebody else.
pub struct NpmPlugs {
    child: Child,
    /// Closing it ends the simulator.
    _stdin: Option<ChildStdin>,
    /// In the order of the models asked for.
    pub addresses: Vec<SocketAddr>,
}

impl NpmPlugs {
    pub fn start(models: &[&str]) -> NpmPlugs {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers/npm_plugs.js");
        let mut child = Command::new("node")
            .arg(script)
            .args(models)
            .env("NODE_PATH", cache("npm/node_modules"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node: tests/run installs it");
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = |line: std::io::Result<String>| line.unwrap().trim().parse::<u16>().unwrap();
        let addresses: Vec<SocketAddr> =
            lines.take(models.len()).map(|line| (Ipv4Addr::LOCALHOST, port(line)).into()).collect();
        assert_eq!(addresses.len(), models.len(), "the simulator ended");
        NpmPlugs { child, _stdin: stdin, addresses }
    }
}

impl Drop for NpmPlugs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
