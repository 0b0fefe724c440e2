//! The broker: a mosquitto of our own as Debian configures it, or one that somebody else runs.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub struct Broker {
    pub address: SocketAddr,
    own: Option<(TempDir, Child)>,
}

impl Broker {
    /// `elsewhere`, or a new mosquitto that remembers nothing.
    pub fn start(elsewhere: Option<SocketAddr>) -> Broker {
        if let Some(address) = elsewhere {
            return Broker { address, own: None };
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let folder = TempDir::new().expect("a temporary folder");
        let child = launch(&folder, address);
        Broker { address, own: Some((folder, child)) }
    }

    /// Ends it without a word. False if it is not ours.
    pub fn kill(&mut self) -> bool {
        if let Some((_, child)) = &mut self.own {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.own.is_some()
    }

    /// After [`Broker::kill`], at the same address. Returns when it listens.
    pub fn restart(&mut self) {
        if let Some((folder, child)) = &mut self.own {
            *child = launch(folder, self.address);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(folder: &TempDir, address: SocketAddr) -> Child {
    let config = folder.path().join("mosquitto.conf");
    let log = folder.path().join("mosquitto.log");
    // What is measured is the bridge. So no limit of queued messages, for 10,000 plugs say 30,000 things at once; and no
    // message that waits in the broker for the acknowledgement of another, as each that follows within 40 ms does by default.
    let options = format!(
        "listener {} {}\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n",
        address.port(),
        address.ip()
    );
    std::fs::write(&config, options).expect("a file of ours");
    let stderr = std::fs::File::create(&log).expect("a file of ours");
    let binary = std::env::var("KASA2MQTT_TEST_MOSQUITTO").unwrap_or("/usr/sbin/mosquitto".into());
    let child = Command::new(&binary).arg("-c").arg(&config).stdout(Stdio::null()).stderr(stderr).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{binary}: {error}: tests/run installs it"));
    loop {
        let said = std::fs::read_to_string(&log).expect("its log");
        if said.contains(" running") {
            return child;
        }
        assert!(child.try_wait().expect("our child").is_none(), "mosquitto does not start: {said}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
