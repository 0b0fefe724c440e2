//! Messages that come from the broker: commands and requests become orders to plugs, and each gets its answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::bridge::birth::Birth;
use crate::bridge::command::{self, Command, Rejected};
use crate::bridge::message::{Message, Publish};
use crate::bridge::plug::{Ended, PlugNo};
use crate::bridge::queue::{AnswerTo, Pending};
use crate::bridge::request::{self, Asked, Request};
use crate::bridge::result::{self, Code, Failure};
use crate::bridge::retained::{Owner, Role, Ticket};
use crate::bridge::topics::{Incoming, Topics, Verb};
use crate::plug::command::{Action, Outlets};
use crate::plug::raw;

use super::Core;

/// Answers kept for a broker that is away or slow; beyond it the oldest go.
const ANSWERS: usize = 4096;

/// Command topics remembered for warning once.
const WARNED_TOPICS: usize = 256;

impl Core {
    /// A message arrived on one of [`filters`](crate::bridge::topics::Topics::filters). `delay` is how long to let
    /// Home Assistant settle after a birth.
    pub fn message(&mut self, now: Instant, message: Message, delay: Duration) {
        match self.settings.topics.parse(&message.topic) {
            // Its retained birth may be a year old, and a new session has announced everything anyway.
            Some(Incoming::HomeAssistant) if !message.retain && message.payload == b"online" => {
                info!("Home Assistant started; everything is announced again in {delay:?}");
                self.birth = Birth::heard(now, delay);
            }
            Some(Incoming::HomeAssistant) | None => {}
            Some(_) if message.retain => self.refuse_retained(&message),
            Some(Incoming::Request(request)) => self.request(now, request, &message),
            Some(Incoming::Command { plug, outlet, verb }) => match self.fleet.find(plug) {
                None => self.warn_once(&message.topic, "command for a plug that is not known here"),
                Some(no) => self.command(now, no, outlet, verb, &message),
            },
        }
    }

    fn command(&mut self, now: Instant, no: PlugNo, outlet: Option<&str>, verb: Verb<'_>, message: &Message) {
        let number = outlet.map(str::parse::<u8>).transpose();
        let answer_to = AnswerTo::Result(
            number.as_ref().ok().copied().flatten().filter(|number| self.fleet.plug(no).has_outlet(*number)),
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

    fn enqueue(&mut self, now: Instant, no: PlugNo, command: Pending) {
        self.last_command += 1;
        let outcome = self.fleet.command(no, Pending { id: self.last_command, ..command });
        self.follow(now, no, outcome);
    }

    /// Answers a command that has ended, with the plug's own reply where there is one.
    pub(super) fn finish(&mut self, now: Instant, no: PlugNo, command: &Pending, outcome: Ended) {
        let plug = self.fleet.plug(no);
        if let Err(failure) = &outcome {
            debug!(plug = plug.name, command = command.verb, error = failure.message, "command failed");
        }
        match command.answer_to {
            AnswerTo::Result(outlet) => {
                let Some(name) = &plug.name else { return };
                let name = outlet.map_or_else(|| name.clone(), |number| Topics::outlet(name, number));
                let took = now.saturating_duration_since(command.received);
                let payload =
                    result::render(&command.verb, outcome.as_ref().err(), took, command.transaction.as_ref());
                self.say(self.settings.topics.result(&name), payload);
            }
            AnswerTo::Response { topic, unmasked } => {
                let reply = |reply: Option<Box<Value>>| {
                    let reply = reply.map_or(Value::Null, |reply| *reply);
                    json!({"id": plug.name, "reply": if unmasked { reply } else { raw::masked(reply) }})
                };
                let outcome = outcome.map(reply).map_err(|failure| failure.message);
                self.respond(topic, outcome, command.transaction.as_ref());
            }
        }
    }

    fn respond(&mut self, topic: &'static str, outcome: Result<Value, String>, transaction: Option<&Value>) {
        self.say(self.settings.topics.bridge(topic), request::response(outcome, transaction));
    }

    fn say(&mut self, topic: String, payload: Vec<u8>) {
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
            warn!("more answers than the broker takes; the oldest are dropped");
        }
        self.answers.push_back(Publish { ticket: Ticket(0), topic, payload, retain: false });
    }

    fn request(&mut self, now: Instant, request: &str, message: &Message) {
        let Asked { topic, request, transaction } = request::parse(request, &message.payload);
        let outcome = match request {
            Ok(Request::Restart) => {
                info!("restart requested");
                self.restart_requested = true;
                Ok(json!({}))
            }
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

    fn warn_once(&mut self, topic: &str, why: &str) {
        if self.warned.len() < WARNED_TOPICS && self.warned.insert(topic.to_string()) {
            warn!(topic, "{why}");
        }
    }
}
