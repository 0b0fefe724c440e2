//! Components of a device that disappear. Leaving one out of a config removes nothing: Home Assistant has to be told its
//! platform alone first, and for two seconds (homeassistant.md 1.4).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::memory;

/// How long Home Assistant is told so.
const TIME: Duration = Duration::from_secs(2);

type Components = BTreeMap<String, String>;

/// What each discovery topic was last told.
#[derive(Debug, Default)]
pub struct Retirement {
    announced: HashMap<String, Announced>,
    /// Thousands of plugs have the same components.
    known: HashSet<Arc<Components>>,
}

#[derive(Debug)]
struct Announced {
    components: Arc<Components>,
    /// Since when some of them are told to be gone.
    since: Option<Instant>,
}

impl Retirement {
    /// An earlier bridge has announced these components.
    pub fn remember(&mut self, topic: &str, components: Components) {
        let components = self.shared(components);
        self.announced.insert(topic.into(), Announced { components, since: None });
    }

    /// Completes a config that is to be sent at `now` with those components that Home Assistant has to be told are
    /// gone. True when another config without them is to follow.
    pub fn complete(&mut self, topic: &str, config: &mut Value, now: Instant) -> bool {
        let wanted = memory::components(config);
        if let Some(announced) = self.announced.get_mut(topic) {
            let gone: Vec<(String, String)> = announced
                .components
                .iter()
                .filter(|(key, _)| !wanted.contains_key(*key))
                .map(|(key, platform)| (key.clone(), platform.clone()))
                .collect();
            let since = *announced.since.get_or_insert(now);
            if !gone.is_empty() && now.saturating_duration_since(since) < TIME {
                for (key, platform) in gone {
                    config["components"][key] = json!({"p": platform});
                }
                return true;
            }
        }
        let components = self.shared(wanted);
        self.announced.insert(topic.into(), Announced { components, since: None });
        false
    }

    /// The device is gone.
    pub fn forget(&mut self, topic: &str) {
        self.announced.remove(topic);
    }

    fn shared(&mut self, components: Components) -> Arc<Components> {
        match self.known.get(&components) {
            Some(known) => Arc::clone(known),
            None => {
                let components = Arc::new(components);
                self.known.insert(Arc::clone(&components));
                components
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &[&str]) -> Value {
        let components = keys.iter().map(|key| ((*key).to_string(), json!({"p": "sensor", "unit": 1})));
        json!({"components": Value::Object(components.collect())})
    }

    #[test]
    fn what_disappears_is_told_for_two_seconds() {
        let (mut retirement, start) = (Retirement::default(), Instant::now());
        let mut at = |seconds: u64, keys: &[&str]| {
            let mut config = config(keys);
            let more = retirement.complete("t", &mut config, start + Duration::from_secs(seconds));
            (config["components"].to_string(), more)
        };
        let full = |key: &str| format!(r#""{key}":{{"p":"sensor","unit":1}}"#);
        assert_eq!(at(0, &["a", "b"]), (format!("{{{},{}}}", full("a"), full("b")), false));
        assert_eq!(at(10, &["a"]), (format!(r#"{{{},"b":{{"p":"sensor"}}}}"#, full("a")), true));
        assert!(at(11, &["a"]).1);
        assert_eq!(at(12, &["a"]), (format!("{{{}}}", full("a")), false));
        assert_eq!(at(13, &["a"]), (format!("{{{}}}", full("a")), false));
    }

    #[test]
    fn an_earlier_bridge_is_remembered() {
        let mut retirement = Retirement::default();
        retirement.remember("t", [("old".to_string(), "button".to_string())].into());
        let mut config = config(&["a"]);
        assert!(retirement.complete("t", &mut config, Instant::now()));
        assert_eq!(config["components"]["old"], json!({"p": "button"}));
    }
}
