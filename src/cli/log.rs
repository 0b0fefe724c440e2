//! Logging: quiet, to standard error, in UTC.

use std::ffi::OsStr;
use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Our own news, and other crates' only when something is wrong.
const USUAL: &str = "warn,kasa2mqtt=info";

/// Starts logging. `filter` wins over `RUST_LOG`, which wins over the usual.
///
/// # Errors
/// The filter is not one.
pub fn start(filter: Option<&str>, format: Format) -> Result<(), ParseError> {
    let rust_log = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter: Targets = filter.or(rust_log.as_deref()).unwrap_or(USUAL).parse()?;
    // To complain on standard error about a full disk under standard error would end the program.
    let lines = fmt::layer().with_writer(stderr).with_target(false).log_internal_errors(false);
    let filtered = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => {
            let no_color = std::env::var_os("NO_COLOR");
            let lines = lines.with_ansi(colours(stderr().is_terminal(), no_color.as_deref()));
            filtered.with(lines).init();
        }
        Format::Json => filtered.with(lines.json()).init(),
    }
    Ok(())
}

/// Colours are for terminals, and not for people who do not want them (no-color.org).
fn colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_for_those_who_want_them() {
        assert!(colours(true, None) && colours(true, Some(OsStr::new(""))));
        assert!(!colours(true, Some(OsStr::new("1"))) && !colours(false, None));
    }
}
