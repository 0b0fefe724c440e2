//! The session with the broker against a scripted peer that does what brokers and networks do at their worst. Each test
//! provokes one of the ways in which the client crate was measured to lose, delay or repeat messages, or to hang.

mod support;

use std::time::{Duration, Instant};

use kasa2mqtt::bridge::message::Publish;
use kasa2mqtt::bridge::retained::Ticket;
use kasa2mqtt::mqtt::connection::Will;
use kasa2mqtt::mqtt::session::{self, Event, Identity};
use kasa2mqtt::mqtt::settings::{BrokerUrl, Settings};
use support::house::FREE;
use support::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The session, the core's end of it, and the port that it connects to.
struct Scene {
    listener: TcpListener,
    outbox: mpsc::Sender<Publish>,
    events: mpsc::Receiver<Event>,
    session: JoinHandle<()>,
}

/// The broker's end of one connection.
struct Peer(TcpStream);

/// First byte and body of a packet.
type Packet = (u8, Vec<u8>);

const CONNECT: u8 = 0x10;
const SUBSCRIBE: u8 = 0x82;
const DISCONNECT: u8 = 0xe0;
const PINGREQ: u8 = 0xc0;

impl Scene {
    async fn new() -> Scene {
        Scene::with_keep_alive(Duration::from_secs(30)).await
    }

    async fn with_keep_alive(keep_alive: Duration) -> Scene {
        Scene::with(Settings { keep_alive, ..Settings::default() }, Vec::new()).await
    }

    async fn with(settings: Settings, memory_filters: Vec<String>) -> Scene {
        let listener = TcpListener::bind(FREE).await.unwrap();
        // A name of two addresses on most machines, of which only one has a listener.
        let url =
            BrokerUrl { tls: false, host: "localhost".into(), port: listener.local_addr().unwrap().port() };
        let will = Will { topic: "kasa/bridge/state".into(), payload: "offline" };
        let filters = vec!["kasa/+/set".into(), "kasa/+/get".into()];
        let identity = Identity { client_id: "test".into(), will: Some(will), filters, memory_filters };
        let (outbox, outbox_receiver) = mpsc::channel(16);
        let (event_sender, events) = mpsc::channel(256);
        let session = tokio::spawn(session::run(
            settings,
            vec![url],
            identity,
            outbox_receiver,
            event_sender,
            Instant::now(),
        ));
        Scene { listener, outbox, events, session }
    }

    /// With one of the brokers of `settings.urls`, the one that `listener` is; without a will.
    fn between(settings: Settings, listener: TcpListener) -> Scene {
        let filters = vec!["kasa/+/set".into(), "kasa/+/get".into()];
        let identity = Identity { client_id: "test".into(), will: None, filters, memory_filters: Vec::new() };
        let (outbox, outbox_receiver) = mpsc::channel(16);
        let (event_sender, events) = mpsc::channel(256);
        let brokers = settings.brokers();
        let session = tokio::spawn(session::run(
            settings,
            brokers,
            identity,
            outbox_receiver,
            event_sender,
            Instant::now(),
        ));
        Scene { listener, outbox, events, session }
    }

    /// Takes the next connection up to where it is open.
    async fn open(&mut self) -> Peer {
        let mut peer = self.accept().await;
        assert_eq!(peer.packet().await.0, CONNECT);
        peer.send(&[0x20, 2, 0, 0]).await;
        let (kind, body) = peer.packet().await;
        assert_eq!(kind, SUBSCRIBE);
        peer.send(&[0x90, 4, body[0], body[1], 1, 1]).await;
        assert_eq!(self.event().await, Event::Opened);
        peer
    }

    async fn accept(&mut self) -> Peer {
        Peer(soon("a connection", self.listener.accept()).await.unwrap().0)
    }

    async fn event(&mut self) -> Event {
        soon("an event", self.events.recv()).await.expect("the session lives")
    }

    async fn publish(&self, number: u64, payload: Vec<u8>, retain: bool) {
        let topic = format!("kasa/{number}");
        let publish = Publish { ticket: Ticket(number), topic, payload, retain };
        soon("room in the outbox", self.outbox.send(publish)).await.unwrap();
    }
}

impl Peer {
    async fn packet(&mut self) -> Packet {
        self.next().await.expect("a packet")
    }

