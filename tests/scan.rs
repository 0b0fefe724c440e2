//! The scanner on loopback, against simulated plugs and against plugs that lie.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use kasa2mqtt::plug::cipher;
use kasa2mqtt::plug::scan::found::{Found, Protocol};
use kasa2mqtt::plug::scan::target::Target;
use kasa2mqtt::plug::scan::{self, Options, Ports, Scan};
use kasa2mqtt::sim::discovery::{Announcement, Discovery, Scheme};
use kasa2mqtt::sim::server::{Behaviour, Reply, Simulator};
use serde_json::Value;
use support::house::{FREE, plugs};
use support::peers::{NpmPlugs, python};
use support::soon;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

/// A scan of these hosts and nobody else.
fn options(hosts: &[SocketAddr]) -> Options {
    Options {
        broadcast: false,
        targets: hosts.iter().map(|host| target(&host.to_string())).collect(),
        duration: Duration::from_millis(300),
        timeout: support::DEADLINE,
        // Nobody listens there: not even another test.
        ports: Ports { xor: 1, discovery: 1, http: 1 },
        ..Options::default()
    }
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn addresses(plugs: &[Simulator]) -> Vec<SocketAddr> {
    plugs.iter().map(Simulator::address).collect()
}

async fn search(options: &Options) -> (Scan, Vec<Found>) {
    let (sender, mut receiver) = mpsc::channel(1);
    let news = async {
        let mut all = Vec::new();
        while let Some(found) = receiver.recv().await {
            all.push(found);
        }
        all
    };
    let (scan, news) = soon("the scan", async { tokio::join!(scan::scan(options, sender), news) }).await;
    (scan.unwrap(), news)
}

async fn found(options: &Options) -> Vec<Found> {
    search(options).await.0.found
}

#[tokio::test]
async fn listed_plugs_are_found_with_their_power() {
    let plugs = plugs(&["HS110-G1", "HS110-G3", "HS100-G2"]).await;
    plugs[1].press(true).await;
    let (scan, news) = search(&options(&addresses(&plugs))).await;
    assert_eq!((scan.asked, scan.problems.len()), (3, 0), "{:?}", scan.problems);
    let [first, second, third] = scan.found.as_slice() else { panic!("{:?}", scan.found) };
    assert_eq!((first.alias.as_str(), first.model.as_str()), ("Plug 0", "HS110(EU)"));
    assert_eq!((first.address, first.protocol), (plugs[0].address(), Protocol::Xor));
    assert_eq!((first.relays.as_slice(), first.power_mw), (&[false][..], Some(0)));
    assert!(second.relays == [true] && second.power_mw > Some(1_000), "{second:?}");
    assert_eq!((third.has_meter, third.power_mw), (false, None));
    assert_eq!(plugs[0].counts().borrow().connections, 1, "one connection, for the meter");
    assert_eq!(plugs[2].counts().borrow().connections, 0);
    let powers = news.iter().filter(|found| found.power_mw.is_some()).count();
    assert!(news.len() >= 5 && powers == 2, "three plugs, then the power of two: {news:?}");
}

#[tokio::test]
async fn a_network_is_asked_host_by_host() {
    let plugs = plugs(&["HS100-G1"]).await;
    let mut options = options(&[]);
    options.targets = vec![target("127.0.0.0/29")];
    options.ports.xor = plugs[0].address().port();
    let (scan, _) = search(&options).await;
    assert_eq!((scan.asked, scan.found.len()), (6, 1));
}

#[tokio::test]
async fn both_ports_speak_of_one_plug() {
    let plugs = plugs(&["HS100-G3"]).await;
    let announced = |scheme| Announcement::plug(plugs[0].mac(), "HS100(EU)", scheme);
    for scheme in [Scheme::Xor, Scheme::Klap, Scheme::NewKlap] {
        let discovery = Discovery::start(FREE, vec![announced(scheme)]).await.unwrap();
        let mut options = options(&addresses(&plugs));
        options.ports.discovery = discovery.address().port();
        let found = found(&options).await;
        let [plug] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (plug.protocol, plug.open, plug.alias.as_str()),
            (Protocol::Xor, true, "Plug 0"),
            "{scheme:?}"
        );
    }
}

