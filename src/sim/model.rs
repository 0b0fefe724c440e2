//! The models that can be simulated, each from a documented device (protocol.md 3.3). Build dates are real.

use std::fmt;

/// The firmware's generation: key order, spelling of keys, shape of errors (protocol.md 3.2, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Firmware 1.0 to 1.2, hardware 1.0: `type`, whole degrees, meters in floats of whole units.
    G1,
    /// Firmware 1.5: `mic_type`, errors at the method, meters in integers of milli-units.
    G2,
    /// 2019 and later: another key order, `status` and `ntc_state`.
    G3,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// What `simulate --model` calls it.
    pub name: &'static str,
    /// Its generation.
    pub generation: Generation,
    /// `model` with region.
    pub model: &'static str,
    /// `hw_ver`.
    pub hw_ver: &'static str,
    /// `sw_ver`.
    pub sw_ver: &'static str,
    /// `dev_name`; a strip has none.
    pub dev_name: &'static str,
    /// How many outlets a strip has; 0 for everything else.
    pub children: u8,
    /// Whether it has a meter (`ENE`).
    pub meter: bool,
    /// Whether the meter names the outlet: HS300 hardware 2.0 (protocol.md 4).
    pub slot_id: bool,
    /// Whether it dims.
    pub dimmer: bool,
    /// Whether it has a motion sensor.
    pub motion: bool,
    /// Whether it is a bulb.
    pub bulb: bool,
}

const PLUG: &str = "Wi-Fi Smart Plug";
const METERED: &str = "Wi-Fi Smart Plug With Energy Monitoring";
const MINI: &str = "Smart Wi-Fi Plug Mini";
const SWITCH: &str = "Smart Wi-Fi Light Switch";
const MOTION: &str = "Smart Light Switch with PIR";
const DIMMER: &str = "Wi-Fi Smart Dimmer";

/// All of them.
pub const MODELS: &[Model] = {
    use Generation::{G1, G2, G3};
    &[
        model("HS100-G1", G1, "HS100(EU)", "1.0", "1.2.5 Build 171129 Rel.174814", PLUG),
        model("HS100-G2", G2, "HS100(US)", "2.0", "1.5.6 Build 191118 Rel.095823", PLUG),
        model("HS100-G3", G3, "HS100(EU)", "4.0", "1.0.3 Build 191111 Rel.143903", PLUG),
        model("HS110-G1", G1, "HS110(EU)", "1.0", "1.2.5 Build 171213 Rel.101523", METERED).metered(),
        model("HS110-G2", G2, "HS110(EU)", "2.0", "1.5.2 Build 180130 Rel.085820", METERED).metered(),
        model("HS110-G3", G3, "HS110(EU)", "4.0", "1.0.4 Build 191111 Rel.143903", METERED).metered(),
        model("HS103", G3, "HS103(US)", "2.1", "1.1.2 Build 191113 Rel.091128", MINI),
        model("HS105", G2, "HS105(US)", "1.0", "1.5.6 Build 191114 Rel.103011", MINI),
        model("EP10", G3, "EP10(US)", "1.0", "1.0.2 Build 200915 Rel.085940", MINI),
        model("KP115", G3, "KP115(EU)", "1.0", "1.0.16 Build 210205 Rel.163735", MINI).metered(),
        model("HS107", G3, "HS107(US)", "1.0", "1.0.8 Build 190103 Rel.114600", "").strip(2),
        model("HS300-V1", G3, "HS300(US)", "1.0", "1.0.10 Build 190103 Rel.114602", "").strip(6).metered(),
        model("HS300", G3, "HS300(US)", "2.0", "1.0.12 Build 220121 Rel.175814", "")
            .strip(6)
            .metered()
            .with_slot_id(),
        model("KP200", G3, "KP200(US)", "3.0", "1.0.3 Build 221021 Rel.183354", "").strip(2),
        model("KP303", G3, "KP303(UK)", "1.0", "1.0.3 Build 191105 Rel.113122", "").strip(3),
        model("KP400", G3, "KP400(US)", "2.0", "1.0.6 Build 200821 Rel.090909", "").strip(2),
        model("EP40", G3, "EP40(US)", "1.0", "1.0.2 Build 210105 Rel.154507", "").strip(2),
        model("HS200", G3, "HS200(US)", "3.0", "1.1.5 Build 210422 Rel.082129", SWITCH),
        model("HS200-G2", G2, "HS200(US)", "2.0", "1.5.7 Build 191118 Rel.100223", SWITCH),
        model(
            "HS210",
            G3,
            "HS210(US)",
            "2.0",
            "1.1.5 Build 210422 Rel.113212",
            "Smart Wi-Fi 3-Way Light Switch",
        ),
        model("KS200", G3, "KS200(US)", "1.0", "1.0.8 Build 240424 Rel.101842", SWITCH),
        model("KS200M", G3, "KS200M(US)", "1.0", "1.0.8 Build 211201 Rel.123822", MOTION).with_motion(),
        model("HS220-G2", G2, "HS220(US)", "1.0", "1.5.7 Build 180912 Rel.104837", DIMMER).dimming(),
        model("HS220", G3, "HS220(US)", "2.0", "1.0.3 Build 200326 Rel.082355", DIMMER).dimming(),
        model("KS220", G3, "KS220(US)", "1.0", "1.0.13 Build 240424 Rel.102214", DIMMER).dimming(),
        model("KS230", G3, "KS230(US)", "1.0", "1.0.14 Build 220127 Rel.124555", DIMMER).dimming(),
        model(
            "KP405",
            G3,
            "KP405(US)",
            "1.0",
            "1.0.5 Build 221108 Rel.175514",
            "Kasa Outdoor Plug-In Dimmer",
        )
        .dimming(),
        model(
            "ES20M",
            G3,
            "ES20M(US)",
            "1.0",
            "1.0.8 Build 211201 Rel.123456",
            "Wi-Fi Smart Dimmer with PIR",
        )
        .dimming()
        .with_motion(),
        model("KL110", G3, "KL110(US)", "1.0", "1.8.11 Build 191113 Rel.105336", "Smart Wi-Fi LED Bulb")
            .bulb(),
    ]
};

const fn model(
    name: &'static str,
    generation: Generation,
    model: &'static str,
    hw_ver: &'static str,
    sw_ver: &'static str,
    dev_name: &'static str,
) -> Model {
    Model {
        name,
        generation,
        model,
        hw_ver,
        sw_ver,
        dev_name,
        children: 0,
        meter: false,
        slot_id: false,
        dimmer: false,
        motion: false,
        bulb: false,
    }
}

impl Model {
    const fn strip(self, children: u8) -> Model {
        Model { children, ..self }
    }

    const fn metered(self) -> Model {
        Model { meter: true, ..self }
    }

    const fn with_slot_id(self) -> Model {
        Model { slot_id: true, ..self }
    }

    const fn dimming(self) -> Model {
        Model { dimmer: true, ..self }
    }

    const fn with_motion(self) -> Model {
        Model { motion: true, ..self }
    }

    const fn bulb(self) -> Model {
        Model { bulb: true, ..self }
    }

    /// The model that [`Model::name`] names, in any case.
    pub fn named(name: &str) -> Option<Model> {
        MODELS.iter().find(|model| model.name.eq_ignore_ascii_case(name)).copied()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_found_by_its_own_name() {
        for model in MODELS {
            assert_eq!(Model::named(&model.name.to_lowercase()), Some(*model));
        }
        assert_eq!(Model::named("HS999"), None);
    }
}
