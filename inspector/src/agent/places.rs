//! The places of a server: how many connections there can be, such that nobody takes them all.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::peer::{Peer, Policy};
use super::socket::Stream;

/// Connections beyond these are closed at once: memory stays bounded.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// How many of them one user or machine has, where it is root or the server's own user, and where it is another.
pub(super) const MAX_OF_OWNER: usize = 12;
const MAX_OF_OTHER: usize = 3;
/// How many all others have together: the rest is left for those who own the server.
const MAX_OF_OTHERS: usize = 8;

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Places {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, (Peer, Stream)>>,
}

impl Places {
    /// Gives one a place; `None` where there are too many.
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
            // It is closed already where this fails.
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
        // Who owns the server still gets in, and does not take all either.
        assert_eq!(fill(Peer::User(1000)).len(), MAX_CONNECTIONS - MAX_OF_OTHERS);
        first.into_iter().for_each(|id| places.give_back(id));
        assert!(take(Peer::User(0)).is_some() && take(remote(9)).is_some());
        let places = Places::default();
        let own = (0..20).filter(|_| places.take(Peer::User(0), &policy, &stream).unwrap().is_some()).count();
        assert_eq!(own, MAX_OF_OWNER);
    }
}
