//! The commands a person types: arguments to one value, and one file for each command that is more than a call.

pub mod check;
pub mod completions;
pub mod conversation;
pub mod demo;
pub mod forget;
pub mod healthcheck;
pub mod log;
pub mod output;
pub mod plug;
pub mod scan;
pub mod simulate;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// TP-Link Kasa plugs as MQTT devices, without the cloud.
#[derive(Debug, Parser)]
#[command(name = "kasa2mqtt", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration file; config.example.toml explains every key.
    #[arg(short, long, value_name = "FILE", global = true, env = "KASA2MQTT_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to log, such as debug or kasa2mqtt::plug=trace; RUST_LOG is heeded too.
    #[arg(long, value_name = "FILTER", global = true, env = "KASA2MQTT_LOG")]
    pub log: Option<String>,
    /// How to log.
    #[arg(long, value_name = "FORMAT", global = true, default_value = "text")]
    pub log_format: log::Format,
    /// What to do; the bridge when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the bridge.
    Run,
    /// Run a broker, three simulated plugs and the bridge, and say what to try.
    Demo,
    /// Read the configuration and say what it means, or what is wrong with it.
    Check(check::Check),
    /// Print what completes this command line in a shell, or its manual page.
    Completions(completions::Completions),
    /// Have the running bridge forget a plug: its topics, and its device in Home Assistant.
    Forget(forget::Forget),
    /// Ask the running bridge whether it works: exit code 0, or 1 and the reason.
    Healthcheck(healthcheck::Healthcheck),
    /// Talk to one plug, once, without a broker.
    Plug(plug::Plug),
    /// List the plugs on this network.
    Scan(scan::Scan),
    /// Run simulated plugs until stopped.
    Simulate(simulate::Simulate),
}

/// Reads the command line.
///
/// # Errors
/// clap's, which also carries `--help` and `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(arguments)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::plug::{To, What};
    use super::*;

    fn cli(line: &str) -> Result<Cli, clap::Error> {
        parse(std::iter::once("kasa2mqtt").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_said_means_run() {
        let cli = cli("-c kasa.toml").unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.config, Some("kasa.toml".into()));
    }

    #[test]
    fn one_plug_is_told_what_to_do() {
        let what = |line: &str| match cli(&format!("plug 192.0.2.1 {line}")).unwrap().command {
            Some(Command::Plug(plug)) => plug.action,
            other => panic!("{other:?}"),
        };
        assert_eq!(what("on"), What::On { time: None });
        assert_eq!(what("led off"), What::Led { to: To::Off });
        assert_eq!(what("alias Lamp"), What::Alias { name: "Lamp".into() });
        assert_eq!(what("state --json"), What::State);
    }

    #[test]
    fn targets_can_be_said_together_or_one_by_one() {
        for line in ["scan --target 192.0.2.1 192.0.2.0/24", "scan --target 192.0.2.1 --target 192.0.2.0/24"]
        {
            let Some(Command::Scan(scan)) = cli(line).unwrap().command else { panic!("{line}") };
            assert_eq!(scan.targets.len(), 2, "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error() {
        for line in [
            "fly",
            "plug",
            "plug 192.0.2.1",
            "plug 192.0.2.1 up",
            "plug :1 on",
            "plug 192.0.2.1 led",
            "scan --target 10.0.0.0/8",
            "scan --target",
            "--log-format xml",
        ] {
            assert_eq!(cli(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(cli("--help").unwrap_err().exit_code(), 0);
    }
}