#[tokio::test]
async fn plugs_of_which_only_an_announcement_is_heard_are_listed_by_their_protocol() {
    let plug =
        |number: u8, scheme| Announcement::plug(&format!("50:C7:BF:00:00:0{number}"), "HS300(US)", scheme);
    let mut tapo = plug(3, Scheme::NewKlap);
    tapo.device_type = "SMART.TAPOPLUG".into();
    let announced = vec![plug(1, Scheme::Klap), plug(2, Scheme::NewKlap), tapo, plug(4, Scheme::Xor)];
    let discovery = Discovery::start(FREE, announced).await.unwrap();
    let mut options = options(&[]);
    options.targets = vec![target("127.0.0.1/32")];
    options.ports.discovery = discovery.address().port();
    let found = found(&options).await;
    let said: Vec<_> =
        found.iter().map(|found| (found.protocol, found.is_closed(), found.address.port())).collect();
    let expected = [
        (Protocol::Klap, true, 80),
        (Protocol::Klap2, true, 80),
        (Protocol::Unsupported, false, 80),
        (Protocol::Xor, false, options.ports.xor),
    ];
    assert_eq!(said, expected, "{found:?}");
}

/// A way to a plug by TCP only: nobody has the UDP port of that number.
async fn by_tcp_only(plug: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(plug).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    address
}

#[tokio::test]
async fn a_plug_that_answers_by_tcp_only_is_found_where_it_is_listed_or_announced() {
    let plugs = plugs(&["HS110-G2"]).await;
    let address = by_tcp_only(plugs[0].address()).await;
    let announced = vec![Announcement::plug(plugs[0].mac(), "HS110(EU)", Scheme::Klap)];
    let discovery = Discovery::start(FREE, announced).await.unwrap();
    let listed = options(&[address]);
    let mut announced = options(&[]);
    announced.targets = vec![target("127.0.0.1/32")];
    announced.ports = Ports { xor: address.port(), discovery: discovery.address().port(), http: 1 };
    for options in [listed, announced] {
        let found = found(&options).await;
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.address, one.protocol, one.power_mw), (address, Protocol::Xor, Some(0)));
        assert_eq!(one.alias, "Plug 0");
    }
}

#[tokio::test]
async fn a_listed_host_with_9999_closed_and_http_open_is_a_closed_plug() {
    let http = TcpListener::bind(FREE).await.unwrap();
    let nobody = support::port::unused();
    let mut options = options(&[nobody]);
    let (scan, _) = search(&options).await;
    assert_eq!(scan.found, [], "with HTTP closed as well it is nobody");
    assert!(scan.problems[0].contains("nothing listens"), "{:?}", scan.problems);
    options.ports.http = http.local_addr().unwrap().port();
    let found = found(&options).await;
    let [plug] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((plug.mac, plug.protocol, plug.is_closed()), (None, Protocol::Klap, true));
}

/// Something that answers whatever `reply` makes of the number of a probe.
async fn liar(reply: impl Fn(usize) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(FREE).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        for number in 0.. {
            let (_, sender) = socket.recv_from(&mut buffer).await.unwrap();
            for datagram in reply(number) {
                socket.send_to(&datagram, sender).await.unwrap();
            }
        }
    });
    address
}

fn sysinfo(mac: &str, alias: &str) -> Vec<u8> {
    let json = format!(
        r#"{{"system":{{"get_sysinfo":{{"mac":"{mac}","alias":"{alias}","type":"IOT.SMARTPLUGSWITCH","relay_state":1,"err_code":0}}}}}}"#
    );
    cipher::encrypt(json.as_bytes())
}

