//! Room for the connections of all plugs together: the system limits how many files may be open.
//!
//! Everybody keeps a connection while there is room. Once a quarter of it is all that is left, whoever has been served
//! leaves, and the others take turns there: a connection for each visit is slower, but none at all would be worse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// What an open connection takes; given back when dropped.
pub type Seat = OwnedSemaphorePermit;

/// See the module.
#[derive(Debug)]
pub struct Room {
    seats: Arc<Semaphore>,
    all: usize,
    said: AtomicBool,
}

impl Room {
    /// For so many connections, but for one at least.
    pub fn new(connections: usize) -> Room {
        let all = connections.clamp(1, Semaphore::MAX_PERMITS);
        Room { seats: Arc::new(Semaphore::new(all)), all, said: AtomicBool::new(false) }
    }

    /// For as many as anybody wants.
    pub fn unlimited() -> Room {
        Room::new(usize::MAX)
    }

    /// Waits in turn for a seat.
    pub async fn enter(&self) -> Seat {
        let seat = Arc::clone(&self.seats).acquire_owned().await;
        seat.expect("nobody closes the room")
    }

    /// Whether those who were served are to leave. Says so the first time.
    pub fn is_crowded(&self) -> bool {
        let is_crowded = self.seats.available_permits() < self.all.div_ceil(4);
        if is_crowded && !self.said.swap(true, Ordering::Relaxed) {
            warn!(
                room = self.all,
                "the limit of open files is too low for all plugs: some are connected to anew for each poll"
            );
        }
        is_crowded
    }
}

impl Default for Room {
    fn default() -> Room {
        Room::unlimited()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quarter_of_the_room_is_for_those_who_take_turns() {
        let room = Room::new(8);
        let mut seats = Vec::new();
        while !room.is_crowded() {
            seats.push(room.enter().await);
        }
        assert_eq!(seats.len(), 7, "six may stay, the seventh leaves");
        seats.pop();
        assert!(!room.is_crowded());
    }

    #[tokio::test]
    async fn the_smallest_room_is_left_by_everybody() {
        let room = Room::new(0);
        assert!(!room.is_crowded());
        let _seat = room.enter().await;
        assert!(room.is_crowded());
        assert!(!Room::unlimited().is_crowded());
    }
}
