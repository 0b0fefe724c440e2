//! How many files this process may hold open, and how many plugs' connections fit in there.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors that are not plugs' connections: standard streams, event queue, signals, the broker, a resolver or two,
/// and connections that are opened before an old one is gone.
const OTHERS: u64 = 64;

/// Raises the limit of open files as far as the system allows, and returns it.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    // A limit that cannot be raised is as good as one that need not be; no limit at all is u64::MAX.
    let reached = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    reached.unwrap_or(u64::MAX)
}

/// How many of `plugs` may keep their connection open between polls under a limit of open files. The others connect
/// for each poll: slower, but served.
pub fn connections_to_keep(limit: u64, plugs: usize) -> usize {
    // Those that connect for each poll need descriptors too, for a moment: a tenth of what there is.
    let room = limit.saturating_sub(OTHERS);
    match usize::try_from(room).unwrap_or(usize::MAX) {
        room if room >= plugs => plugs,
        room => room - room.div_ceil(10),
    }
}

/// The same for this process, with its limit raised; says so when it does not suffice.
pub fn prepare(plugs: usize) -> usize {
    let limit = raise();
    let kept = connections_to_keep(limit, plugs);
    if kept < plugs {
        let needed = plugs as u64 + OTHERS;
        warn!(limit, needed, "{plugs} plugs need more open files than allowed: {kept} keep their connection");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_keeps_a_connection_while_there_is_room() {
        assert_eq!(connections_to_keep(1024, 0), 0);
        assert_eq!(connections_to_keep(1024, 960), 960);
        assert_eq!(connections_to_keep(u64::MAX, 1_000_000), 1_000_000);
    }

    #[test]
    fn a_limit_that_is_too_low_leaves_room_for_the_others_to_take_turns() {
        assert_eq!(connections_to_keep(1024, 961), 864);
        assert_eq!(connections_to_keep(1024, 10_000), 864);
        assert_eq!(connections_to_keep(64, 10), 0);
        assert_eq!(connections_to_keep(0, 10), 0);
    }

    #[test]
    fn the_limit_never_falls() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(raise() >= before);
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raise());
    }
}
