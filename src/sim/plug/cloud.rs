//! The `cnCloud` module (protocol.md 2.3). Nothing here ever reaches the internet.

use super::super::json::{Fields, Json, fields, put};
use super::SimPlug;
use super::call::{Call, FAILED, NO_METHOD, Outcome, Refusal};

const NOT_BOUND: Refusal = Refusal(-8, "not bind yet");
const NO_SERVER: Refusal = Refusal(-21, "can not connect to the server");

/// What `get_info` says of a device in nobody's account.
pub(super) fn unbound() -> Fields {
    fields([
        ("username", "".into()),
        ("server", "n-devs.tplinkcloud.com".into()),
        ("binded", Json::Int(0)),
        ("cld_connection", Json::Int(0)),
        ("illegalType", Json::Int(-1)),
        ("stopConnect", Json::Int(-1)),
        ("tcspStatus", Json::Int(-1)),
        ("fwDlPage", "".into()),
        ("tcspInfo", "".into()),
        ("fwNotifyType", Json::Int(0)),
    ])
}

pub(super) fn call(plug: &mut SimPlug, call: &Call<'_>) -> Outcome {
    match call.method {
        "get_info" => Ok(plug.cloud.clone()),
        "unbind" if !plug.is_bound() => Err(NOT_BOUND),
        "unbind" => {
            for (key, value) in [("username", "".into()), ("binded", 0.into()), ("cld_connection", 0.into())]
            {
                put(&mut plug.cloud, key, value);
            }
            Ok(Fields::new())
        }
        "bind" => Err(NO_SERVER),
        "set_server_url" => {
            let server = call.text("server")?;
            put(&mut plug.cloud, "server", server.into());
            Ok(Fields::new())
        }
        "get_intl_fw_list" => Err(FAILED),
        _ => Err(NO_METHOD),
    }
}
