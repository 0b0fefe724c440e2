//! The bridge that is measured: the release binary, or a line for sh.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::options::{Options, name};
use crate::plugs::Plugs;

/// The binary that cargo built beside this program.
const BINARY: &str = env!("CARGO_BIN_EXE_kasa2mqtt");

pub struct Bridge {
    child: Child,
    _folder: TempDir,
}

impl Bridge {
    /// Starts it with the first `count` plugs, as one of several shards or alone.
    pub fn start(
        options: &Options,
        broker: SocketAddr,
        plugs: &Plugs,
        count: usize,
        interval: Duration,
        shard: Option<&str>,
    ) -> Bridge {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = match &options.bridge {
            Some(line) => {
                let list: Vec<String> =
                    (0..count).map(|plug| format!("{} {}\n", plugs.address(plug), name(plug))).collect();
                let file = folder.path().join("plugs");
                std::fs::write(&file, list.concat()).expect("a file of ours");
                let mut command = Command::new("sh");
                command.args(["-c", line]).env("BENCH_BROKER", broker.to_string()).env("BENCH_PLUGS", file);
                command.env("BENCH_INTERVAL", interval.as_secs().to_string());
                command
            }
            None => {
                let config = configure(folder.path(), broker, plugs, count, interval);
                let binary = binary(options);
                let line =
                    format!("exec {} \"$0\" run -c \"$1\"", options.under.as_deref().unwrap_or_default());
                let mut command = Command::new("sh");
                command.args(["-c", &line]).arg(binary).arg(config);
                command
            }
        };
        command.envs(shard.map(|shard| ("KASA2MQTT_SHARD", shard)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Bridge { child: child.expect("the bridge starts"), _folder: folder }
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits.
    pub fn terminate(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.process().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "kill(1) works");
        let _ = self.child.wait();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Drops the program's file from the page cache: the next start reads it from the disk, as after a boot. A file that was
/// just written lies there in larger pieces, which Linux then maps whole.
pub fn drop_from_page_cache(options: &Options) {
    if options.bridge.is_some() {
        return;
    }
    let file = format!("of={}", binary(options).display());
    let dropped = Command::new("dd")
        .args([&file, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"])
        .status();
    assert!(dropped.is_ok_and(|status| status.success()), "dd(1) works");
}

fn binary(options: &Options) -> &Path {
    options.binary.as_deref().unwrap_or(Path::new(BINARY))
}

/// Writes a configuration of ours and returns its path.
fn configure(folder: &Path, broker: SocketAddr, plugs: &Plugs, count: usize, interval: Duration) -> String {
    // No search: this machine's network is not ours.
    let mut config = format!(
        "[mqtt]\nurl = \"mqtt://{broker}\"\n[scan]\nenabled = false\n[poll]\ninterval = \"{}\"\n",
        humantime::format_duration(interval)
    );
    for plug in 0..count {
        let (host, name) = (plugs.address(plug), name(plug));
        writeln!(config, "[[plug]]\nhost = \"{host}\"\nname = \"{name}\"").expect("a String takes all");
    }
    let file = folder.join("config.toml");
    std::fs::write(&file, config).expect("a file of ours");
    file.to_str().expect("a path of plain text").into()
}
