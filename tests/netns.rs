//! The scanner, and the bridge that follows plugs, on networks like those at home: two subnets with a router between, in network namespaces. Needs root and
//! iproute2, which `tests/run` sees to.

mod support;

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use serde_json::Value;
use support::bridge::Program;
use support::netns::{Host, Net, Subnet};
use support::peers::cache;
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

/// Reads lines of a child's output in a thread of its own.
fn lines_of(output: impl std::io::Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A plug of its own machine that prints every request.
struct Watched {
    host: Host,
    child: Child,
    requests: std::sync::mpsc::Receiver<String>,
}

impl Watched {
    /// `number` is its last byte of address and MAC.
    fn new(net: &Net, number: u8, alias: &str) -> Watched {
        let host = net.host(Subnet::Near, number);
        let dump = format!(
            r#"{{"system":{{"get_sysinfo":{{"alias":"{alias}","deviceId":"8006{number:036}","err_code":0,"feature":"TIM",
            "hw_ver":"1.0","led_off":0,"mac":"50:C7:BF:00:00:{number:02X}","mic_type":"IOT.SMARTPLUGSWITCH",
            "model":"EP10(US)","on_time":0,"relay_state":0,"rssi":-44,"sw_ver":"1.0.2","next_action":{{"type":-1}}}}}}}}"#
        );
        let file = std::env::temp_dir().join(format!("kasa-test-{}-{alias}.json", std::process::id()));
        std::fs::write(&file, dump).unwrap();
        let mut command = host.command(PROGRAM);
        command.args(["simulate", "--host", "0.0.0.0", "--requests", "--dump"]).arg(&file);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let requests = lines_of(child.stdout.take().unwrap());
        assert!(requests.recv().unwrap().contains(":9999 "));
        std::fs::remove_file(file).unwrap();
        Watched { host, child, requests }
    }

    /// How often its relay was told to go on, and off.
    fn commands(&self) -> (usize, usize) {
        let mut told = (0, 0);
        for request in self.requests.try_iter() {
            told.0 += usize::from(request.contains(r#""set_relay_state":{"state":1}"#));
            told.1 += usize::from(request.contains(r#""set_relay_state":{"state":0}"#));
        }
        told
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine with mosquitto and the bridge, which knows of plugs what a broadcast tells, and with somebody who talks to
/// them.
struct Bridge {
    messages: std::sync::mpsc::Receiver<String>,
    heard: Vec<String>,
    children: Vec<Child>,
    host: Host,
}

impl Bridge {
    fn new(net: &Net, adopt: &str) -> Bridge {
        let host = net.host(Subnet::Near, 10);
        let mut children = Vec::new();
        let mut start = |command: &mut Command| {
            let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
            children.push(child);
            (lines_of(output), lines_of(errors))
        };
        let (_, said) = start(host.command("/usr/sbin/mosquitto").args(["-p", "1883", "-v"]));
        said.iter().find(|line| line.contains("running")).expect("mosquitto");
        let (messages, _) = start(host.command("mosquitto_sub").args(["-v", "-t", "kasa/#"]));
        said.iter().find(|line| line.contains("SUBACK")).expect("mosquitto_sub");
        // It talks on, into nothing.
        std::thread::spawn(move || said.iter().for_each(drop));
        let mut bridge = host.command("env");
        bridge.args([
            "KASA2MQTT_MQTT__URL=mqtt://127.0.0.1",
            "KASA2MQTT_POLL__INTERVAL=1s",
            "KASA2MQTT_POLL__TIMEOUT=1s",
            &format!("KASA2MQTT_SCAN__ADOPT={adopt}"),
            PROGRAM,
            "run",
        ]);
        let (_, log) = start(&mut bridge);
        std::thread::spawn(move || log.iter().for_each(drop));
        Bridge { messages, heard: Vec::new(), children, host }
    }

    /// Waits for a message from now on that fits.
    fn hear(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let deadline = std::time::Instant::now() + support::DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|_| {
                let last: Vec<&String> = self.heard.iter().rev().take(20).collect();
                panic!("waited in vain for {what}; heard last {last:#?}")
            });
            self.heard.push(message.clone());
            if fits(&message) {
                return message;
            }
        }
    }

    /// Somebody who publishes line by line.
    fn publisher(&mut self, topic: &str) -> ChildStdin {
        let mut command = self.host.command("mosquitto_pub");
        let mut child = command.args(["-t", topic, "-l", "-q", "1"]).stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        self.children.push(child);
        input
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[ignore = "needs network namespaces and mosquitto: tests/run"]
fn a_plug_that_changes_its_address_is_followed_within_one_search() {
    let net = Net::new();
    let mut lamp = Watched::new(&net, 2, "Lamp");
    let mut bridge = Bridge::new(&net, "all");
    bridge.hear("the lamp", |message| message == "kasa/lamp/availability online");
    let mut set = bridge.publisher("kasa/lamp/set");
    let asked =
        |lamp: &Watched| lamp.requests.try_iter().filter(|request| request.contains("sysinfo")).count();
    asked(&lamp);
    lamp.host.move_to(77);
    let moved = bridge.hear("the move", |message| message.contains(r#""type":"ip_changed""#));
    assert!(moved.contains("10.77.1.2:9999") && moved.contains("10.77.1.77:9999"), "{moved}");
    // One search asks three times.
    assert!(asked(&lamp) <= 6, "found by the first search");
    writeln!(set, r#"{{"state":"ON","transaction":1}}"#).unwrap();
    bridge.hear("the command's result", |message| {
        message.contains("result") && message.contains(r#""ok":true"#)
    });
    assert_eq!(lamp.commands(), (1, 0));
    let changed = bridge.heard.iter().filter(|message| message.starts_with("kasa/lamp/availability")).count();
    assert!(changed <= 3, "at most offline and online again");
}

/// Two plugs swap their addresses again and again under 1,000 commands. One is only ever told to be on, the other to be
/// off: whoever gets the other's has got the wrong one.
#[test]
#[ignore = "needs network namespaces and mosquitto: tests/run"]
fn two_plugs_that_swap_addresses_are_never_confused() {
    const COMMANDS: usize = 1000;
    const SWAPS: usize = 5;
    let net = Net::new();
    let (mut on, mut off) = (Watched::new(&net, 2, "On"), Watched::new(&net, 3, "Off"));
    let mut bridge = Bridge::new(&net, "all");
    bridge.hear("one", |message| message.ends_with("/availability online"));
    bridge.hear("the other", |message| message.ends_with("/availability online"));
    let (mut set_on, mut set_off) = (bridge.publisher("kasa/on/set"), bridge.publisher("kasa/off/set"));
    let (mut sent, mut done, mut told) = (0, 0, ((0, 0), (0, 0)));
    let mut command = |bridge: &mut Bridge, to_on: bool| {
        sent += 1;
        let transaction = format!(r#""transaction":{sent}}}"#);
        let (input, state) = if to_on { (&mut set_on, "ON") } else { (&mut set_off, "OFF") };
        writeln!(input, r#"{{"state":"{state}",{transaction}"#).unwrap();
        let result = bridge
            .hear("a result", |message| message.contains("/result ") && message.ends_with(&transaction));
        done += usize::from(result.contains(r#""ok":true"#));
        result.contains(r#""ok":true"#)
    };
    for swap in 0..SWAPS {
        for number in 0..COMMANDS / SWAPS / 2 {
            command(&mut bridge, number % 2 == 0);
        }
        let (one, other) = (on.host.address.octets()[3], off.host.address.octets()[3]);
        // While they are on their way there is nobody at either, then somebody else.
        on.host.move_to(100 + swap as u8);
        off.host.move_to(one);
        command(&mut bridge, true);
        command(&mut bridge, false);
        on.host.move_to(other);
        for number in 2..COMMANDS / SWAPS / 2 {
            command(&mut bridge, number % 2 == 0);
        }
        // Until both obey again, wherever they are.
        let begin = std::time::Instant::now();
        while !(command(&mut bridge, true) && command(&mut bridge, false)) {
            assert!(begin.elapsed() < support::DEADLINE, "they are not found again");
        }
        let (a, b) = (on.commands(), off.commands());
        told = ((told.0.0 + a.0, told.0.1 + a.1), (told.1.0 + b.0, told.1.1 + b.1));
    }
    let ((right_on, wrong_off), (wrong_on, right_off)) = told;
    assert!(sent >= COMMANDS, "{sent}");
    assert_eq!((wrong_off, wrong_on), (0, 0), "commands that reached the wrong plug, of {sent}");
    assert!(right_on + right_off >= done, "{told:?}: {done} of {sent} were confirmed");
    assert!(done * 10 > sent, "{done} of {sent} were confirmed");
    println!("{sent} commands, {SWAPS} swaps, {done} confirmed, none to the wrong plug");
}

#[test]
#[ignore = "needs network namespaces and mosquitto: tests/run"]
fn finding_nobody_is_explained_by_the_bridge_once() {
    let net = Net::new();
    let host = net.host(Subnet::Near, 10);
    let mut command = host.command("env");
    // The embedded broker, and nobody else in this network.
    command.args(["KASA2MQTT_SCAN__INTERVAL=30s", PROGRAM, "run"]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = lines_of(child.stderr.take().unwrap());
    let explained = log.iter().find(|line| line.contains("Docker"));
    let explained = explained.expect("the log ends");
    assert!(explained.contains("WARN") && explained.contains("scan.targets"), "{explained}");
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(log.iter().filter(|line| line.contains("Docker")).count(), 0);
}

/// On the ports of real plugs, with our own commands and those of python-kasa.
#[tokio::test]
#[ignore = "needs network namespaces and python-kasa: tests/run"]
async fn plugs_with_port_9999_closed_are_found_and_switched_with_their_account() {
    for (version, protocol) in [("1", "klap"), ("2", "klap v2")] {
        let net = Net::new();
        let (there, here) = (net.host(Subnet::Near, 2), net.host(Subnet::Near, 10));
        let mut command = there.command(PROGRAM);
        command.args(["simulate", "--host", "0.0.0.0", "--http-port", "80", "--model", "HS110-G3"]);
        command.args(["--klap", version, "--account", "me@example.org:secret"]);
        let mut program = Program::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        program.read_until(|line| line.contains(":20002"));
        let output = run(&here, PROGRAM, &["scan", "--json", "--duration", "600ms"]).await;
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found[0]["protocol"], protocol, "{found}");
        let address = there.address.to_string();
        let account = ["--username", "me@example.org", "--password", "secret"];
        for (what, said) in [("on", "ON"), ("state", "ON"), ("off", "OFF"), ("state", "OFF")] {
            let output = run(&here, PROGRAM, &[&["plug", &address, what], &account[..]].concat()).await;
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), said, "{what}: {output:?}");
        }
        let output = run(&here, PROGRAM, &["plug", &address, "on"]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("kasa.password"), "{said}");
        let kasa = cache("venv/bin/kasa");
        let kasa = kasa.to_str().unwrap();
        for (what, said) in [("on", "ON"), ("off", "OFF")] {
            let output = run(&here, kasa, &[&account[..], &["--host", &address, what]].concat()).await;
            assert!(output.status.success(), "{output:?}");
            let output = run(&here, PROGRAM, &[&["plug", &address, "state"], &account[..]].concat()).await;
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), said, "{what}");
        }
    }
}
