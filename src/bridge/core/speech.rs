//! What the broker is told, and in which order.

use std::time::Instant;

use crate::bridge::discovery;
use crate::bridge::message::Publish;
use crate::bridge::plug::{Plug, PlugNo};
use crate::bridge::render;
use crate::bridge::retained::{Owner, Retained, Role, Ticket};

use super::Core;

impl Core {
    /// The next message for the broker: what changed for somebody who waits, then answers, then the rest. A command's
    /// state goes before its answer: whoever has the answer finds it, and most people wait for the state.
    pub fn next_publish(&mut self, now: Instant) -> Option<Publish> {
        if !self.connected {
            return None;
        }
        loop {
            if let Some(publish) = self.ready.pop_front() {
                return Some(publish);
            }
            if !self.projection.has_urgent() {
                if let Some(publish) = self.answers.pop_front() {
                    return Some(publish);
                }
                if let Some(event) = self.events.pop_front() {
                    let (topic, payload) =
                        (self.settings.topics.bridge("event"), event.to_string().into_bytes());
                    return Some(Publish { ticket: Ticket(0), topic, payload, retain: false });
                }
            }
            let Some(owner) = self.projection.next_dirty() else {
                self.birth.announced(now);
                return None;
            };
            for (ticket, retained) in self.differences(owner, now) {
                if let (Owner::Plug(no), Role::Discovery) = (owner, retained.role) {
                    self.spacing.announced(no, now);
                }
                let Retained { topic, payload, .. } = retained;
                self.ready.push_back(Publish { ticket, topic, payload, retain: true });
            }
        }
    }

    /// What the broker is to be told of this owner now.
    fn differences(&mut self, owner: Owner, now: Instant) -> Vec<(Ticket, Retained)> {
        match owner {
            Owner::Bridge => {
                let (devices, health) = (self.devices.as_deref(), self.health.as_deref());
                let wanted =
                    render::bridge(&self.settings, devices, health, self.shard_summary(), self.stopping);
                self.projection.diff(owner, wanted, |_| false)
            }
            Owner::Plug(no) => self.differences_of_plug(no, now),
        }
    }

    fn differences_of_plug(&mut self, no: PlugNo, now: Instant) -> Vec<(Ticket, Retained)> {
        let owner = Owner::Plug(no);
        let Some(plug) = self.fleet.get(no) else {
            self.described.remove(&no);
            let leaves = self.leaving.iter().any(|(_, leaving)| *leaving == no);
            return self.projection.diff(owner, Vec::new(), |gone| leaves && gone.role != Role::Discovery);
        };
        // Discovery is most of what there is to render, and hardly ever changes.
        let description = discovery::fingerprint(plug);
        let is_told = self.described.get(&no) == Some(&description)
            && self.projection.is_settled(owner, Role::Discovery);
        let describe = !is_told && !self.spacing.holds(no);
        let mut is_whole = true;
        let retirement = &mut self.retirement;
        let complete = describe.then_some(|topic: &str, config: &mut _| {
            is_whole &= !retirement.complete(topic, config, now);
        });
        let wanted = render::plug(&self.settings, plug, complete);
        let differences = self.projection.diff(owner, wanted, |retained| {
            (!describe && retained.role == Role::Discovery) || is_premature(plug, retained)
        });
        if describe {
            match is_whole && self.projection.is_settled(owner, Role::Discovery) {
                true => self.described.insert(no, description),
                false => self.described.remove(&no),
            };
        }
        differences
    }
}

/// Before its first complete reading nothing but a plug's availability is known: what an earlier bridge left stays.
fn is_premature(plug: &Plug, retained: &Retained) -> bool {
    plug.shown.is_none() && (retained.role != Role::Availability || retained.payload.is_empty())
}
