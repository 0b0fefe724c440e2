//! Requests to the bridge itself, `bridge/request/<x>`, and their responses in the form that zigbee2mqtt gave them.

use serde_json::{Value, json};

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Below the bridge's topic. Only names that we know go into topics.
    pub topic: &'static str,
    /// The response.
    pub payload: Vec<u8>,
    /// The bridge is to start afresh.
    pub restart: bool,
}

/// Answers a request; a `transaction` in its payload comes back.
pub fn answer(request: &str, payload: &[u8]) -> Answer {
    let restart = request == "restart";
    let (topic, mut response) = match restart {
        true => ("response/restart", json!({"status": "ok", "data": {}})),
        false => (
            "response/unknown",
            json!({"status": "error", "data": {}, "error": "unknown request; known: restart"}),
        ),
    };
    let asked = serde_json::from_slice::<Value>(payload).unwrap_or_default();
    if let Some(transaction) = asked.get("transaction") {
        response["transaction"] = transaction.clone();
    }
    Answer { topic, payload: response.to_string().into_bytes(), restart }
}
