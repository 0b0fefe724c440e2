//! The scanner on networks like those at home: two subnets with a router between, in network namespaces. Needs root and
//! iproute2, which `tests/run` sees to.

mod support;

use std::process::{Output, Stdio};

use serde_json::Value;
use support::bridge::Program;
use support::netns::{Host, Net, Subnet};
use support::soon;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kasa2mqtt");

/// A machine that is a plug, on the ports of real ones.
struct Plug {
    host: Host,
    _program: Program,
}

/// `number` is its last byte of address and, below 5, of MAC.
fn plug(net: &Net, subnet: Subnet, number: u8, alias: &str) -> Plug {
    let host = net.host(subnet, number);
    // A simulation numbers its plugs, their MACs and their ports; the last one gets the port of real plugs.
    let first = (10_000 - u16::from(number)).to_string();
    let mut command = host.command(PROGRAM);
    command.args(["simulate", "--host", "0.0.0.0", "--port", &first]);
    for _ in 0..number {
        command.args(["--model", "HS110-G3", "--alias", alias]);
    }
    let mut program = Program::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    program.read_until(|line| line.contains(":9999 "));
    Plug { host, _program: program }
}

async fn run(host: &Host, program: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::from(host.command(program));
    let command = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    soon(program, command.output()).await.unwrap()
}

/// Names and addresses of the plugs that the program finds.
async fn scan(host: &Host, arguments: &[&str]) -> Vec<(String, String)> {
    let output = run(host, PROGRAM, &[&["scan", "--json", "--duration", "600ms"], arguments].concat()).await;
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |plug: &Value, key: &str| plug[key].as_str().unwrap_or_default().to_string();
    found.as_array().unwrap().iter().map(|plug| (text(plug, "name"), text(plug, "address"))).collect()
}

fn is(alias: &str, plug: &Plug) -> (String, String) {
    (alias.into(), plug.host.address.to_string())
}

#[tokio::test]
#[ignore = "needs network namespaces: tests/run"]
async fn a_broadcast_finds_one_subnet_and_networks_find_both() {
    let net = Net::new();
    let (near, far) = (plug(&net, Subnet::Near, 2, "Near"), plug(&net, Subnet::Far, 3, "Far"));
    let (here, there) = (net.host(Subnet::Near, 10), net.host(Subnet::Far, 10));
    assert_eq!(scan(&here, &[]).await, [is("Near", &near)]);
    assert_eq!(scan(&there, &[]).await, [is("Far", &far)]);
    let both = [is("Near", &near), is("Far", &far)];
    let (near_cidr, far_cidr) = (Subnet::Near.cidr(), Subnet::Far.cidr());
    assert_eq!(scan(&here, &["--target", &far_cidr]).await, both[1..]);
    assert_eq!(scan(&here, &["--target", &near_cidr, &far_cidr]).await, both);
    assert_eq!(scan(&here, &["--target", "255.255.255.255", &far.host.address.to_string()]).await, both);
}

#[tokio::test]
#[ignore = "needs network namespaces: tests/run"]
async fn a_machine_in_two_networks_asks_both_or_the_one_it_is_told() {
    let net = Net::new();
    let (near, far) = (plug(&net, Subnet::Near, 2, "Near"), plug(&net, Subnet::Far, 3, "Far"));
    let here = net.host(Subnet::Near, 10);
    net.plug_in(&here.namespace, Subnet::Far, "eth1", Subnet::Far.address(10));
    assert_eq!(scan(&here, &[]).await, [is("Near", &near), is("Far", &far)]);
    assert_eq!(scan(&here, &["--interface", "eth0"]).await, [is("Near", &near)]);
    assert_eq!(scan(&here, &["--interface", "eth1"]).await, [is("Far", &far)]);
}

#[tokio::test]
#[ignore = "needs network namespaces: tests/run"]
async fn without_a_route_the_rest_is_found_all_the_same() {
    let net = Net::new();
    let near = plug(&net, Subnet::Near, 2, "Near");
    let here = net.host(Subnet::Near, 10);
    // As on a network without a gateway: even 255.255.255.255 has no way out.
    here.namespace.ip("route delete default");
    assert_eq!(scan(&here, &[]).await, [is("Near", &near)]);
    let (far, near_address) = (Subnet::Far.cidr(), near.host.address.to_string());
    assert_eq!(scan(&here, &["--target", &far, &near_address]).await, [is("Near", &near)]);
    let output = run(&here, PROGRAM, &["scan", "--duration", "100ms", "--target", "10.77.2.9"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("unreachable"), "{said}");
}

#[tokio::test]
#[ignore = "needs network namespaces: tests/run"]
async fn a_plug_with_a_new_address_is_found_there() {
    let net = Net::new();
    let mut near = plug(&net, Subnet::Near, 2, "Near");
    let here = net.host(Subnet::Near, 10);
    assert_eq!(scan(&here, &[]).await, [is("Near", &near)]);
    near.host.move_to(77);
    assert_eq!(near.host.address.to_string(), "10.77.1.77");
    assert_eq!(scan(&here, &[]).await, [is("Near", &near)]);
}

#[tokio::test]
#[ignore = "needs network namespaces: tests/run"]
async fn finding_nothing_is_explained() {
    let net = Net::new();
    let here = net.host(Subnet::Near, 10);
    let output = run(&here, PROGRAM, &["scan", "--duration", "100ms"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Docker") && said.contains("--target 192.168.1.0/24"), "{said}");
}

#[tokio::test]
#[ignore = "needs network namespaces and python-kasa: tests/run"]
async fn python_kasa_finds_our_plugs() {
    let net = Net::new();
    let _near = plug(&net, Subnet::Near, 2, "Near");
    let _other = plug(&net, Subnet::Near, 3, "Other");
    let here = net.host(Subnet::Near, 10);
    let kasa = support::peers::cache("venv/bin/kasa");
    let broadcast = Subnet::Near.address(255).to_string();
    let arguments = ["--json", "--target", &broadcast, "--discovery-timeout", "3", "discover", "list"];
    let output = run(&here, kasa.to_str().unwrap(), &arguments).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for (alias, address) in [("Near", "10.77.1.2"), ("Other", "10.77.1.3")] {
        assert!(said.contains(alias) && said.contains(address), "{said}");
    }
}