#[tokio::test]
async fn repeats_make_up_for_lost_datagrams() {
    let last =
        liar(|probe| if probe < 2 { Vec::new() } else { vec![sysinfo("50:C7:BF:00:00:01", "Far away")] })
            .await;
    let found = found(&options(&[last])).await;
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test]
async fn garbage_and_impostors_do_no_harm() {
    let plugs = plugs(&["HS100-G1"]).await;
    let mac = plugs[0].mac().to_string();
    let garbage = liar(move |_| {
        let mut replies =
            vec![Vec::new(), vec![0; 1], vec![0xff; 9_000], cipher::encrypt(b"[]"), b"{}".to_vec()];
        replies.push(cipher::encrypt("{\"a\":".repeat(2_000).as_bytes()));
        // 127.0.0.1 is everybody's address here: what it may change is what its own address says.
        replies.push(sysinfo("50:C7:BF:00:00:99", "\\u001b[2J\\u0000evil"));
        replies.push(sysinfo("nonsense", "x"));
        replies
    })
    .await;
    let impostor = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).await.unwrap();
    let second = impostor.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (_, sender) = impostor.recv_from(&mut buffer).await.unwrap();
            impostor.send_to(&sysinfo(&mac, "Impostor"), sender).await.unwrap();
        }
    });
    let mut options = options(&[plugs[0].address(), garbage]);
    let alone = found(&options).await;
    let names: Vec<&str> = alone.iter().map(|found| found.alias.as_str()).collect();
    assert_eq!(names, ["[2Jevil", "Plug 0"]);
    // Who comes first cannot be told; but nobody is half the one and half the other, and no MAC is listed twice.
    options.targets.push(target(&second.to_string()));
    let both = found(&options).await;
    assert_eq!(both.len(), 2, "{both:?}");
    assert_eq!(both[1].address, if both[1].alias == "Impostor" { second } else { plugs[0].address() });
}

#[tokio::test]
async fn a_name_that_nobody_knows_ends_nothing() {
    let plugs = plugs(&["HS100-G1"]).await;
    let mut options = options(&addresses(&plugs));
    // A label of more than 63 letters is refused without asking any server; the other has no IPv4 address.
    options.targets.extend([&"x".repeat(64), "::1"].map(target));
    let (scan, _) = search(&options).await;
    assert_eq!((scan.found.len(), scan.problems.len()), (1, 2), "{:?}", scan.problems);
    options.interface = Some("nosuch0".into());
    let error = scan::scan(&options, mpsc::channel(1).0).await.unwrap_err().to_string();
    assert!(error.contains("nosuch0") && error.contains("lo"), "{error}");
}

#[tokio::test]
async fn one_silent_meter_delays_no_other() {
    let plugs = plugs(&["HS110-G1", "HS110-G2", "HS110-G3"]).await;
    let mut options = options(&addresses(&plugs));
    options.timeout = Duration::from_millis(500);
    // Silent from the moment when it was found.
    let (sender, mut news) = mpsc::channel::<Found>(1);
    let silence = async {
        let mut powers = 0;
        while let Some(found) = news.recv().await {
            if found.address == plugs[0].address() {
                plugs[0].behave(Behaviour { reply: Reply::Silence, ..Behaviour::default() }).await;
            }
            powers += usize::from(found.power_mw.is_some());
        }
        powers
    };
    let (scan, powers) =
        soon("the scan", async { tokio::join!(scan::scan(&options, sender), silence) }).await;
    assert_eq!((scan.unwrap().found.len(), powers), (3, 2));
}

#[tokio::test]
async fn a_scan_takes_as_long_as_it_was_told() {
    let begin = Instant::now();
    let options = Options { targets: vec![target("127.0.0.0/28")], ..options(&[]) };
    let (scan, _) = search(&options).await;
    assert_eq!(scan.asked, 14);
    assert!(begin.elapsed() >= options.duration, "{:?}", begin.elapsed());
    assert_eq!(options.expected(), Duration::from_millis(300 + 14 * 3 * 4));
}

