//! One plug: what travels on its wire and the task that owns its connection. Knows nothing of MQTT.

pub mod cipher;
