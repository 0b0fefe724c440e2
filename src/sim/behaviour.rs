//! How a simulated plug behaves beyond its model: habits of firmware, and faults (protocol.md 1.3, 1.4, 2.7, 11).

use std::time::Duration;

use clap::{Args, ValueEnum};

/// Habits and faults. None of them by default: a plug that answers at once and keeps its connection open.
///
/// Also the options of `kasa2mqtt simulate`, so that each is spelt once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct Behaviour {
    /// What becomes of replies.
    #[arg(long, value_enum, default_value_t)]
    pub reply: Reply,
    /// Time before each reply.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub delay: Duration,
    /// Bytes in each piece of a reply; 0 for all in one. Seen on plugs: 1024 and 1448.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub fragment: usize,
    /// Close the connection after each reply, as most plugs do.
    #[arg(long)]
    pub close: bool,
    /// Answer every method with an error.
    #[arg(long)]
    pub refuse: bool,
    /// End every connection at once and answer no datagram, as a plug whose port is closed.
    #[arg(long)]
    pub deaf: bool,
    /// Take a request to end where its JSON does, whatever length is announced: firmware of 2016.
    #[arg(long)]
    pub ignore_length: bool,
    /// End every third connection before its first reply: a bad Wi-Fi.
    #[arg(long)]
    pub bad_wifi: bool,
    /// Answer no datagrams.
    #[arg(long)]
    pub no_udp: bool,
    /// Do not answer by UDP what has more bytes than this.
    #[arg(long, value_name = "BYTES")]
    pub max_datagram: Option<usize>,
    /// Lack this module; can be given several times.
    #[arg(long, value_name = "MODULE")]
    pub lacks: Vec<String>,
    /// Restart when asked for a module that it does not have.
    #[arg(long)]
    pub dies_of_unknown: bool,
    /// Restart when the meter is asked by UDP.
    #[arg(long)]
    pub dies_of_udp_meter: bool,
    /// Restart when a request has more bytes than this; 768 for some.
    #[arg(long, value_name = "BYTES")]
    pub max_request: Option<usize>,
    /// Restart when a reply would have more bytes than this; 4096 for some.
    #[arg(long, value_name = "BYTES")]
    pub max_reply: Option<usize>,
    /// Ignore requests beyond so many in ten seconds, as the HS300 does.
    #[arg(long, value_name = "REQUESTS")]
    pub budget: Option<usize>,
    /// A strip obeys every child id of a relay command, not the first alone.
    #[arg(long)]
    pub all_children: bool,
    /// A strip obeys a relay command without child ids.
    #[arg(long)]
    pub parent_relay: bool,
    /// Find no time on the internet: the clock is lost at each restart until somebody sets it.
    #[arg(long)]
    pub no_ntp: bool,
    /// Leave the network for half a minute every so often, as some plugs do without their cloud.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub watchdog: Option<Duration>,
    /// Speak KLAP of this version, with port 9999 closed.
    #[arg(long, value_enum, value_name = "VERSION")]
    pub klap: Option<Klap>,
    /// Over KLAP, want this account; else the one of plugs that were never set up. Made up: it is no secret here.
    #[arg(long, value_name = "EMAIL:PASSWORD")]
    pub account: Option<String>,
    /// Over KLAP, answer requests of more bytes than this with a page of HTML.
    #[arg(long, value_name = "BYTES")]
    pub html_above: Option<usize>,
    /// Over KLAP, forget the session after each reply.
    #[arg(long)]
    pub forgets: bool,
    /// Over KLAP, end each session after so much time; a day by default.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub session_life: Option<Duration>,
    /// With --klap: open port 9999 instead, and close it again, every so often, as updates and Third-Party Compatibility
    /// do.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub toggles: Option<Duration>,
    /// How long a restart takes.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub boot: Duration,
}

/// A version of KLAP (protocol.md 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Klap {
    /// Firmware of 2020.
    #[value(name = "1")]
    First,
    /// Firmware of 2024 and later.
    #[value(name = "2")]
    Second,
}

/// What becomes of a reply. Except for [`Reply::Silence`] the request has been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Reply {
    /// It travels as it should.
    #[default]
    Whole,
    /// It announces a length of zero and ends with the connection: firmware of 2016.
    ZeroLength,
    /// Requests are swallowed without being carried out; the connection stays open.
    Silence,
    /// It is never sent; the connection stays open.
    Lost,
    /// A well-framed something that is not JSON.
    Rubbish,
    /// JSON, ten thousand levels deep.
    Deep,
    /// Numbers are written as text; 0 and 1, which are bits, stay what they are, here and in the next three.
    Text,
    /// Numbers are `NaN`, which JSON does not know.
    Nan,
    /// Numbers are 1e308.
    Large,
    /// Numbers are negative.
    Negative,
    /// A header that announces 4 GiB.
    Huge,
    /// The first half, then the connection is closed.
    Half,
    /// The first half, then the connection is reset.
    Reset,
}
