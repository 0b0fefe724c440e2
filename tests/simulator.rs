//! Simulated plugs over the network: the TCP side is in every other test, this is what those do not see.

mod support;

use kasa2mqtt::plug::cipher;
use support::house::{FREE, plugs};
use support::soon;
use tokio::net::UdpSocket;

#[tokio::test]
async fn a_plug_answers_by_udp_on_the_same_port_without_a_length() {
    for plug in plugs(&["HS100-G1", "HS110-G2", "HS110-G3"]).await {
        let socket = UdpSocket::bind(FREE).await.unwrap();
        let request = cipher::encrypt(br#"{"system":{"get_sysinfo":{}}}"#);
        socket.send_to(&request, plug.address()).await.unwrap();
        let mut buffer = [0; 2048];
        let (length, from) = soon("a reply", socket.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(from, plug.address());
        let reply = &mut buffer[..length];
        cipher::decrypt(reply);
        let reply: serde_json::Value = serde_json::from_slice(reply).unwrap();
        assert_eq!(reply["system"]["get_sysinfo"]["mac"], plug.mac());
    }
}

#[tokio::test]
async fn a_plug_that_is_dropped_frees_its_port() {
    let plug = plugs(&["HS100-G1"]).await.remove(0);
    let address = plug.address();
    drop(plug);
    soon("the port", async {
        while std::net::TcpListener::bind(address).is_err() || std::net::UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
