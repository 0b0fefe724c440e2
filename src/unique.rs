//! Names that nobody else has.

/// A client id that nobody else has, and that every broker takes (up to 23 characters).
pub fn client_id() -> String {
    format!("kasa2mqtt-{}", name())
}

/// Twelve hexadecimal digits of the system's random numbers. Not of a generator of our own: two programs that start at
/// the same moment, as shards do, would seed it with the same time, and throw each other out of the broker for ever.
pub fn name() -> String {
    let number = getrandom::u64().unwrap_or_else(|_| fastrand::u64(..));
    format!("{:012x}", number >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let names: std::collections::HashSet<String> = (0..1000).map(|_| name()).collect();
        assert!(names.len() == 1000 && names.iter().all(|name| name.len() == 12));
        assert!(client_id().len() <= 23);
    }
}
