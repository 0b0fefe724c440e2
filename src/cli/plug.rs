//! `kasa2mqtt plug HOST ...`: one plug, once, without a broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::bridge::state::on_off;
use crate::plug::clock::{Keeper, Set};
use crate::plug::command::{Action, Outlets, Switch};
use crate::plug::error::{Error, unsupported};
use crate::plug::klap::account::Account;
use crate::plug::link::Access;
use crate::plug::owner::{Owner, Settings};
use crate::plug::raw;
use crate::plug::reading::Reading;
use crate::plug::settings::HostPort;
use crate::steps::Steps;

use super::output;
use super::table;

/// Talks to one plug, once, without a broker.
#[derive(Debug, Args)]
pub struct Plug {
    /// Address or name of the plug, with a port if it is not 9999.
    pub host: HostPort,
    /// What to do.
    #[command(subcommand)]
    pub action: What,
    /// One outlet of a strip, by its number; else all of them.
    #[arg(long, global = true, value_name = "NUMBER")]
    pub outlet: Option<u8>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for the plug.
    #[arg(long, global = true, default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// E-mail address of the Kasa app's account, for plugs whose firmware wants it.
    #[arg(
        long,
        global = true,
        value_name = "EMAIL",
        env = "KASA2MQTT_KASA__USERNAME",
        hide_env_values = true
    )]
    pub username: Option<SecretString>,
    /// Its password. Better in the environment, where nobody sees it.
    #[arg(long, global = true, env = "KASA2MQTT_KASA__PASSWORD", hide_env_values = true)]
    pub password: Option<SecretString>,
    /// File that holds the password.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KASA2MQTT_KASA__PASSWORD_FILE",
        conflicts_with = "password"
    )]
    pub password_file: Option<PathBuf>,
}

/// What to do with the plug.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum What {
    /// Print ON or OFF; for a strip, a line for each outlet.
    State,
    /// Switch on.
    On {
        /// Have the plug itself switch off after this time.
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        time: Option<Duration>,
    },
    /// Switch off.
    Off,
    /// Switch to where it is not.
    Toggle,
    /// Set a dimmer, in percent; 0 is off.
    Brightness {
        /// 0 to 100.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
        /// How long the change takes.
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
        over: Duration,
    },
    /// Print what the plug says of itself.
    Info,
    /// Print what its meter says.
    Energy,
    /// Switch the status LED.
    Led {
        /// Where to.
        to: To,
    },
    /// Switch the motion sensor.
    Pir {
        /// Where to.
        to: To,
    },
    /// Blink the LED for a few seconds.
    Identify,
    /// Restart the plug.
    Reboot,
    /// Store a new alias in the plug, or in one of its outlets.
    Alias {
        /// The alias.
        name: String,
    },
    /// The plug's tie to its vendor's cloud.
    Cloud {
        /// What about it.
        #[command(subcommand)]
        what: Cloud,
    },
    /// Send a request as it is and print the reply.
    Raw {
        /// The request, such as {"system":{"get_sysinfo":{}}}.
        request: String,
        /// Send this method although it can destroy the plug or its identity.
        #[arg(long = "yes-destroy", value_name = "METHOD")]
        destroy: Vec<String>,
        /// Show coordinates, ids and account names as well.
        #[arg(long)]
        unmasked: bool,
    },
}

/// What to do with the plug's tie to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Cloud {
    /// Print whether the plug is bound to an account, and connected.
    Info,
    /// Take the plug out of its owner's account.
    Unbind,
}

/// Positions of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// Lit, or active.
    On,
    /// Dark, or idle.
    Off,
}

impl From<To> for Switch {
    fn from(to: To) -> Switch {
        match to {
            To::On => Switch::On,
            To::Off => Switch::Off,
        }
    }
}

const UNBIND_WARNING: &str = "warning: the plug leaves its owner's account. The Kasa app then reaches it only in the \
    same network, and voice assistants not at all, until it is set up again. Local control goes on.";

/// Does it and prints the outcome to standard output.
///
/// # Errors
/// The plug's, or it cannot be printed.
pub async fn run(arguments: &Plug) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut owner = Owner::new(&settings(arguments));
    let outlets = arguments.outlet.map_or(Outlets::All, Outlets::One);
    let (text, json) = answer(&mut owner, &arguments.action, outlets).await?;
    match arguments.json {
        true => output::line(json)?,
        false => output::line(text)?,
    }
    Ok(())
}

fn settings(arguments: &Plug) -> Settings {
    let account = Account {
        username: arguments.username.clone(),
        password: arguments.password.clone(),
        password_file: arguments.password_file.clone(),
    };
    Settings {
        host: arguments.host.host.clone(),
        port: arguments.host.port,
        access: Access { accounts: [account].into(), ..Access::default() },
        mac: None,
        interval: Duration::from_secs(5),
        energy_interval: Duration::from_secs(60),
        timeout: arguments.timeout,
        first_poll: Duration::ZERO,
        steps: Steps::new(Instant::now(), Duration::ZERO),
        // To look at a plug must not change it.
        keeper: Arc::new(Keeper { set: Set::Never, zone: TimeZone::system() }),
        wall: Arc::new(SystemTime::now),
    }
}