    /// `None` at the end of the connection.
    async fn next(&mut self) -> Option<Packet> {
        let read = async {
            let kind = self.0.read_u8().await?;
            let mut length = 0;
            for shift in [0, 7, 14, 21] {
                let byte = usize::from(self.0.read_u8().await?);
                length |= (byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            Ok::<Packet, std::io::Error>((kind, body))
        };
        soon("a packet", read).await.ok()
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// A publish of QoS 1: topic, packet id, payload.
    async fn publish(&mut self) -> (String, [u8; 2], Vec<u8>) {
        loop {
            let (kind, body) = self.packet().await;
            if kind & 0xf0 == 0x30 {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, rest) = body[2..].split_at(length);
                return (String::from_utf8(topic.into()).unwrap(), [rest[0], rest[1]], rest[2..].into());
            }
        }
    }

    async fn acknowledge(&mut self, id: [u8; 2]) {
        self.send(&[0x40, 2, id[0], id[1]]).await;
    }
}

/// The bytes of a publish of QoS 0.
fn command(payload: &str) -> Vec<u8> {
    let topic = "kasa/lamp/set";
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic.bytes());
    body.extend(payload.bytes());
    let mut packet = vec![0x30, body.len() as u8];
    packet.extend(body);
    packet
}

#[tokio::test]
async fn the_first_packet_says_who_we_are_and_what_to_say_when_we_vanish() {
    let mut scene = Scene::new().await;
    let (_, body) = scene.accept().await.packet().await;
    // Clean session, will, will QoS 1, will retain; no user.
    assert_eq!(&body[..8], b"\x00\x04MQTT\x04\x2e");
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("test") && text.contains("kasa/bridge/state") && text.ends_with("offline"));
}

#[tokio::test]
async fn a_slow_reader_gets_everything_once_and_in_order() {
    let mut scene = Scene::new().await;
    let mut peer = scene.open().await;
    let outbox = scene.outbox.clone();
    // Far more than any channel or window holds, pushed at once.
    let producer = tokio::spawn(async move {
        for number in 0..3000 {
            let topic = format!("kasa/{number}");
            outbox
                .send(Publish { ticket: Ticket(number), topic, payload: vec![b'x'; 500], retain: true })
                .await
                .unwrap();
        }
    });
    let mut acknowledged = 0;
    for number in 0..3000 {
        let (topic, id, _) = peer.publish().await;
        assert_eq!(topic, format!("kasa/{number}"));
        if number % 100 == 0 {
            // A timer that goes off in the middle of everything is what loses messages in the crate.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        peer.acknowledge(id).await;
        while let Ok(event) = scene.events.try_recv() {
            assert_eq!(event, Event::Acknowledged(Ticket(acknowledged)));
            acknowledged += 1;
        }
    }
    producer.await.unwrap();
    while acknowledged < 3000 {
        assert_eq!(scene.event().await, Event::Acknowledged(Ticket(acknowledged)));
        acknowledged += 1;
    }
}

#[tokio::test]
async fn acknowledgements_out_of_order_are_taken_for_what_they_are() {
    let mut scene = Scene::new().await;
    let mut peer = scene.open().await;
    for round in 0..20 {
        let mut ids = Vec::new();
        for number in 0..40 {
            scene.publish(round * 40 + number, b"x".into(), true).await;
            let (topic, id, _) = peer.publish().await;
            ids.push((topic, id));
        }
        for (topic, id) in ids.into_iter().rev() {
            peer.acknowledge(id).await;
            let Event::Acknowledged(Ticket(number)) = scene.event().await else {
                panic!("an acknowledgement")
            };
            assert_eq!(topic, format!("kasa/{number}"));
        }
    }
}

#[tokio::test]
async fn no_more_than_a_window_is_on_its_way() {
    let mut scene = Scene::new().await;
    let mut peer = scene.open().await;
    let outbox = scene.outbox.clone();
    let producer = tokio::spawn(async move {
        for number in 0..200 {
            let topic = format!("kasa/{number}");
            outbox
                .send(Publish { ticket: Ticket(number), topic, payload: b"x".into(), retain: true })
                .await
                .unwrap();
        }
    });
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(peer.publish().await.1);
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(100), peer.0.read_u8()).await.is_err(),
        "the window is full"
    );
    for id in ids {
        peer.acknowledge(id).await;
    }
    for _ in 50..200 {
        let (_, id, _) = peer.publish().await;
        peer.acknowledge(id).await;
    }
    soon("the producer", producer).await.unwrap();
}

