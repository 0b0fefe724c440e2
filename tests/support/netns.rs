//! Two subnets with a router between them, in network namespaces of this process's own: nothing leaves the machine.
//!
//! ```text
//!   host 10.77.1.N -- bridge 10.77.1.1 [router] 10.77.2.1 bridge -- host 10.77.2.N
//! ```

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which side of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subnet {
    Near,
    Far,
}

impl Subnet {
    fn number(self) -> u8 {
        match self {
            Subnet::Near => 1,
            Subnet::Far => 2,
        }
    }

    /// The address of this number in it; 1 is the router's.
    pub fn address(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number(), number)
    }

    /// As people write it.
    pub fn cidr(self) -> String {
        format!("{}/24", self.address(0))
    }
}

/// The two subnets. Dropping it, also by a panic, takes the router away, as dropping a host takes that.
pub struct Net {
    router: Namespace,
}

impl Net {
    /// Needs root, or sudo without a password, and iproute2.
    pub fn new() -> Net {
        let router = Namespace::new();
        router.run("sh", &["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
        for subnet in [Subnet::Near, Subnet::Far] {
            let bridge = format!("br{}", subnet.number());
            router.ip(&format!("link add {bridge} type bridge"));
            router.ip(&format!("address add {}/24 dev {bridge}", subnet.address(1)));
            router.ip(&format!("link set {bridge} up"));
        }
        Net { router }
    }

    /// A machine with one interface, `eth0`, and the router as its gateway.
    pub fn host(&self, subnet: Subnet, number: u8) -> Host {
        let host = Host { namespace: Namespace::new(), subnet, address: subnet.address(number) };
        self.plug_in(&host.namespace, subnet, "eth0", host.address);
        host.namespace.ip(&format!("route add default via {}", subnet.address(1)));
        host
    }

    /// What is sent to this machine vanishes without a word, as behind a dead cable or a firewall.
    pub fn cut(&self, host: &Host) {
        self.router.ip(&format!("route add blackhole {}/32", host.address));
    }

    /// The cable is mended.
    pub fn mend(&self, host: &Host) {
        self.router.ip(&format!("route delete blackhole {}/32", host.address));
    }

    /// A second cable for a machine, into the other subnet or the same.
    pub fn plug_in(&self, namespace: &Namespace, subnet: Subnet, interface: &str, address: Ipv4Addr) {
        // The router's end needs a name of its own; fifteen letters at most.
        static CABLE: AtomicU32 = AtomicU32::new(0);
        let end = format!("veth{}", CABLE.fetch_add(1, Ordering::Relaxed));
        let peer = &namespace.name;
        self.router.ip(&format!("link add {end} type veth peer name {interface} netns {peer}"));
        self.router.ip(&format!("link set {end} master br{} up", subnet.number()));
        namespace.ip(&format!("address add {address}/24 dev {interface}"));
        namespace.ip(&format!("link set {interface} up"));
    }
}

/// A machine in one of the subnets.
pub struct Host {
    pub namespace: Namespace,
    pub subnet: Subnet,
    pub address: Ipv4Addr,
}

impl Host {
    /// The DHCP server changed its mind: the old address is gone, the new one answers.
    pub fn move_to(&mut self, number: u8) {
        let new = self.subnet.address(number);
        // The routes go with the old address; so would a second address of the same network.
        self.namespace.ip(&format!("address delete {}/24 dev eth0", self.address));
        self.namespace.ip(&format!("address add {new}/24 dev eth0"));
        self.namespace.ip(&format!("route add default via {}", self.subnet.address(1)));
        self.address = new;
    }

    /// A program to be started on this machine.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }
}

/// One network namespace with its loopback up. Dropping it ends what runs in it and takes it away.
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new() -> Namespace {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("kasa-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        run(as_root("ip").args(["netns", "add", &name]));
        let namespace = Namespace { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip` in here.
    pub fn ip(&self, words: &str) {
        run(as_root("ip").args(["-n", &self.name]).args(words.split(' ')));
    }

    /// Runs a program in here to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        run(self.command(program).args(arguments));
    }

    /// A program to be started in here. `ip netns exec` becomes the program, so that its process id is the program's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = as_root("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Behind sudo a program belongs to root: whoever started it may not end it.
        if let Ok(pids) = as_root("ip").args(["netns", "pids", &self.name]).output() {
            let pids = String::from_utf8_lossy(&pids.stdout);
            for pid in pids.split_whitespace() {
                let _ = as_root("kill").args(["-KILL", pid]).output();
            }
        }
        let _ = as_root("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn run(command: &mut Command) {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run installs it"));
    assert!(
        output.status.success(),
        "{command:?}, as root or by sudo without a password: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}

pub fn as_root(program: &str) -> Command {
    let output = Command::new("id").arg("-u").output().expect("id");
    if output.stdout.trim_ascii() == b"0" {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}