async fn answer(owner: &mut Owner, what: &What, outlets: Outlets) -> Result<(String, Value), Error> {
    let actions = match what {
        What::State => {
            let reading = owner.read().await?;
            return Ok((table::state(&reading, outlets)?, table::as_json(&reading, outlets)?));
        }
        What::Info | What::Energy => {
            owner.read().await?;
            owner.ask_everything().await;
            let reading = owner.read().await?;
            let text =
                if *what == What::Info { table::info(&reading) } else { table::energy(&reading, outlets)? };
            return Ok((text, table::as_json(&reading, outlets)?));
        }
        What::Raw { request, destroy, unmasked } => {
            let reply = send(owner, request, destroy).await?;
            let reply = if *unmasked { reply } else { raw::masked(reply) };
            return Ok((reply.to_string(), reply));
        }
        What::Cloud { what } => return cloud(owner, *what).await,
        What::On { time } => {
            let timer = time.map(|time| Action::OffAfter { outlets, time });
            timer.into_iter().chain([Action::Relay { outlets, to: Switch::On }]).collect()
        }
        What::Off => vec![Action::Relay { outlets, to: Switch::Off }],
        What::Toggle => vec![Action::Relay { outlets, to: Switch::Toggle }],
        What::Brightness { percent: 0, over } => {
            vec![Action::Fade { to: Switch::Off, level: None, over: *over }]
        }
        What::Brightness { percent, over } => {
            vec![Action::Fade { to: Switch::On, level: Some(*percent), over: *over }]
        }
        What::Led { to } => vec![Action::Led((*to).into())],
        What::Pir { to } => vec![Action::Motion((*to).into())],
        What::Identify => vec![Action::Identify],
        What::Reboot => vec![Action::Reboot],
        What::Alias { name } => vec![Action::Alias { outlets, alias: name.clone() }],
    };
    let reading = obey(owner, &actions).await?;
    while owner.is_blinking() {
        tokio::time::sleep_until(owner.due_at()).await;
        owner.act().await;
    }
    match (reading, actions.iter().any(Action::moves_relay)) {
        (Some(reading), true) => Ok((table::state(&reading, outlets)?, table::as_json(&reading, outlets)?)),
        _ => Ok(("ok".into(), json!({"ok": true}))),
    }
}

async fn obey(owner: &mut Owner, actions: &[Action]) -> Result<Option<Arc<Reading>>, Error> {
    let done = owner.obey(actions, Instant::now() + Duration::from_secs(60)).await;
    done.outcome.map(|()| done.reading)
}

async fn send(owner: &mut Owner, request: &str, destroy: &[String]) -> Result<Value, Error> {
    let request: Value = serde_json::from_str(request)
        .map_err(|error| Error::Malformed(format!("the request is not JSON: {error}")))?;
    if let Some(method) =
        raw::destructive(&request).iter().find(|method| !destroy.iter().any(|named| named == *method))
    {
        return Err(unsupported(format!(
            "{method} can destroy the plug or its identity; --yes-destroy {method} sends it all the same"
        )));
    }
    let done = owner.obey(&[Action::Raw(Box::new(request))], Instant::now() + Duration::from_secs(60)).await;
    done.outcome.map(|()| done.reply.map_or(Value::Null, |reply| *reply))
}

async fn cloud(owner: &mut Owner, what: Cloud) -> Result<(String, Value), Error> {
    let (request, destroy) = match what {
        Cloud::Info => (r#"{"cnCloud":{"get_info":{}}}"#, vec![]),
        Cloud::Unbind => {
            output::complain(UNBIND_WARNING);
            (r#"{"cnCloud":{"unbind":{}}}"#, vec!["unbind".to_string()])
        }
    };
    let reply = raw::masked(send(owner, request, &destroy).await?);
    let method = if what == Cloud::Info { "get_info" } else { "unbind" };
    let answer = &reply["cnCloud"][method];
    match answer["err_code"].as_i64() {
        Some(0) if what == Cloud::Unbind => Ok(("ok".into(), json!({"ok": true}))),
        Some(0) => {
            let flag = |key: &str| answer[key].as_i64().map(|flag| on_off(flag == 1));
            let text = format!(
                "bound      {}\nconnected  {}\nserver     {}",
                flag("binded").unwrap_or("unknown"),
                flag("cld_connection").unwrap_or("unknown"),
                answer["server"].as_str().unwrap_or("unknown"),
            );
            Ok((text, answer.clone()))
        }
        _ => {
            let message = answer["err_msg"].as_str().unwrap_or("no reason given").chars().take(80).collect();
            Err(Error::Refused { code: answer["err_code"].as_i64().unwrap_or(-1), message })
        }
    }
}
