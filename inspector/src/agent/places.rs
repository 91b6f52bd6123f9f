//! Connection slots of a server, limited so that no client takes them all.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::peer::{Peer, Policy};
use super::socket::Stream;

/// Maximum number of connections. Further ones are closed at once, so memory stays bounded.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// Maximum number of connections of root, or of the server's own user. [`MAX_OF_OTHER`] is the
/// limit for each other user or machine.
pub(super) const MAX_OF_OWNER: usize = 12;
const MAX_OF_OTHER: usize = 3;
/// Maximum number of connections of all others together. The rest is reserved for root and the
/// server's own user.
const MAX_OF_OTHERS: usize = 8;

/// Open connections.
#[derive(Debug, Default)]
pub(super) struct Places {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, (Peer, Stream)>>,
}

impl Places {
    /// Takes a slot for a connection; `None` if a limit is reached.
    pub(super) fn take(&self, peer: Peer, policy: &Policy, stream: &Stream) -> io::Result<Option<u64>> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let same = streams.values().filter(|(of, _)| *of == peer).count();
        let others = streams.values().filter(|(of, _)| !policy.is_owner(*of)).count();
        let fits = if policy.is_owner(peer) {
            same < MAX_OF_OWNER
        } else {
            same < MAX_OF_OTHER && others < MAX_OF_OTHERS
        };
        if !fits || streams.len() >= MAX_CONNECTIONS {
            return Ok(None);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        streams.insert(id, (peer, stream.try_clone()?));
        Ok(Some(id))
    }

    pub(super) fn give_back(&self, id: u64) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(super) fn close_all(&self) {
        for (_, stream) in self.streams.lock().unwrap_or_else(PoisonError::into_inner).values() {
            // Fails only if the connection is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn nobody_takes_all_places() {
        let policy = Policy { own: 1000, users: BTreeSet::new(), remote: true, changes: false };
        let places = Places::default();
        let (stream, _other) = UnixStream::pair().unwrap();
        let stream = Stream::Unix(stream);
        let take = |peer| places.take(peer, &policy, &stream).unwrap();
        let fill = |peer| std::iter::from_fn(|| take(peer)).collect::<Vec<u64>>();
        let remote = |last| Peer::Remote([192, 0, 2, last].into());
        let first = fill(remote(1));
        assert_eq!(first.len(), MAX_OF_OTHER);
        let others: usize = (2..9).map(|last| fill(remote(last)).len()).sum();
        assert_eq!(first.len() + others, MAX_OF_OTHERS);
        // The owner of the server still gets in, and does not take all slots either.
        assert_eq!(fill(Peer::User(1000)).len(), MAX_CONNECTIONS - MAX_OF_OTHERS);
        first.into_iter().for_each(|id| places.give_back(id));
        assert!(take(Peer::User(0)).is_some() && take(remote(9)).is_some());
        let places = Places::default();
        let own = (0..20).filter(|_| places.take(Peer::User(0), &policy, &stream).unwrap().is_some()).count();
        assert_eq!(own, MAX_OF_OWNER);
    }
}
