//! Messages that come from the broker: commands and requests become orders to plugs, and each gets its answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::bridge::birth::Birth;
use crate::bridge::command::{self, Command, Rejected};
use crate::bridge::message::{Message, Publish};
use crate::bridge::plug::{Ended, Plug, PlugNo};
use crate::bridge::queue::{AnswerTo, Pending};
use crate::bridge::request::{self, Asked, Request};
use crate::bridge::result::{self, Code, Failure};
use crate::bridge::retained::{Owner, Role, Ticket};
use crate::bridge::topics::{Incoming, Topics, Verb};
use crate::plug::command::{Action, Outlets};
use crate::plug::raw;

use super::Core;

/// Answers kept for a broker that is away or slow; beyond it the oldest go. Some 25 MB, which nobody needs but in a flood:
/// commands can come several times as fast as a busy broker takes their results.
const ANSWERS: usize = 1 << 16;

/// Requests that wait for the end of a search.
const SEARCHERS: usize = 4096;

/// Command topics remembered for warning once.
pub(super) const WARNED_TOPICS: usize = 256;

impl Core {
    /// A message arrived on one of [`filters`](crate::bridge::topics::Topics::filters). `delay` is how long to let
    /// Home Assistant settle after a birth.
    pub fn message(&mut self, now: Instant, message: Message, delay: Duration) {
        self.heard(message.received);
        match self.settings.topics.parse(&message.topic) {
            // Its retained birth may be a year old, and a new session has announced everything anyway.
            Some(Incoming::HomeAssistant) if !message.retain && message.payload == b"online" => {
                info!("Home Assistant started; everything is announced again in {delay:?}");
                self.birth = Birth::heard(now, delay);
            }
            Some(Incoming::Info) if !message.retain => self.heard_of_bridge(&message.payload),
            Some(Incoming::State) if !message.retain && message.payload != b"online" => {
                self.heard_of_our_end()
            }
            Some(Incoming::HomeAssistant | Incoming::Info | Incoming::State) => {}
            Some(said @ (Incoming::PeerInfo(_) | Incoming::PeerState(_) | Incoming::FormerState)) => {
                self.heard_of_shard(now, said, &message);
            }
            None => self.remember(&message),
            Some(_) if message.retain => self.refuse_retained(&message),
            Some(Incoming::Request(request)) => self.request(now, request, &message),
            Some(Incoming::Command { plug, outlet, verb }) => match self.fleet.find(plug) {
                // It may be another shard's.
                None if self.shard().is_some() => {}
                None => self.warn_once(&message.topic, "command for a plug that is not known here"),
                Some(no) => self.command(now, no, outlet, verb, &message),
            },
        }
    }

    fn command(&mut self, now: Instant, no: PlugNo, outlet: Option<&str>, verb: Verb<'_>, message: &Message) {
        let number = outlet.map(str::parse::<u8>).transpose();
        let answer_to = AnswerTo::Result(
            number
                .as_ref()
                .ok()
                .copied()
                .flatten()
                .filter(|number| self.fleet.get(no).is_some_and(|plug| plug.has_outlet(*number))),
        );
        let parsed = match number {
            Ok(None) => command::parse(verb, Outlets::All, &message.payload),
            Ok(Some(number)) => command::parse(verb, Outlets::One(number), &message.payload),
            Err(_) => {
                Err(Failure { code: Code::Unsupported, message: "expected the number of an outlet".into() }
                    .into())
            }
        };
        match parsed {
            Ok(None) => {}
            Ok(Some(command)) => {
                let Command { actions, transaction } = command;
                self.enqueue(
                    now,
                    no,
                    Pending {
                        id: 0,
                        verb: verb.text(),
                        answer_to,
                        actions,
                        received: message.received,
                        transaction,
                    },
                );
            }
            Err(Rejected { failure, transaction }) => {
                debug!(topic = message.topic, error = failure.message, "command refused");
                let rejected = Pending {
                    id: 0,
                    verb: verb.text(),
                    answer_to,
                    actions: Vec::new(),
                    received: message.received,
                    transaction,
                };
                self.finish(now, no, &rejected, Err(failure));
                // Whoever believes to have switched sees it snap back.
                self.projection.forget(Owner::Plug(no), Role::State);
                self.projection.mark(Owner::Plug(no), true);
            }
        }
    }

    pub(super) fn enqueue(&mut self, now: Instant, no: PlugNo, command: Pending) {
        self.last_command += 1;
        let command = Pending { id: self.last_command, ..command };
        if self.fleet.get(no).is_some_and(|plug| plug.entry.address.is_none()) {
            let message = "the plug was not found on the network yet".to_string();
            return self.finish(now, no, &command, Err(Failure { code: Code::Offline, message }));
        }
        let outcome = self.fleet.command(no, command);
        self.follow(now, no, outcome);
    }

    /// Answers a command that has ended, with the plug's own reply where there is one.
    pub(super) fn finish(&mut self, now: Instant, no: PlugNo, command: &Pending, outcome: Ended) {
        let name = self.fleet.get(no).and_then(Plug::called);
        self.finish_for(now, name.as_deref(), command, outcome);
    }

