//! The envelope: modules, methods and arguments in; their replies or errors out (protocol.md 2, 2.7, 5).
//!
//! Methods run in the order in which they stand in the request, each with its own `err_code`.

use std::time::Duration;

use super::super::behaviour::Reply;
use super::super::json::{Fields, Json, put};
use super::call::{Answer, Call, FAILED, INVALID, NO_ENTRY, NO_METHOD, NO_MODULE, Outcome, Refusal, Way};
use super::{SimPlug, cloud, dimmer, emeter, netif, rules, sensor, system, time};

impl SimPlug {
    /// Answers a request that arrived at `now`. What a real one says to rubbish is not known: this one says nothing.
    pub fn answer(&mut self, request: &[u8], way: Way, now: Duration) -> Answer {
        self.advance(now);
        let dies = Answer { restart: Some(Duration::ZERO), ..Answer::default() };
        if self.behaviour.max_request.is_some_and(|most| request.len() > most) {
            return dies;
        }
        let Ok(Json::Object(modules)) = Json::parse(request) else { return Answer::default() };
        let deadly = |(module, _): &(String, Json)| {
            self.behaviour.dies_of_unknown && module != "context" && !self.knows(module)
                || self.behaviour.dies_of_udp_meter && way == Way::Udp && module == "emeter"
        };
        if modules.iter().any(deadly) {
            return dies;
        }
        let mut answer = Answer::default();
        let mut reply = self.modules(&modules, way, now, &mut answer);
        if let Some(number) = odd_number(self.behaviour.reply) {
            reply.replace_numbers(&number);
        }
        let reply = reply.to_string();
        if self.behaviour.max_reply.is_some_and(|most| reply.len() > most) {
            return dies;
        }
        let too_large = way == Way::Udp && self.behaviour.max_datagram.is_some_and(|most| reply.len() > most);
        answer.reply = (!too_large).then_some(reply);
        answer
    }

    fn modules(&mut self, modules: &Fields, way: Way, now: Duration, answer: &mut Answer) -> Json {
        let context = modules.iter().find(|(module, _)| module == "context").map(|(_, context)| context);
        let meant = self.meant(context, way);
        let mut reply = Fields::new();
        let mut contexts = 0;
        for (module, methods) in modules {
            // The first context is no module; a second one is an unknown one (protocol.md 2.7).
            if module == "context" {
                contexts += 1;
                if contexts == 1 {
                    continue;
                }
            }
            let methods: &[(String, Json)] = if let Json::Object(methods) = methods { methods } else { &[] };
            let known = self.knows(module);
            let said = if !known && !self.refuses_each_method {
                self.refusal(NO_MODULE)
            } else {
                let mut said = Fields::new();
                for (method, arguments) in methods {
                    let outcome = if self.behaviour.refuse {
                        Err(FAILED)
                    } else if !known {
                        Err(NO_MODULE)
                    } else {
                        match (&meant, is_of_outlets(module, method)) {
                            (Err(refusal), true) => Err(*refusal),
                            (meant, _) => {
                                let meant = meant.as_deref().unwrap_or_default();
                                self.method(module, &Call { method, arguments, meant, now }, way, answer)
                            }
                        }
                    };
                    put(&mut said, method, Json::Object(self.completed(outcome)));
                }
                said
            };
            put(&mut reply, module, Json::Object(said));
        }
        Json::Object(reply)
    }

    /// The outlets that a context names (protocol.md 2.7).
    fn meant(&self, context: Option<&Json>, way: Way) -> Result<Vec<usize>, Refusal> {
        if !self.is_strip() {
            return Ok((0..self.outlets.len()).collect());
        }
        let Some(ids) = context.and_then(|context| context.get("child_ids")) else { return Ok(Vec::new()) };
        let place = |id: &Json| {
            let id = id.as_text().ok_or(INVALID)?;
            let is = |own: &str| own == id || way == Way::Udp && own.ends_with(id) && id.len() == 2;
            self.outlets.iter().position(|outlet| outlet.id().is_some_and(is)).ok_or(NO_ENTRY)
        };
        ids.as_list().ok_or(INVALID)?.iter().map(place).collect()
    }

    fn knows(&self, module: &str) -> bool {
        match module {
            _ if self.behaviour.lacks.iter().any(|lacked| lacked == module) => false,
            "system" => true,
            "time" | "cnCloud" | "schedule" | "count_down" | "anti_theft" | "netif" => {
                !self.outlets.is_empty()
            }
            "emeter" => self.meter,
            dimmer::MODULE => self.dimmer.is_some(),
            sensor::MOTION | sensor::LIGHT => self.motion.is_some(),
            _ => self.recorded.iter().any(|(known, _, _)| known == module),
        }
    }

    fn method(&mut self, module: &str, call: &Call<'_>, way: Way, answer: &mut Answer) -> Outcome {
        let outcome = match module {
            "system" => system::call(self, call, way, answer),
            "emeter" => emeter::call(self, call),
            "time" => time::call(self, call),
            "cnCloud" => cloud::call(self, call),
            "schedule" => rules::schedule(self, call),
            "count_down" => rules::count_down(self, call),
            "anti_theft" => rules::anti_theft(call),
            "netif" => netif::call(self, call),
            dimmer::MODULE => dimmer::call(self, call, answer),
            sensor::MOTION | sensor::LIGHT => sensor::call(self, module, call),
            _ => Err(NO_METHOD),
        };
        match outcome {
            Err(NO_METHOD) => self.recorded(module, call.method).ok_or(NO_METHOD),
            outcome => outcome,
        }
    }

    fn completed(&self, outcome: Outcome) -> Fields {
        match outcome {
            Ok(mut reply) => {
                if !reply.iter().any(|(key, _)| key == "err_code") {
                    reply.push(("err_code".into(), Json::Int(0)));
                }
                reply
            }
            Err(refusal) => self.refusal(refusal),
        }
    }

    fn refusal(&self, Refusal(code, text): Refusal) -> Fields {
        vec![("err_code".into(), code.into()), ("err_msg".into(), text.into())]
    }
}

/// What this behaviour makes of each number.
fn odd_number(reply: Reply) -> Option<fn(f64) -> Json> {
    match reply {
        Reply::Text => Some(|number| Json::Text(number.to_string())),
        Reply::Nan => Some(|_| Json::Float(f64::NAN)),
        Reply::Large => Some(|_| Json::Float(1e308)),
        Reply::Negative => Some(|number| Json::Float(-number.abs())),
        _ => None,
    }
}

/// Whether the outlets that a context names matter.
fn is_of_outlets(module: &str, method: &str) -> bool {
    match module {
        "emeter" | "schedule" | "anti_theft" | "count_down" => true,
        "system" => matches!(method, "set_relay_state" | "set_dev_alias"),
        _ => false,
    }
}
