//! `kasa2mqtt plug HOST ...`: one plug, once, without a broker.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};

use crate::bridge::state::{self, on_off};
use crate::plug::command::{Action, Switch};
use crate::plug::error::Error;
use crate::plug::link::Link;
use crate::plug::reading::Reading;
use crate::plug::reply::Reply;
use crate::plug::request;
use crate::plug::settings::HostPort;

/// Talks to one plug, once, without a broker.
#[derive(Debug, Args)]
pub struct Plug {
    /// Address or name of the plug, with a port if it is not 9999.
    pub host: HostPort,
    /// What to do.
    #[command(subcommand)]
    pub action: What,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for the plug.
    #[arg(long, global = true, default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// What to do with the plug.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum What {
    /// Print ON or OFF.
    State,
    /// Switch the relay on.
    On,
    /// Switch the relay off.
    Off,
    /// Switch the relay to where it is not.
    Toggle,
    /// Print what the plug says of itself.
    Info,
    /// Print what its meter says.
    Energy,
    /// Switch the status LED.
    Led {
        /// Where to.
        to: LedTo,
    },
    /// Restart the plug.
    Reboot,
    /// Store a new alias in the plug.
    Alias {
        /// The alias.
        name: String,
    },
    /// Send a request as it is and print the reply.
    Raw {
        /// The request, such as {"system":{"get_sysinfo":{}}}.
        request: String,
    },
}

/// The LED's positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LedTo {
    /// Lit.
    On,
    /// Dark.
    Off,
}

/// Methods that destroy, re-identify or expose a plug (class X of protocol.md 2).
const DESTRUCTIVE: &[&str] = &[
    "reset",
    "set_mac_addr",
    "set_device_id",
    "set_hw_id",
    "set_test_mode",
    "download_firmware",
    "flash_firmware",
    "bind",
    "unbind",
    "set_server_url",
    "set_sefserver_url",
    "set_stainfo",
    "erase_emeter_stat",
    "set_vgain_igain",
    "start_calibration",
];

/// Does it and prints the outcome to standard output.
pub async fn run(arguments: &Plug) -> Result<(), Error> {
    let mut link = Link::new(&arguments.host.host, arguments.host.port, arguments.timeout);
    let (text, json) = answer(&mut link, &arguments.action).await?;
    match arguments.json {
        true => println!("{json}"),
        false => println!("{text}"),
    }
    Ok(())
}

async fn answer(link: &mut Link, what: &What) -> Result<(String, Value), Error> {
    if let What::Raw { request } = what {
        let reply = raw(link, request).await?.into_value();
        return Ok((reply.to_string(), reply));
    }
    let reading = read(link).await?;
    let action = match what {
        What::State => return Ok((on_off(reading.outlets[0].relay).into(), state(&reading))),
        What::Info => return Ok((info(&reading), state_and_identity(&reading))),
        What::Energy => return energy(&reading),
        What::On => Action::Relay { outlet: 0, to: Switch::On },
        What::Off => Action::Relay { outlet: 0, to: Switch::Off },
        What::Toggle => Action::Relay { outlet: 0, to: Switch::Toggle },
        What::Led { to: LedTo::On } => Action::Led(Switch::On),
        What::Led { to: LedTo::Off } => Action::Led(Switch::Off),
        What::Reboot => Action::Reboot,
        What::Alias { name } => Action::Alias(name.clone()),
        What::Raw { .. } => unreachable!("answered above"),
    };
    let Some((request, method)) = request::request(&action, &reading)? else {
        unreachable!("every action is one")
    };
    link.exchange(&request, action.is_repeatable()).await?.confirm(method)?;
    let done = match action {
        Action::Relay { to, .. } => on_off(to.from(reading.outlets[0].relay)).to_string(),
        _ => "ok".into(),
    };
    Ok((done, json!({"ok": true})))
}

async fn read(link: &mut Link) -> Result<Reading, Error> {
    let reply = link.exchange(request::GET_SYSINFO, true).await?;
    let mut reading = Reading::parse(&reply, SystemTime::now())?;
    if reading.has_meter() {
        let reply = link.exchange(request::GET_SYSINFO_AND_ENERGY, true).await?;
        reading = Reading::parse(&reply, SystemTime::now())?;
    }
    Ok(reading)
}

async fn raw(link: &mut Link, request: &str) -> Result<Reply, Error> {
    let parsed: Value = serde_json::from_str(request)
        .map_err(|error| Error::Malformed(format!("the request is not JSON: {error}")))?;
    let modules = parsed.as_object().into_iter().flat_map(|modules| modules.values());
    let methods = modules.filter_map(Value::as_object).flat_map(|methods| methods.keys());
    if let Some(method) = methods.into_iter().find(|method| DESTRUCTIVE.contains(&method.as_str())) {
        let why = format!("{method} can destroy the plug or its identity and is not sent");
        return Err(Error::Malformed(why));
    }
    link.exchange(request.as_bytes(), false).await
}

fn state(reading: &Reading) -> Value {
    serde_json::from_slice(&state::render(reading)).expect("we have just written it")
}

fn state_and_identity(reading: &Reading) -> Value {
    let mut all = state(reading);
    all["mac"] = reading.mac.to_string().into();
    all["alias"] = reading.alias.as_str().into();
    all["model"] = reading.model.as_str().into();
    all["hw"] = reading.hw_ver.as_str().into();
    all["sw"] = reading.sw_ver.as_str().into();
    all
}

fn info(reading: &Reading) -> String {
    let outlet = &reading.outlets[0];
    let unknown = || "unknown".to_string();
    let rows = [
        ("alias", reading.alias.clone()),
        ("model", reading.model.clone()),
        ("mac", reading.mac.to_string()),
        ("hardware", reading.hw_ver.clone()),
        ("firmware", reading.sw_ver.clone()),
        ("relay", on_off(outlet.relay).into()),
        (
            "on since",
            outlet.on_since.map_or_else(|| "-".into(), |moment| format_rfc3339_seconds(moment).to_string()),
        ),
        ("led", reading.led.map_or_else(unknown, |lit| on_off(lit).into())),
        ("rssi", reading.rssi.map_or_else(unknown, |dbm| format!("{dbm} dBm"))),
        ("meter", if reading.has_meter() { "yes".into() } else { "no".into() }),
    ];
    rows.map(|(key, value)| format!("{key:<9} {value}")).join("\n")
}

fn energy(reading: &Reading) -> Result<(String, Value), Error> {
    let emeter = reading.outlets[0].emeter.ok_or(Error::Unsupported("no energy meter"))?;
    let state = state(reading);
    let row = |key: &str, unit: &str| match &state[key] {
        Value::Null => "unknown".into(),
        number => format!("{number} {unit}"),
    };
    let text = format!(
        "power     {}\nvoltage   {}\ncurrent   {}\ntotal     {}",
        row("power", "W"),
        row("voltage", "V"),
        row("current", "A"),
        row("energy_total", "kWh"),
    );
    let json = json!({"power_mw": emeter.power_mw, "voltage_mv": emeter.voltage_mv, "current_ma": emeter.current_ma,
        "total_wh": emeter.total_wh});
    Ok((text, json))
}