async fn program(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kasa2mqtt"));
    let command = command.arg("scan").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    soon("the program", command.output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_command_prints_a_table_or_json() {
    let plugs = plugs(&["HS110-G3"]).await;
    let closed = Announcement::plug("CC:32:E5:01:02:03", "HS100(UK)", Scheme::NewKlap);
    let discovery = Discovery::start(FREE, vec![closed]).await.unwrap();
    let (host, port) = (plugs[0].address().to_string(), discovery.address().port().to_string());
    let common = ["--target", &host, "--duration", "300ms", "--discovery-port", &port, "--port", "1"];
    let output = program(&common).await;
    let table = text(&output.stdout);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), ""),
        "no progress where nobody watches"
    );
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("NAME") && rows[0].ends_with("PROTOCOL"), "{table}");
    assert!(
        rows[1].starts_with("Plug 0 ") && rows[1].contains("50c7bf5e0001") && rows[1].ends_with("xor"),
        "{table}"
    );
    assert!(rows[2].contains("cc32e5010203") && rows[2].ends_with("klap v2*"), "{table}");
    assert!(table.contains("Third-Party Compatibility") && !table.contains("timeout"), "{table}");
    let output = program(&[&["--json"], &common[..]].concat()).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found[0]["protocol"], &found[1]["protocol"]), (&"xor".into(), &"klap v2".into()));
    assert_eq!((&found[0]["relays"][0], &found[0]["power"]), (&"OFF".into(), &0.0.into()));
}

#[tokio::test]
async fn the_command_explains_that_it_found_nothing() {
    let nobody = support::port::unused().to_string();
    let common = ["--json", "--target", &nobody, "--duration", "30ms", "--discovery-port", "1"];
    let output = program(&common).await;
    assert_eq!((output.status.code(), text(&output.stdout).trim()), (Some(1), "[]"));
    assert!(text(&output.stderr).contains("no plug answered at 1 address"), "{}", text(&output.stderr));
    let output = program(&["--interface", "nosuch0"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no interface nosuch0"), "{}", text(&output.stderr));
    assert_eq!(program(&["--target", "10.0.0.0/8"]).await.status.code(), Some(2));
}

/// python-kasa on one port 20002: each plug with its kind of encryption.
const PYTHON_KASA: &str = "
import asyncio, sys
from kasa import Discover
Discover.DISCOVERY_PORT, Discover.DISCOVERY_PORT_2 = 1, int(sys.argv[1])
async def search():
    found = await Discover.discover(target='127.0.0.1', discovery_timeout=1)
    for plug in found.values():
        print(plug.mac, plug.model, plug.config.connection_type.encryption_type.value)
asyncio.run(search())
";

#[tokio::test]
#[ignore = "needs python-kasa: tests/run"]
async fn python_kasa_understands_our_announcements_and_our_plugs_its_probe() {
    for (scheme, encryption) in [(Scheme::Xor, "XOR"), (Scheme::Klap, "KLAP"), (Scheme::NewKlap, "KLAP")] {
        let announced = vec![Announcement::plug("CC:32:E5:01:02:03", "HS100(UK)", scheme)];
        let discovery = Discovery::start(FREE, announced).await.unwrap();
        let port = discovery.address().port().to_string();
        let output = soon("kasa", python().args(["-c", PYTHON_KASA, &port]).output()).await.unwrap();
        let said = text(&output.stdout).trim();
        assert_eq!(said, format!("CC:32:E5:01:02:03 HS100 {encryption}"), "{}", text(&output.stderr));
    }
}

#[tokio::test]
#[ignore = "needs the npm simulator: tests/run"]
async fn npm_plugs_are_found() {
    let models = ["hs100", "hs105", "hs110", "hs110v2"];
    let npm = NpmPlugs::start(&models);
    let found = found(&options(&npm.addresses)).await;
    assert_eq!(found.len(), models.len(), "{found:?}");
    for (number, (plug, model)) in found.iter().zip(models).enumerate() {
        assert_eq!(plug.alias, format!("Npm {model}"));
        assert_eq!((plug.address, plug.protocol), (npm.addresses[number], Protocol::Xor), "{model}");
        assert_eq!(plug.relays.len(), 1, "{model}");
        assert_eq!(plug.power_mw.is_some(), model.starts_with("hs110"), "{model}: {plug:?}");
    }
}
