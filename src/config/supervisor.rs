//! Home Assistant's Supervisor as a source, where this program runs as an app of it: what its user entered, and the
//! broker that the Supervisor knows. Facts: homeassistant.md 7.

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where the Supervisor puts what the user entered.
const OPTIONS: &str = "/data/options.json";

/// Where the Supervisor is for its apps.
const SUPERVISOR: &str = "supervisor:80";

/// It is in the same machine.
const DEADLINE: Duration = Duration::from_secs(10);

/// Far more than it has to say.
const LONGEST_ANSWER: usize = 64 << 10;

/// Where to ask, and by which right.
#[derive(Debug)]
pub struct Supervisor {
    options: PathBuf,
    address: String,
    token: String,
}

/// What was learnt: options, and what fills their gaps.
#[derive(Debug)]
pub struct Learnt {
    source: PathBuf,
    values: Dict,
}

/// The broker that the Supervisor knows.
#[derive(Debug, Deserialize)]
struct Service {
    host: String,
    port: u16,
    #[serde(default)]
    ssl: bool,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Option<Service>,
}

impl Supervisor {
    /// The one that started this program, if one did: it gave the token.
    pub fn from_environment() -> Option<Supervisor> {
        let token = std::env::var("SUPERVISOR_TOKEN").ok().filter(|token| !token.is_empty())?;
        Some(Supervisor::new(OPTIONS.into(), SUPERVISOR.into(), token))
    }

    /// Another one, as tests have it.
    pub fn new(options: PathBuf, address: String, token: String) -> Supervisor {
        Supervisor { options, address, token }
    }

    /// Reads the options; asks for the broker where they name none.
    ///
    /// # Errors
    /// The options are no JSON object, or there is no broker. The token and passwords are not part of it.
    pub async fn ask(&self) -> Result<Learnt, String> {
        let named = |problem: String| format!("{}: {problem}", self.options.display());
        let text = std::fs::read_to_string(&self.options).map_err(|error| named(error.to_string()))?;
        // serde_json's own words name the place, not the value.
        let mut values: Dict = serde_json::from_str(&text).map_err(|error| named(error.to_string()))?;
        values.retain(|_, value| is_entered(value));
        let has_broker = values.get("mqtt").is_some_and(|mqtt| mqtt.find_ref("url").is_some());
        if !has_broker {
            let service = timeout(DEADLINE, self.service()).await.unwrap_or_else(|_| Err("no answer".into()));
            let service = service.map_err(|problem| {
                format!("no broker from the Supervisor ({problem}): start the Mosquitto broker app, or set mqtt.url")
            })?;
            let mqtt = values.entry("mqtt".into()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, mqtt) = mqtt {
                mqtt.extend(service.into_keys());
            }
        }
        Ok(Learnt { source: self.options.clone(), values })
    }

    async fn service(&self) -> Result<Service, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get("/services/mqtt")
            .header(HOST, "supervisor")
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            if !status.is_success() {
                return Err(status.to_string().into());
            }
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await?.to_bytes();
            let answer: Answer = serde_json::from_slice(&body)?;
            answer.data.ok_or_else(|| "it knows none".into())
        };
        tokio::select! {
            answer = answer => answer,
            // The connection ends after the answer has been read, or because it failed.
            Err(error) = connection => Err(error.into()),
        }
    }
}

impl Service {
    fn into_keys(self) -> Dict {
        let scheme = if self.ssl { "mqtts" } else { "mqtt" };
        let entered = |text: Option<String>| text.filter(|text| !text.is_empty());
        let url = format!("{scheme}://{}:{}", self.host, self.port);
        let keys =
            [("url", Some(url)), ("username", entered(self.username)), ("password", entered(self.password))];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_string(), Value::from(value?)))).collect()
    }
}

/// Whether a value says something. The form leaves empty what nobody filled in; sections lose what is empty in them.
fn is_entered(value: &mut Value) -> bool {
    match value {
        Value::Empty(..) => false,
        Value::String(_, text) => !text.is_empty(),
        Value::Dict(_, values) => {
            values.retain(|_, value| is_entered(value));
            !values.is_empty()
        }
        Value::Array(_, values) => {
            values.retain_mut(is_entered);
            true
        }
        _ => true,
    }
}

impl Provider for Learnt {
    fn metadata(&self) -> Metadata {
        Metadata::from("options", AsRef::<Path>::as_ref(&self.source))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::globals(&self.values).data()
    }
}
