//! A device without a network: request bytes in, reply bytes out. Time, since 1970, is an argument and never runs back.

mod call;
mod cloud;
mod dimmer;
mod dump;
mod emeter;
mod envelope;
mod netif;
mod outlet;
mod rules;
mod sensor;
mod system;
mod time;

use std::time::Duration;

pub use call::{Answer, Way};
pub use dump::NotADump;
pub use outlet::Outlet;

use super::behaviour::Behaviour;
use super::clock::Clock;
use super::json::{Fields, Json, put};
use super::model::{Generation, Model};
use super::template;
use dimmer::Dimmer;

/// One simulated device.
#[derive(Debug, Clone)]
pub struct SimPlug {
    /// What [`Simulator::mac`](super::server::Simulator::mac) says.
    mac: String,
    generation: Generation,
    /// `get_sysinfo` in wire order. What changes is overwritten in place; a field that is absent stays absent.
    sysinfo: Fields,
    alias: String,
    /// One for everything but a strip; none for a bulb.
    outlets: Vec<Outlet>,
    led_off: bool,
    meter: bool,
    slot_id: bool,
    dimmer: Option<Dimmer>,
    motion: Option<bool>,
    cloud: Fields,
    clock: Clock,
    /// Whether a missing module is told of by each method (protocol.md 5).
    refuses_each_method: bool,
    /// What a dump says of questions that nothing else answers: module, method, reply.
    recorded: Vec<(String, String, Fields)>,
    /// Its habits and faults.
    pub behaviour: Behaviour,
}

impl SimPlug {
    /// A device that is off, its LED lit, in nobody's account.
    pub fn new(model: Model, alias: &str, mac: [u8; 6]) -> SimPlug {
        let sysinfo = template::sysinfo(&model, mac);
        // Loads between a phone charger and a heater, told apart by the MAC and the outlet.
        let load = |index: usize| 4_000 + u64::from(mac[5]) * 7_000 + index as u64 * 11_000;
        let mains = if model.model.contains("(US)") { 119_000 } else { 230_000 };
        let outlet = |index: usize| Outlet::new(load(index), mains, 1234 + u64::from(mac[4]));
        let outlets = match (model.children, model.bulb) {
            (_, true) => Vec::new(),
            (0, false) => vec![outlet(0).called(alias)],
            (count, false) => {
                let id = text(&sysinfo, "deviceId");
                let child = |index: usize| outlet(index).of_strip(&template::child(&id, index));
                (0..usize::from(count)).map(child).collect()
            }
        };
        SimPlug {
            mac: template::colons(mac),
            generation: model.generation,
            alias: alias.into(),
            outlets,
            led_off: false,
            meter: model.meter,
            slot_id: model.slot_id,
            dimmer: model.dimmer.then(|| Dimmer::new(100)),
            motion: model.motion.then_some(true),
            cloud: cloud::unbound(),
            clock: Clock::default(),
            refuses_each_method: model.generation == Generation::G2,
            recorded: Vec::new(),
            behaviour: Behaviour::default(),
            sysinfo,
        }
    }

    /// The same device in somebody's account, with its cloud in reach.
    pub fn bound_to(mut self, account: &str) -> SimPlug {
        for (key, value) in [("username", account.into()), ("binded", 1.into()), ("cld_connection", 1.into())]
        {
            put(&mut self.cloud, key, value);
        }
        self
    }

    /// The same device with these habits and faults.
    pub fn with(mut self, behaviour: Behaviour) -> SimPlug {
        self.behaviour = behaviour;
        self
    }

    /// `50:C7:BF:01:02:03`, as on the wire.
    pub fn mac(&self) -> String {
        self.mac.clone()
    }

    /// Model with region.
    pub fn model(&self) -> String {
        text(&self.sysinfo, "model")
    }

    /// What its owner calls it.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Whether the relay is closed; of a strip, its first outlet's.
    pub fn relay(&self) -> bool {
        self.outlets.first().is_some_and(|outlet| outlet.relay)
    }

    /// Whether the LED may light.
    pub fn led(&self) -> bool {
        !self.led_off
    }

    /// Whether the motion sensor switches; `None` without one.
    pub fn motion(&self) -> Option<bool> {
        self.motion
    }

    /// The level of a dimmer, 1 to 100.
    pub fn brightness(&self) -> Option<i64> {
        self.dimmer.as_ref().map(|dimmer| dimmer.level)
    }

    /// Whether it belongs to an account.
    pub fn is_bound(&self) -> bool {
        self.cloud.iter().any(|(key, value)| key == "binded" && *value == Json::Int(1))
    }

    /// What switches: one of a plug, several of a strip, none of a bulb.
    pub fn outlets(&self) -> &[Outlet] {
        &self.outlets
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Changes its clock, as nobody but a test can.
    pub fn clock_mut(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// Moves the first relay at `now`, as its button does.
    pub fn switch(&mut self, on: bool, now: Duration) {
        self.switch_outlet(0, on, now);
    }

    /// Moves one relay at `now`, as its button does.
    pub fn switch_outlet(&mut self, index: usize, on: bool, now: Duration) {
        if let Some(outlet) = self.outlets.get_mut(index) {
            outlet.switch(on, now, &self.clock);
        }
    }

    /// Lets time pass: a timer that has run out acts, at the moment when it ran out.
    pub fn advance(&mut self, now: Duration) {
        for outlet in &mut self.outlets {
            outlet.advance(now, &self.clock);
        }
    }

    /// When it will do something by itself.
    pub fn next_event(&self) -> Option<Duration> {
        self.outlets.iter().filter_map(Outlet::next_event).min()
    }

    /// It has started again: relays are where they were, timers are gone, and so is the clock without its time server.
    pub fn restart(&mut self, now: Duration) {
        self.advance(now);
        for outlet in &mut self.outlets {
            outlet.restart(now);
        }
        if self.behaviour.no_ntp {
            self.clock.lose(now);
        }
    }
}

impl SimPlug {
    fn is_strip(&self) -> bool {
        self.outlets.iter().any(|outlet| outlet.id().is_some())
    }

    fn is_first_generation(&self) -> bool {
        self.generation == Generation::G1
    }

    /// What a dump says to a question that nothing else answers.
    fn recorded(&self, module: &str, method: &str) -> Option<Fields> {
        let mut recorded = self.recorded.iter();
        let reply = recorded.find(|(known, named, _)| known == module && named == method);
        reply.map(|(_, _, reply)| reply.clone())
    }
}

/// The text of a field, empty without one.
fn text(fields: &Fields, key: &str) -> String {
    let field = fields.iter().find(|(name, _)| name == key);
    field.and_then(|(_, value)| value.as_text()).unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
