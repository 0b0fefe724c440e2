//! `mqtts://` and passwords against mosquitto: a given authority, the name in the certificate, a certificate of ours.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kasa2mqtt::bridge::message::Publish;
use kasa2mqtt::bridge::retained::Ticket;
use kasa2mqtt::mqtt::connection::{Connection, Will};
use kasa2mqtt::mqtt::failure::Failure;
use kasa2mqtt::mqtt::session::{self, Event, Identity};
use kasa2mqtt::mqtt::settings::{BrokerUrl, Settings};
use kasa2mqtt::mqtt::tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use support::bridge::Program;
use support::house::plugs;
use support::mosquitto::Mosquitto;
use support::soon;
use tokio::sync::mpsc;

/// An authority, a certificate that it signed for "localhost", and one for a client.
struct Papers {
    folder: tempfile::TempDir,
}

impl Papers {
    fn new() -> Papers {
        Papers::until(4000)
    }

    /// The broker's certificate is valid until the beginning of this year.
    fn until(year: i32) -> Papers {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
        params.distinguished_name.push(DnType::CommonName, "Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        for name in ["localhost", "client"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.into()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            let certificate = params.signed_by(&key, &issuer).unwrap();
            fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Papers { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().into()
    }

    fn listener(&self, more: &str) -> String {
        let (ca, cert, key) = (self.path("ca.pem"), self.path("localhost.pem"), self.path("localhost.key"));
        format!("allow_anonymous true\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\n{more}")
    }
}

fn settings(papers: &Papers) -> Settings {
    Settings { ca_file: Some(papers.path("ca.pem").into()), ..Settings::default() }
}

fn url(host: &str, broker: &Mosquitto) -> BrokerUrl {
    BrokerUrl { tls: true, host: host.into(), port: broker.address().port() }
}

fn will() -> Will {
    Will { topic: "kasa/bridge/state".into(), payload: "offline" }
}

/// A session that opens, and says something that the broker acknowledges.
async fn works(settings: Settings, url: BrokerUrl) {
    let (outbox, receiver) = mpsc::channel(1);
    let (sender, mut events) = mpsc::channel(16);
    let filters = vec!["kasa/+/set".into()];
    let identity =
        Identity { client_id: "tls".into(), will: Some(will()), filters, memory_filters: Vec::new() };
    let session = tokio::spawn(session::run(settings, vec![url], identity, receiver, sender, Instant::now()));
    assert_eq!(soon("a session", events.recv()).await, Some(Event::Opened));
    outbox
        .send(Publish { ticket: Ticket(1), topic: "x".into(), payload: b"y".into(), retain: true })
        .await
        .unwrap();
    assert_eq!(soon("an acknowledgement", events.recv()).await, Some(Event::Acknowledged(Ticket(1))));
    drop(outbox);
    soon("the end", session).await.unwrap();
}

/// `urls = ["mqtts://a", "mqtts://b", "mqtts://c"]`, of which the first takes connections and shakes no hands.
#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn of_several_encrypted_brokers_one_that_fails_is_left_for_the_next_within_seconds() {
    let papers = Papers::new();
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut brokers = [
        Mosquitto::start_with(&papers.listener("")).await,
        Mosquitto::start_with(&papers.listener("")).await,
    ];
    let mut urls =
        vec![BrokerUrl { tls: true, host: "localhost".into(), port: mute.local_addr().unwrap().port() }];
    urls.extend(brokers.iter().map(|broker| url("localhost", broker)));
    let settings = Settings { urls: urls.clone(), ..settings(&papers) };
    let (outbox, receiver) = mpsc::channel(1);
    let (sender, mut events) = mpsc::channel(16);
    let filters = vec!["kasa/+/set".into()];
    let identity =
        Identity { client_id: "tls".into(), will: Some(will()), filters, memory_filters: Vec::new() };
    let session = tokio::spawn(session::run(settings, urls, identity, receiver, sender, Instant::now()));
    for _ in 0..4 {
        let began = Instant::now();
        assert_eq!(soon("a session", events.recv()).await, Some(Event::Opened));
        println!("the next after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        for broker in &mut brokers {
            if broker.log().contains("New client connected") {
                broker.restart().await;
            }
        }
        assert_eq!(soon("its end", events.recv()).await, Some(Event::Lost));
    }
    drop(outbox);
    soon("the end", session).await.unwrap();
}

/// What a person is told of the first failure.
async fn failure(settings: &Settings, url: &BrokerUrl) -> Failure {
    let mut connection =
        Connection::begin(settings, url, "tls", Some(&will()), 0, Instant::now()).await.unwrap();
    soon("a failure", async {
        loop {
            if let Some((_, Err(error))) = connection.events.recv().await {
                return error.into();
            }
        }
    })
    .await
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn a_given_authority_is_trusted_and_the_systems_are_not_enough() {
    let papers = Papers::new();
    let broker = Mosquitto::start_with(&papers.listener("")).await;
    works(settings(&papers), url("localhost", &broker)).await;
    // Another authority than the one that signed.
    let strangers = Papers::new();
    let told = failure(&settings(&strangers), &url("localhost", &broker)).await;
    assert!(told.needs_a_person && told.text.contains("invalid peer certificate"), "{told:?}");
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn the_systems_authorities_are_trusted_where_none_is_given() {
    use std::io::BufRead;
    let papers = Papers::new();
    let broker = Mosquitto::start_with(&papers.listener("")).await;
    let mut child = Program::command()
        .args(["run", "--log", "info"])
        .env("KASA2MQTT_MQTT__URL", url("localhost", &broker).to_string())
        // Where the system's store is said to be.
        .env("SSL_CERT_FILE", papers.path("ca.pem"))
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let connected = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("connect")));
    child.kill().unwrap();
    child.wait().unwrap();
    let line = connected.expect("a line").unwrap();
    assert!(line.contains("connected to the broker"), "{line}");
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn the_name_must_be_the_certificates() {
    let papers = Papers::new();
    let broker = Mosquitto::start_with(&papers.listener("")).await;
    let told = failure(&settings(&papers), &url("127.0.0.1", &broker)).await;
    assert!(told.needs_a_person && told.text.contains("not valid for name"), "{told:?}");
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn an_expired_certificate_is_refused_and_its_successor_taken() {
    let papers = Papers::until(2020);
    let broker = Mosquitto::start_with(&papers.listener("")).await;
    let told = failure(&settings(&papers), &url("localhost", &broker)).await;
    assert!(told.needs_a_person && told.text.contains("certificate expired"), "{told:?}");
    let papers = Papers::until(4000);
    let broker = Mosquitto::start_with(&papers.listener("")).await;
    works(settings(&papers), url("localhost", &broker)).await;
}

/// The whole program: it is said once what is wrong, and plugs are polled all the while.
#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn polls_go_on_whatever_is_wrong_with_the_certificate() {
    for (papers, host, trouble) in [
        (Papers::until(2020), "localhost", "certificate expired"),
        (Papers::new(), "127.0.0.1", "not valid for name"),
    ] {
        let plugs = plugs(&["HS100-G3"]).await;
        let broker = Mosquitto::start_with(&papers.listener("")).await;
        let log = papers.folder.path().join("log");
        let mut command = Program::logged("", &[plugs[0].address()], &log);
        command.env("KASA2MQTT_MQTT__URL", url(host, &broker).to_string());
        let program = Program::spawn(command.env("KASA2MQTT_MQTT__CA_FILE", papers.path("ca.pem")));
        let lines = || fs::read_to_string(&log).unwrap().matches(trouble).count();
        soon(trouble, async {
            while lines() == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        let polls = plugs[0].counts().borrow().requests;
        soon("polls", plugs[0].counts().wait_for(|counts| counts.requests > polls + 6)).await.unwrap();
        assert_eq!(lines(), 1, "{trouble}");
        program.signal("TERM");
        assert!(program.ended().await.success());
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn a_broker_may_want_our_certificate() {
    let papers = Papers::new();
    let broker = Mosquitto::start_with(&papers.listener("require_certificate true\n")).await;
    let told = failure(&settings(&papers), &url("localhost", &broker)).await;
    assert!(told.needs_a_person && told.text.contains("TLS"), "{told:?}");
    let ours = Settings {
        client_cert: Some(papers.path("client.pem").into()),
        client_key: Some(papers.path("client.key").into()),
        ..settings(&papers)
    };
    works(ours, url("localhost", &broker)).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn a_password_is_read_from_its_file_at_each_connection() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let set = |password: &str| {
        let mut run = std::process::Command::new("mosquitto_passwd");
        run.args(["-b", "-c"]).arg(&users).args(["kasa", password]);
        assert!(run.status().unwrap().success());
        // mosquitto gives up its rights before it reads the file.
        use std::os::unix::fs::PermissionsExt;
        for path in [folder.path(), users.as_path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    };
    set("right");
    let broker =
        Mosquitto::start_with(&format!("allow_anonymous false\npassword_file {}\n", users.display())).await;
    let file = folder.path().join("password");
    fs::write(&file, "wrong\n").unwrap();
    let settings =
        Settings { username: Some("kasa".into()), password_file: Some(file.clone()), ..Settings::default() };
    let url = BrokerUrl { tls: false, ..url("127.0.0.1", &broker) };
    let told = failure(&settings, &url).await;
    assert!(told.needs_a_person && told.text.contains("mqtt.password"), "{told:?}");
    fs::write(&file, "right\n").unwrap();
    works(settings, url).await;
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, "not a certificate").unwrap();
    for path in [file.as_path(), Path::new("/nowhere/ca.pem")] {
        let settings = Settings { ca_file: Some(path.into()), ..Settings::default() };
        let error = tls::client_config(&settings).unwrap_err().to_string();
        assert!(error.contains("mqtt.ca_file") && error.contains(path.to_str().unwrap()), "{error}");
    }
}