#[tokio::test]
async fn an_answer_is_said_again_until_it_is_acknowledged_and_a_state_is_not() {
    let mut scene = Scene::new().await;
    let mut peer = scene.open().await;
    scene.publish(1, b"state".into(), true).await;
    scene.publish(2, b"answer".into(), false).await;
    peer.publish().await;
    peer.publish().await;
    drop(peer);
    assert_eq!(scene.event().await, Event::Lost);
    let mut peer = scene.open().await;
    let began = Instant::now();
    let (topic, id, payload) = peer.publish().await;
    assert!(began.elapsed() < Duration::from_secs(15), "it waits for the next ping");
    assert_eq!((topic.as_str(), &payload[..]), ("kasa/2", &b"answer"[..]));
    peer.acknowledge(id).await;
    drop(peer);
    assert_eq!(scene.event().await, Event::Lost);
    let mut peer = scene.open().await;
    scene.publish(3, b"state".into(), true).await;
    assert_eq!(peer.publish().await.0, "kasa/3", "nothing of the old session comes first");
}

#[tokio::test]
async fn answers_given_while_the_connection_ends_are_said_in_the_next() {
    let mut scene = Scene::new().await;
    let mut peer = scene.open().await;
    for round in 0..20 {
        // The client may have noticed the end already, or not.
        drop(peer);
        for number in 0..3 {
            scene.publish(round * 3 + number, b"answer".into(), false).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(scene.event().await, Event::Lost);
        peer = scene.open().await;
        for number in 0..3 {
            let (topic, id, _) = peer.publish().await;
            assert_eq!(topic, format!("kasa/{}", round * 3 + number));
            peer.acknowledge(id).await;
        }
    }
}

#[tokio::test]
async fn commands_that_came_with_the_end_of_a_session_do_not_come_with_the_next() {
    let mut scene = Scene::new().await;
    for _ in 0..10 {
        let mut peer = scene.open().await;
        let mut last_words = command("ON");
        last_words.extend(command("OFF"));
        last_words.extend(command("ON"));
        peer.send(&last_words).await;
        drop(peer);
        loop {
            match scene.event().await {
                Event::Message(message) => assert_eq!(message.topic, "kasa/lamp/set"),
                Event::Lost => break,
                other => panic!("{other:?}"),
            }
        }
    }
    let mut peer = scene.open().await;
    peer.send(&command("TOGGLE")).await;
    let Event::Message(message) = scene.event().await else { panic!("the command") };
    assert_eq!(message.payload, b"TOGGLE");
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let mut scene = Scene::new().await;
    let mut peer = scene.open().await;
    scene.publish(1, vec![b'x'; 5 << 20], true).await;
    let (_, id, payload) = peer.publish().await;
    assert_eq!(payload.len(), 5 << 20);
    peer.acknowledge(id).await;
    assert_eq!(scene.event().await, Event::Acknowledged(Ticket(1)));
    let mut large = vec![0x30, 0x83, 0x80, 0x40, 0, 1, b'a'];
    large.extend(vec![b'y'; 1 << 20]);
    peer.send(&large).await;
    let Event::Message(message) = scene.event().await else { panic!("the message") };
    assert_eq!(message.payload.len(), 1 << 20);
}

#[tokio::test]
async fn a_peer_that_closes_at_once_is_not_hammered() {
    let mut scene = Scene::new().await;
    let began = Instant::now();
    for _ in 0..5 {
        drop(scene.accept().await);
    }
    // Four pauses of at least 125, 250, 500 and 750 ms.
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
}

/// As by another client with our id, that comes back at once whenever we took its place.
#[tokio::test]
async fn a_rival_that_is_quicker_than_our_subscription_is_not_fought() {
    let settings = Settings { client_id: Some("test".into()), ..Settings::default() };
    let mut scene = Scene::with(settings, Vec::new()).await;
    let mut ended = Instant::now();
    for _ in 0..3 {
        let mut peer = scene.accept().await;
        assert_eq!(peer.packet().await.0, CONNECT);
        peer.send(&[0x20, 2, 0, 0]).await;
        assert_eq!(peer.packet().await.0, SUBSCRIBE);
        ended = Instant::now();
    }
    scene.open().await;
    assert!(ended.elapsed() > Duration::from_secs(2), "{:?}", ended.elapsed());
}

/// Each of two brokers, and the session that may go to either.
async fn two() -> (Scene, TcpListener) {
    let [first, second] = [TcpListener::bind(FREE).await.unwrap(), TcpListener::bind(FREE).await.unwrap()];
    let urls = [&first, &second].map(|listener| support::house::url(listener.local_addr().unwrap()));
    let settings = Settings { urls: urls.to_vec(), ..Settings::default() };
    (Scene::between(settings, first), second)
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_left_for_the_next_within_seconds() {
    let (mut scene, second) = two().await;
    let began = Instant::now();
    // It takes the connection, and nothing comes of it.
    let _mute = scene.accept().await;
    let first = std::mem::replace(&mut scene.listener, second);
    let peer = scene.open().await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // Then that one falls silent, with the connection open.
    let began = Instant::now();
    scene.listener = first;
    assert_eq!(scene.event().await, Event::Lost);
    let _other = scene.open().await;
    println!("a silent broker was left after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    drop(peer);
}

/// A host that is gone, or a firewall, lets the first packet vanish; so does Linux while nobody takes the connections that
/// wait at a port.
#[tokio::test]
async fn a_broker_that_swallows_packets_is_left_for_the_next_within_seconds() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(FREE).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    let next = TcpListener::bind(FREE).await.unwrap();
    let urls = [address, next.local_addr().unwrap()].map(support::house::url);
    let settings = Settings { urls: urls.to_vec(), ..Settings::default() };
    let began = Instant::now();
    let mut scene = Scene::between(settings, next);
    scene.open().await;
    println!("a broker that swallows packets was left after {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(2), "it swallowed none");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_that_one_broker_did_not_acknowledge_is_given_to_the_next() {
    let (mut scene, second) = two().await;
    let mut peer = scene.open().await;
    for (number, retain) in [(1, false), (2, true), (3, false)] {
        scene.publish(number, b"x".into(), retain).await;
    }
    let (_, id, _) = peer.publish().await;
    peer.acknowledge(id).await;
    let (_, id, _) = peer.publish().await;
    assert_eq!(peer.publish().await.0, "kasa/3");
    peer.acknowledge(id).await;
    assert_eq!(scene.event().await, Event::Acknowledged(Ticket(2)));
    drop(peer);
    assert_eq!(scene.event().await, Event::Lost);
    scene.listener = second;
    let mut peer = scene.open().await;
    assert_eq!(peer.publish().await.0, "kasa/3");
}

const UNSUBSCRIBE: u8 = 0xa2;

#[tokio::test]
async fn what_was_left_comes_before_the_session_opens_and_is_not_listened_to_any_more() {
    let memory = vec!["kasa/+".to_string(), "kasa/bridge/devices".to_string()];
    let mut scene = Scene::with(Settings::default(), memory).await;
    let mut peer = scene.accept().await;
    assert_eq!(peer.packet().await.0, CONNECT);
    peer.send(&[0x20, 2, 0, 0]).await;
    let (kind, body) = peer.packet().await;
    assert_eq!((kind, body[2..].windows(6).any(|part| part == b"kasa/+")), (SUBSCRIBE, true));
    peer.send(&[0x90, 4, body[0], body[1], 1, 1]).await;
    // Retained, as the broker gives it to who subscribes.
    peer.send(&[0x31, 9, 0, 6, b'k', b'a', b's', b'a', b'/', b'x', b'1']).await;
    for _ in 0..2 {
        let (kind, body) = peer.packet().await;
        assert_eq!(kind, UNSUBSCRIBE);
        peer.send(&[0xb0, 2, body[0], body[1]]).await;
    }
    let (kind, body) = peer.packet().await;
    assert_eq!((kind, body[4..].starts_with(b"kasa/+/set")), (SUBSCRIBE, true));
    peer.send(&[0x90, 4, body[0], body[1], 1, 1]).await;
    let Event::Message(left) = scene.event().await else { panic!("what was left comes first") };
    assert_eq!((left.topic.as_str(), left.retain), ("kasa/x", true));
    assert_eq!(scene.event().await, Event::Opened);
    drop(peer);
    assert_eq!(scene.event().await, Event::Lost);
    // Once is enough.
    scene.open().await;
}

#[tokio::test]
async fn a_memory_that_ends_sessions_is_done_without() {
    let mut scene = Scene::with(Settings::default(), vec!["kasa/+".into()]).await;
    for _ in 0..2 {
        let mut peer = scene.accept().await;
        assert_eq!(peer.packet().await.0, CONNECT);
        peer.send(&[0x20, 2, 0, 0]).await;
        let (kind, body) = peer.packet().await;
        assert_eq!(kind, SUBSCRIBE);
        peer.send(&[0x90, 3, body[0], body[1], 1]).await;
        // A message of 200 MB.
        peer.send(&[0x31, 0xff, 0xff, 0xff, 0x5f, 0, 6]).await;
        while peer.next().await.is_some() {}
    }
    scene.open().await;
}

#[tokio::test]
async fn a_broker_that_acknowledges_nothing_is_left() {
    let mut scene = Scene::with_keep_alive(Duration::from_secs(1)).await;
    let mut peer = scene.open().await;
    scene.publish(1, b"x".into(), true).await;
    // Pings are answered, so that nothing else gives it away.
    let answer_pings = async {
        while let Some((kind, _)) = peer.next().await {
            if kind == PINGREQ {
                peer.send(&[0xd0, 0]).await;
            }
        }
    };
    tokio::select! {
        event = scene.event() => assert_eq!(event, Event::Lost),
        () = answer_pings => assert_eq!(scene.event().await, Event::Lost),
    }
    scene.open().await;
}

/// Identifiers of packets come round after a hundred: the client puts a message aside whose identifier is still taken, and
/// was measured to ping for ever, and to say nothing, once the session was lost with one put aside.
#[tokio::test]
async fn a_message_that_is_never_acknowledged_stops_nothing_for_longer_than_a_session() {
    let mut scene = Scene::with_keep_alive(Duration::from_secs(2)).await;
    for ends in [true, false] {
        let mut peer = scene.open().await;
        let outbox = scene.outbox.clone();
        // More than there are identifiers; what is left of them when the session ends was for that session.
        let producer = tokio::spawn(async move {
            for number in 0..150 {
                let publish = Publish {
                    ticket: Ticket(number),
                    topic: format!("kasa/{number}"),
                    payload: b"x".into(),
                    retain: true,
                };
                outbox.send(publish).await.unwrap();
            }
        });
        let (_, kept, _) = peer.publish().await;
        let mut taken = 1;
        let take = async {
            loop {
                let Some((kind, body)) = peer.next().await else { return };
                if kind == PINGREQ {
                    peer.send(&[0xd0, 0]).await;
                } else if kind & 0xf0 == 0x30 {
                    let id = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    taken += 1;
                    assert_ne!(body[id..id + 2], kept, "an identifier is used twice at once");
                    peer.acknowledge([body[id], body[id + 1]]).await;
                    // All but one that waits for the identifier.
                    if ends && taken == 100 {
                        return;
                    }
                }
            }
        };
        // The session ends in the midst of it, or the one message is waited for until patience ends.
        let is_lost = tokio::select! {
            () = take => false,
            () = async {
                while scene.events.recv().await.expect("the session lives") != Event::Lost {}
            } => true,
        };
        assert!(!(ends && is_lost), "left too early");
        drop(peer);
        while !is_lost && scene.event().await != Event::Lost {}
        let mut peer = scene.open().await;
        soon("the producer", producer).await.unwrap();
        scene.publish(1000, b"after".into(), true).await;
        loop {
            let (topic, id, _) = peer.publish().await;
            peer.acknowledge(id).await;
            if topic == "kasa/1000" {
                break;
            }
        }
        drop(peer);
        while scene.event().await != Event::Lost {}
    }
}

/// The client's own writing is waited for no longer than its answers.
#[tokio::test]
async fn a_peer_that_reads_no_more_is_left() {
    let mut scene = Scene::with_keep_alive(Duration::from_secs(1)).await;
    let peer = scene.open().await;
    // More than both ends of a connection hold.
    for number in 0..4 {
        scene.publish(number, vec![b'x'; 8 << 20], true).await;
    }
    let began = Instant::now();
    assert_eq!(scene.event().await, Event::Lost);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(peer);
    scene.open().await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_left() {
    let mut scene = Scene::with_keep_alive(Duration::from_secs(1)).await;
    let _mute = scene.open().await;
    assert_eq!(scene.event().await, Event::Lost);
    scene.open().await;
}

#[tokio::test]
async fn a_clean_end_says_everything_disconnects_and_stays_away() {
    let mut scene = Scene::new().await;
    let mut peer = scene.open().await;
    for number in 0..10 {
        scene.publish(number, b"last".into(), true).await;
    }
    drop(scene.outbox);
    for _ in 0..10 {
        let (_, id, _) = peer.publish().await;
        peer.acknowledge(id).await;
    }
    assert_eq!(peer.packet().await.0, DISCONNECT);
    drop(peer);
    soon("the session to end", scene.session).await.unwrap();
    let again = tokio::time::timeout(Duration::from_millis(300), scene.listener.accept()).await;
    assert!(again.is_err(), "the client comes back by itself after a disconnect, unless it is stopped");
}

#[tokio::test]
async fn a_session_ends_at_once_without_a_broker() {
    let scene = Scene::new().await;
    drop(scene.listener);
    drop(scene.outbox);
    soon("the session to end", scene.session).await.unwrap();
}
