//! A cluster of three nats-servers with MQTT and JetStream, on loopback addresses of their own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::DEADLINE;
use super::watcher::Watcher;

pub const NODES: usize = 3;

pub struct Nats {
    folder: TempDir,
    mqtt: [SocketAddr; NODES],
    nodes: [Option<Child>; NODES],
}

impl Nats {
    /// All nodes, once each of them takes MQTT clients.
    pub async fn start() -> Nats {
        let folder = TempDir::new().unwrap();
        let [mqtt, clients, cluster] =
            [1883, 4222, 6222].map(|port| [0, 1, 2].map(|node| address(node, port)));
        let routes: Vec<String> = cluster.iter().map(|address| format!("\"nats://{address}\"")).collect();
        for node in 0..NODES {
            let store = folder.path().join(format!("store-{node}"));
            let config = format!(
                "server_name: node-{node}\nlisten: \"{}\"\njetstream {{ store_dir: {store:?} }}\n\
                 mqtt {{ listen: \"{}\" }}\n\
                 cluster {{ name: kasa, listen: \"{}\", routes: [{}] }}\n",
                clients[node],
                mqtt[node],
                cluster[node],
                routes.join(", ")
            );
            std::fs::write(folder.path().join(format!("{node}.conf")), config).unwrap();
        }
        let mut nats = Nats { folder, mqtt, nodes: [const { None }; NODES] };
        for node in 0..NODES {
            nats.launch(node);
        }
        for node in 0..NODES {
            nats.serves(node).await;
        }
        nats
    }

    /// Where a node takes MQTT clients.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.mqtt[node]
    }

    /// Where its logs are, and others may be.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends a node without a word.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts a node again; returns once it takes MQTT clients.
    pub async fn restart(&mut self, node: usize) {
        self.launch(node);
        self.serves(node).await;
    }

    fn launch(&mut self, node: usize) {
        let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/nats/usr/sbin/nats-server");
        let binary = std::env::var("KASA2MQTT_TEST_NATS").unwrap_or(cached.display().to_string());
        let log = std::fs::File::create(self.folder.path().join(format!("{node}.log"))).unwrap();
        let config = self.folder.path().join(format!("{node}.conf"));
        let child = Command::new(&binary).arg("-c").arg(config).stdout(Stdio::null()).stderr(log).spawn();
        self.nodes[node] =
            Some(child.unwrap_or_else(|error| panic!("{binary}: {error}: tests/run installs it")));
    }

    /// It refuses clients until the cluster has a leader.
    async fn serves(&self, node: usize) {
        let serves = async {
            while Watcher::connect(self.mqtt[node]).await.log.borrow().ended {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, serves).await.is_err() {
            let log = std::fs::read_to_string(self.folder.path().join(format!("{node}.log"))).unwrap();
            panic!("waited in vain for node {node} of the cluster; its log:\n{log}");
        }
    }
}

/// Of a loopback address that only this process uses: while a node is dead, nobody else takes its ports.
fn address(node: u8, port: u16) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 80 + node, high, low], port))
}

impl Drop for Nats {
    fn drop(&mut self) {
        for node in 0..NODES {
            self.kill(node);
        }
    }
}
