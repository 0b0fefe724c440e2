//! A broker to test against: ours, or a real mosquitto.

use std::net::SocketAddr;

use kasa2mqtt::broker::Broker;
use kasa2mqtt::broker::settings::Settings;

use super::mosquitto::Mosquitto;
use super::port;

pub enum AnyBroker {
    Embedded(Option<Broker>, SocketAddr),
    Mosquitto(Mosquitto),
}

impl AnyBroker {
    pub async fn embedded() -> AnyBroker {
        // Not port 0: it may be asked to come back on the same one.
        let settings = Settings { listen: port::unused(), ..Settings::default() };
        let broker = Broker::start(settings).await.unwrap();
        let address = broker.address();
        AnyBroker::Embedded(Some(broker), address)
    }

    pub async fn mosquitto() -> AnyBroker {
        AnyBroker::Mosquitto(Mosquitto::start().await)
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            AnyBroker::Embedded(_, address) => *address,
            AnyBroker::Mosquitto(mosquitto) => mosquitto.address(),
        }
    }

    /// Ends it at once; it forgets everything.
    pub async fn kill(&mut self) {
        match self {
            AnyBroker::Embedded(broker, _) => broker.take().unwrap().stop().await,
            AnyBroker::Mosquitto(mosquitto) => mosquitto.kill(),
        }
    }

    /// Starts it again on the same port.
    pub async fn restart(&mut self) {
        match self {
            AnyBroker::Embedded(broker, address) => {
                let settings = Settings { listen: *address, ..Settings::default() };
                *broker = Some(Broker::start(settings).await.unwrap());
            }
            AnyBroker::Mosquitto(mosquitto) => mosquitto.restart().await,
        }
    }
}

/// One test for each function: as it is against the embedded broker, and ignored against mosquitto, for `tests/run`.
/// What stands behind `with` is the functions' second argument.
#[macro_export]
macro_rules! against_both_brokers {
    (with $argument:path; $($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() {
                super::$name($crate::support::broker::AnyBroker::embedded().await, $argument).await;
            })*
        }
        mod mosquitto {
            $(#[tokio::test] #[ignore = "needs mosquitto: tests/run"] async fn $name() {
                super::$name($crate::support::broker::AnyBroker::mosquitto().await, $argument).await;
            })*
        }
    };
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() {
                super::$name($crate::support::broker::AnyBroker::embedded().await).await;
            })*
        }
        mod mosquitto {
            $(#[tokio::test] #[ignore = "needs mosquitto: tests/run"] async fn $name() {
                super::$name($crate::support::broker::AnyBroker::mosquitto().await).await;
            })*
        }
    };
}