    /// The same for a plug that may have left.
    pub(super) fn finish_for(&mut self, now: Instant, name: Option<&str>, command: &Pending, outcome: Ended) {
        if let Err(failure) = &outcome {
            debug!(plug = name, command = command.verb, error = failure.message, "command failed");
        }
        match command.answer_to {
            AnswerTo::Result(outlet) => {
                let Some(name) = name else { return };
                let name = outlet.map_or_else(|| name.to_string(), |number| Topics::outlet(name, number));
                self.say(self.settings.topics.result(&name), render(now, command, &outcome));
            }
            AnswerTo::Onlooker(ticket) => self.results.push_back((ticket, render(now, command, &outcome))),
            AnswerTo::Response { topic, unmasked } => {
                let reply = |reply: Option<Box<Value>>| {
                    let reply = reply.map_or(Value::Null, |reply| *reply);
                    json!({"id": name, "reply": if unmasked { reply } else { raw::masked(reply) }})
                };
                let outcome = outcome.map(reply).map_err(|failure| failure.message);
                self.respond(topic, outcome, command.transaction.as_ref());
            }
        }
    }

    pub(super) fn respond(
        &mut self,
        topic: &'static str,
        outcome: Result<Value, String>,
        transaction: Option<&Value>,
    ) {
        // Of shards one alone answers for a plug; what all of them are asked each answers for itself.
        let topics = &self.settings.topics;
        let is_of_plug = topic.starts_with(request::OF_PLUG);
        let topic = if is_of_plug { topics.common(topic) } else { topics.bridge(topic) };
        self.say(topic, request::response(outcome, transaction));
    }

    fn say(&mut self, topic: String, payload: Vec<u8>) {
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
            self.vitals.dropped += 1;
            warn!("more answers than the broker takes; the oldest are dropped");
        }
        self.answers.push_back(Publish { ticket: Ticket(0), topic, payload, retain: false });
    }

    fn request(&mut self, now: Instant, request: &str, message: &Message) {
        let Asked { topic, request, transaction } = request::parse(request, &message.payload);
        if self.is_for_another(topic, &request) {
            return;
        }
        let outcome = match request {
            Ok(Request::Restart) => {
                info!("restart requested");
                self.restart_requested = true;
                Ok(json!({}))
            }
            Ok(Request::HealthCheck) => Ok(self.health_check()),
            Ok(Request::Scan) if !self.search.is_enabled() => {
                Err("searches are not enabled: scan.enabled = true".into())
            }
            // Answered when the search has ended.
            Ok(Request::Scan) => {
                if self.searchers.len() < SEARCHERS {
                    self.searchers.push(transaction);
                }
                return self.search.asked(now);
            }
            Ok(Request::Rename { device, to }) => self.rename_by_name(&device, &to, now),
            Ok(Request::Remove { device }) => self.remove_by_name(&device, now),
            Ok(Request::Refresh { device }) => match self.fleet.find(&device) {
                Some(no) => {
                    let answer_to = AnswerTo::Response { topic, unmasked: false };
                    let pending = Pending {
                        id: 0,
                        verb: "device/refresh".into(),
                        answer_to,
                        actions: vec![Action::Refresh],
                        received: message.received,
                        transaction,
                    };
                    return self.enqueue(now, no, pending);
                }
                None => Err("no such device".into()),
            },
            Ok(Request::Raw { device, request, unmasked }) => match self.may_send(&device, &request) {
                Ok(no) => {
                    let actions = vec![Action::Raw(Box::new(request))];
                    let answer_to = AnswerTo::Response { topic, unmasked };
                    let verb = "device/raw".to_string();
                    return self.enqueue(
                        now,
                        no,
                        Pending { id: 0, verb, answer_to, actions, received: message.received, transaction },
                    );
                }
                Err(why) => Err(why),
            },
            Err(why) => Err(why),
        };
        self.respond(topic, outcome, transaction.as_ref());
    }

    /// The will of a session that we have left long ago: a broker, or a node of it, speaks it when it notices.
    fn heard_of_our_end(&mut self) {
        self.projection.forget(Owner::Bridge, Role::Availability);
        if self.shard().is_some() {
            // Other shards take us for somebody new, of whom they know nothing.
            self.projection.forget(Owner::Bridge, Role::State);
        }
        self.projection.mark(Owner::Bridge, true);
    }

    /// A bridge says of itself. We do so once in a session; another one with our topics would fight with us for them.
    fn heard_of_bridge(&mut self, info: &[u8]) {
        let info: Value = serde_json::from_slice(info).unwrap_or_default();
        let Some(instance) = info["instance"].as_str().filter(|instance| *instance != self.settings.instance)
        else {
            return;
        };
        if self.warned.len() < WARNED_TOPICS && self.warned.insert(instance.to_string()) {
            warn!(
                "another bridge publishes below the same base topic: give one of them another mqtt.base_topic"
            );
            self.tell_of(json!({"type": "rival", "instance": instance}));
            // So that it notices, too.
            self.projection.forget(Owner::Bridge, Role::State);
            self.projection.mark(Owner::Bridge, false);
        }
    }

    fn may_send(&self, device: &str, request: &Value) -> Result<PlugNo, String> {
        request::is_allowed(request, self.settings.raw, &self.settings.destructive)?;
        self.fleet.find(device).ok_or_else(|| "no such device".into())
    }

    fn refuse_retained(&mut self, message: &Message) {
        // An empty retained message is how one is cleared.
        if !message.payload.is_empty() {
            self.warn_once(
                &message.topic,
                "retained command ignored: it would be obeyed at every restart; clear it with an empty retained message",
            );
        }
    }

    pub(super) fn warn_once(&mut self, topic: &str, why: &str) {
        if self.warned.len() < WARNED_TOPICS && self.warned.insert(topic.to_string()) {
            warn!(topic, "{why}");
        }
    }
}

fn render(now: Instant, command: &Pending, outcome: &Ended) -> Vec<u8> {
    let took = now.saturating_duration_since(command.received);
    result::render(&command.verb, outcome.as_ref().err(), took, command.transaction.as_ref())
}
