//! How many files this process may hold open, and how many plugs' connections fit in there.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::plug::room::Room;

/// Descriptors that are not plugs' connections: standard streams, event queue, signals, the broker, a resolver or two,
/// a search of the network.
const OTHERS: u64 = 64;

/// Raises the limit of open files as far as the system allows, and returns it.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    // A limit that cannot be raised is as good as one that need not be; no limit at all is u64::MAX.
    let reached = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    reached.unwrap_or(u64::MAX)
}

/// Room for as many plugs' connections as fit under the limit, once it is raised.
pub fn room() -> Room {
    let connections = raise().saturating_sub(OTHERS);
    Room::new(usize::try_from(connections).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_never_falls() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(raise() >= before);
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raise());
    }
}
