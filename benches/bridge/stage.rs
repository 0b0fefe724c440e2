//! Broker, plugs and a bridge in which everything is known and quiet: where each measurement begins.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::bridge::Bridge;
use crate::broker::Broker;
use crate::mqtt::Client;
use crate::options::Options;
use crate::plugs::{Plugs, What};

pub struct Stage<'a> {
    pub options: &'a Options,
    pub plugs: &'a Plugs,
    pub count: usize,
    // Before the broker, so that it does not see it die.
    pub bridge: Bridge,
    /// Hears all states.
    pub client: Client,
    pub broker: Broker,
}

/// How long one command took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From its publish to the plug's hearing of it.
    pub relay: Duration,
    /// From its publish to the state that says so.
    pub state: Duration,
}

impl<'a> Stage<'a> {
    /// Starts the bridge and waits until every plug was polled three times, or once and an interval has passed.
    pub fn set(options: &'a Options, plugs: &'a Plugs, count: usize, interval: Duration) -> Stage<'a> {
        let broker = Broker::start(options.broker);
        let mut client = Client::connect(broker.address, "bench");
        client.subscribe(&options.state_filter());
        plugs.take();
        let bridge = Bridge::start(options, broker.address, plugs, count, interval, None);
        let mut stage = Stage { options, plugs, count, bridge, client, broker };
        wait_for_states(&mut stage.client, options, count, Duration::from_secs(60) + 4 * interval);
        std::thread::sleep(interval.min(Duration::from_secs(10)) + Duration::from_secs(2));
        stage.quiet();
        stage
    }

    /// Forgets what was heard and asked until now.
    pub fn quiet(&mut self) {
        while self.client.next(Instant::now() + Duration::from_millis(1)).is_some() {}
        self.plugs.take();
    }

    /// Switches one plug over and waits for its state. `None` when the command was lost.
    pub fn command(&mut self, plug: usize) -> Option<Took> {
        let on = !self.plugs.relay(plug);
        let (command, state) = (self.options.command_topic(plug), self.options.state_topic(plug));
        let began = Instant::now();
        let deadline = began + Duration::from_secs(10);
        self.client.publish(&command, self.options.command(on));
        loop {
            let message = self.client.next(deadline)?;
            if message.topic != state || !self.options.says(&message.payload, on) {
                continue;
            }
            let switched = self
                .plugs
                .take()
                .into_iter()
                .find(|seen| (seen.plug, seen.what) == (plug, What::Switched(on)) && seen.at >= began)?;
            return Some(Took { relay: switched.at - began, state: message.at - began });
        }
    }
}

/// Until each plug has a state.
pub fn wait_for_states(client: &mut Client, options: &Options, count: usize, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut silent: HashSet<String> = (0..count).map(|plug| options.state_topic(plug)).collect();
    while !silent.is_empty() {
        let message = client.next(deadline);
        let message = message.unwrap_or_else(|| panic!("{} plugs have no state", silent.len()));
        silent.remove(&message.topic);
    }
}
