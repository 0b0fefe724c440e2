//! What happened to plugs, for `bridge/event`: told once, never retained.

use serde_json::{Value, json};

use crate::plug::protocol::Protocol;

/// Something that happened to a plug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A search found it, and it was not known before.
    Added,
    /// Somebody removed it.
    Removed,
    /// It answers again.
    Online,
    /// It does not answer, and why.
    Offline(String),
    /// It wants an account that it was not given, and what to do.
    AuthFailed(String),
    /// Its firmware speaks another protocol than before.
    ProtocolChanged {
        /// Before.
        from: Protocol,
        /// From now on.
        to: Protocol,
    },
    /// It was found at another address.
    Moved {
        /// Where it was.
        from: String,
        /// Where it is.
        to: String,
    },
    /// It has another name in topics.
    Renamed {
        /// Before.
        from: String,
        /// From now on.
        to: String,
    },
}

impl Event {
    /// The payload; `id` is the plug's MAC, `name` its name in topics.
    pub fn render(&self, id: Option<&str>, name: Option<&str>) -> Value {
        let mut event = json!({"type": self.kind(), "id": id, "slug": name});
        match self {
            Event::Added | Event::Removed | Event::Online => {}
            Event::Offline(reason) | Event::AuthFailed(reason) => event["reason"] = reason.as_str().into(),
            Event::ProtocolChanged { from, to } => {
                event["from"] = from.name().into();
                event["to"] = to.name().into();
                event["reason"] = to.news_since(*from).into();
            }
            Event::Moved { from, to } | Event::Renamed { from, to } => {
                event["from"] = from.as_str().into();
                event["to"] = to.as_str().into();
            }
        }
        event
    }

    fn kind(&self) -> &'static str {
        match self {
            Event::Added => "device_added",
            Event::Removed => "device_removed",
            Event::Online => "online",
            Event::Offline(_) => "offline",
            Event::AuthFailed(_) => "auth_failed",
            Event::ProtocolChanged { .. } => "protocol_changed",
            Event::Moved { .. } => "ip_changed",
            Event::Renamed { .. } => "renamed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::error::Error;

    #[test]
    fn an_event_says_who_and_what() {
        let moved = Event::Moved { from: "192.0.2.1:9999".into(), to: "192.0.2.2:9999".into() };
        assert_eq!(
            moved.render(Some("50c7bf010203"), Some("lamp")).to_string(),
            r#"{"from":"192.0.2.1:9999","id":"50c7bf010203","slug":"lamp","to":"192.0.2.2:9999","type":"ip_changed"}"#
        );
        let offline = Event::Offline("no answer within 5s".into());
        assert_eq!(offline.render(None, Some("lamp"))["reason"], "no answer within 5s");
    }

    /// homeassistant.md 6, row 21: whoever reads it knows what to do.
    #[test]
    fn what_firmware_took_away_is_told_with_the_remedy_in_one_sentence() {
        use Protocol::{Klap, Klap2, Xor};
        let reason = |event: Event| event.render(None, None)["reason"].as_str().unwrap().to_string();
        let changed = |from, to| reason(Event::ProtocolChanged { from, to });
        let failed = reason(Event::AuthFailed(Error::Auth.to_string()));
        for (told, words) in [
            (failed, &["kasa.username", "kasa.password", "Third-Party Compatibility", "internet"][..]),
            (changed(Xor, Klap), &["Third-Party Compatibility", "internet"]),
            (changed(Xor, Klap2), &["Third-Party Compatibility", "internet"]),
            (changed(Klap2, Xor), &["no account is needed", "internet"]),
            (changed(Klap, Klap2), &["nothing needs to be done", "internet"]),
        ] {
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
            assert!(!told.contains(". ") && !told.contains('\n'), "one sentence: {told}");
        }
    }
}
