//! Arguments in, exit code out: 0 ok, 1 failed, 2 usage.

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Instant;

use clap::CommandFactory;
use kasa2mqtt::app::{self, Ended};
use kasa2mqtt::cli::{self, Cli, Command, output};
use kasa2mqtt::config;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(error) = cli::log::start(cli.log.as_deref(), cli.log_format) {
        output::complain(format_args!("--log: {error}"));
        return ExitCode::from(2);
    }
    let since = Instant::now();
    // One thread: a poll or a command is a few microseconds of work between waits, and hops between threads would cost
    // more than they gain.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(error);
            return ExitCode::FAILURE;
        }
    };
    // As a task like all others: what the runtime itself waits for is woken by way of the kernel, every time.
    let outcome = runtime.block_on(async { tokio::spawn(run(cli, since)).await });
    // Not by dropping it, which would wait for a resolver that does not answer.
    runtime.shutdown_background();
    match outcome.unwrap_or_else(|panicked| Err(panicked.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli, since: Instant) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Once for all restarts: what arrives between two of them must not be lost.
    let mut signals = Signals::new()?;
    match cli.command.unwrap_or(Command::Run) {
        Command::Check(check) => output::line(check.run(cli.config.as_deref()).await?)?,
        Command::Completions(completions) => cli::completions::run(&completions, Cli::command())?,
        Command::Plug(plug) => tokio::select! {
            done = cli::plug::run(&plug) => done?,
            () = signals.stopped() => return Err("interrupted".into()),
        },
        Command::Forget(forget) => {
            let config = config::load(cli.config.as_deref()).await?;
            tokio::select! {
                done = cli::forget::run(&forget, &config) => done?,
                () = signals.stopped() => return Err("interrupted".into()),
            }
        }
        Command::Healthcheck(healthcheck) => {
            cli::healthcheck::run(&healthcheck, cli.config.as_deref()).await?;
        }
        Command::Scan(scan) => tokio::select! {
            done = cli::scan::run(&scan) => done?,
            () = signals.stopped() => return Err("interrupted".into()),
        },
        Command::Simulate(simulate) => cli::simulate::run(simulate, signals.stopped()).await?,
        Command::Demo => cli::demo::run(signals.stopped()).await?,
        Command::Run => loop {
            let config = config::load(cli.config.as_deref()).await?;
            for problem in config::exposed(&config, cli.config.as_deref()) {
                warn!("{problem}");
            }
            if app::run(&config, since, signals.stopped()).await? == Ended::Stopped {
                break;
            }
        },
    }
    Ok(())
}

/// Ctrl-C, and the service manager's way to say the same.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Completes when the program is told to stop.
    async fn stopped(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
