//! One connection as everything else sees it, and all of them together.
//!
//! When there are more connections than may be open, the one that its client has left alone longest is closed, first of
//! the address that has most: whoever opens thousands closes their own. A connection whose request is being worked on
//! is never closed for others.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::Notify;

/// Who asks: an address. Of version 6 addresses the first half counts, of which a household or an office has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client(IpAddr);

impl Client {
    pub fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address => Self(address),
        }
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An open connection: what happens on it, and how to close it.
#[derive(Debug)]
pub struct Connection {
    pub client: Client,
    pub peer: IpAddr,
    opened: Instant,
    /// Milliseconds after `opened`: when bytes last moved to the client, or a request ended.
    touched: AtomicU64,
    /// Requests whose head has arrived and whose answer has not begun.
    asked: AtomicUsize,
    /// Those of them that wait for their client: for the rest of a body.
    incomplete: AtomicUsize,
    closed: Notify,
}

impl Connection {
    pub fn new(peer: IpAddr) -> Self {
        Self {
            client: Client::new(peer),
            peer,
            opened: Instant::now(),
            touched: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            incomplete: AtomicUsize::new(0),
            closed: Notify::new(),
        }
    }

    /// Notes that the client did something that counts.
    pub fn touch(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.touched.store(now, Ordering::Relaxed);
    }

    /// How long the client has done nothing that counts.
    pub fn left_alone(&self) -> Duration {
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.touched.load(Ordering::Relaxed)))
    }

    /// Whether a request has arrived whose answer has not begun.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    /// Whether the server works on a request, rather than waiting for the client.
    pub fn is_busy(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > self.incomplete.load(Ordering::Relaxed)
    }

    pub fn close(&self) {
        self.closed.notify_one();
    }

    /// Until [`Connection::close`].
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Counts a request until the guard is dropped.
    pub fn request(self: &Arc<Self>) -> Counted {
        Counted::new(self, |connection| &connection.asked)
    }

    /// Counts a request as waiting for its client until the guard is dropped.
    pub fn waits_for_client(self: &Arc<Self>) -> Counted {
        Counted::new(self, |connection| &connection.incomplete)
    }
}

/// Counts one thing up while it lives.
#[derive(Debug)]
pub struct Counted {
    connection: Arc<Connection>,
    count: fn(&Connection) -> &AtomicUsize,
}

impl Counted {
    fn new(connection: &Arc<Connection>, count: fn(&Connection) -> &AtomicUsize) -> Self {
        count(connection).fetch_add(1, Ordering::Relaxed);
        Self { connection: connection.clone(), count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&self.connection).fetch_sub(1, Ordering::Relaxed);
        self.connection.touch();
    }
}

/// Who sent a request, and on which connection: none when the routes are called directly.
#[derive(Debug, Clone)]
pub struct Caller {
    pub client: Client,
    pub connection: Option<Arc<Connection>>,
}

impl Default for Caller {
    fn default() -> Self {
        Self { client: Client::new(Ipv4Addr::LOCALHOST.into()), connection: None }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// All open connections.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<All>);

#[derive(Debug, Default)]
struct All {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    one_less: Notify,
}

impl Connections {
    /// Counts `connection` until the entry is dropped.
    pub fn add(&self, connection: Arc<Connection>) -> Entry {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.open().insert(id, connection);
        Entry { id, all: self.clone() }
    }

    pub fn len(&self) -> usize {
        self.open().len()
    }

    /// Until there are fewer connections than there were.
    pub async fn one_less(&self) {
        self.0.one_less.notified().await;
    }

    /// Closes the connection that its client has left alone longest, first of the address that has most. `spared`
    /// addresses stand for many clients and do not count as one. False if all connections are worked for.
    pub fn make_room(&self, spared: &[IpAddr]) -> bool {
        let mut open = self.open();
        let mut by_client: HashMap<Client, usize> = HashMap::new();
        for connection in open.values().filter(|connection| !spared.contains(&connection.peer)) {
            *by_client.entry(connection.client).or_default() += 1;
        }
        let idle = open.iter().filter(|(_, connection)| !connection.is_busy());
        let rank = |connection: &Connection| {
            (by_client.get(&connection.client).copied().unwrap_or_default(), connection.left_alone())
        };
        let Some(id) = idle.max_by_key(|(_, connection)| rank(connection)).map(|(id, _)| *id) else {
            return false;
        };
        // Taken out at once: the task that serves it ends a moment later.
        if let Some(connection) = open.remove(&id) {
            connection.close();
        }
        true
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among all.
#[derive(Debug)]
pub struct Entry {
    id: u64,
    all: Connections,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.all.open().remove(&self.id);
        self.all.0.one_less.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(address: [u8; 4]) -> Arc<Connection> {
        Arc::new(Connection::new(IpAddr::from(address)))
    }

    #[tokio::test]
    async fn room_is_made_by_whoever_has_most() {
        let all = Connections::default();
        let one = connection([10, 0, 0, 1]);
        let many: Vec<_> = (0..3).map(|_| connection([10, 0, 0, 2])).collect();
        let _entries: Vec<_> = std::iter::once(&one).chain(&many).map(|c| all.add(c.clone())).collect();
        let busy = many[0].request();
        std::thread::sleep(Duration::from_millis(2));
        many[2].touch();
        assert!(all.make_room(&[]));
        many[1].closed().await;
        drop(busy);
        // Of one each, the one left alone longest.
        assert!(all.make_room(&[]) && all.len() == 2);
        assert!(all.make_room(&[IpAddr::from([10, 0, 0, 2])]));
        one.closed().await;
    }

    #[test]
    fn what_is_worked_for_is_not_closed() {
        let all = Connections::default();
        let one = connection([10, 0, 0, 1]);
        let _entry = all.add(one.clone());
        let _request = one.request();
        assert!(!all.make_room(&[]));
        let _body = one.waits_for_client();
        assert!(all.make_room(&[]));
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let client = |text: &str| Client::new(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
    }
}
