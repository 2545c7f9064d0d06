//! Answers that are ready and that their clients have not taken yet.
//!
//! Their bytes are counted. When there are more than the limit, connections are closed: first of the client that holds
//! most, its oldest answer first. So whoever does not read cannot fill the memory, and keeps nobody else from being
//! answered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::app::App;
use crate::connection::{Caller, Client, Connection};

/// All answers that wait for their clients.
#[derive(Debug, Clone)]
pub struct Unsent(Arc<Mutex<All>>);

#[derive(Debug)]
struct All {
    limit: usize,
    total: usize,
    next: u64,
    /// In the order in which they came.
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    client: Client,
    bytes: usize,
    connection: Option<Arc<Connection>>,
}

impl Unsent {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(All { limit, total: 0, next: 0, held: BTreeMap::new() })))
    }

    /// Begins to count an answer to `caller`.
    pub fn hold(&self, caller: &Caller) -> Hold {
        let mut all = self.all();
        all.next += 1;
        let id = all.next;
        all.held.insert(id, Held { client: caller.client, bytes: 0, connection: caller.connection.clone() });
        Hold { id, unsent: self.clone() }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.all().total
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.total -= held.bytes;
        Some(held)
    }

    /// Closes connections until the rest is within the limit; not that of `newest`, which is being written.
    fn cut(&mut self, newest: u64) {
        while self.total > self.limit {
            let mut by_client: HashMap<Client, usize> = HashMap::new();
            for held in self.held.values() {
                *by_client.entry(held.client).or_default() += held.bytes;
            }
            let others = self.held.iter().filter(|(id, held)| **id != newest && held.bytes > 0);
            let of = |held: &Held| by_client.get(&held.client).copied().unwrap_or_default();
            let most = others.clone().map(|(_, held)| of(held)).max();
            let Some(id) = others.clone().find(|(_, held)| Some(of(held)) == most).map(|(id, _)| *id) else { return };
            let cut = self.remove(id);
            if let Some(connection) = cut.and_then(|held| held.connection) {
                tracing::info!("an answer that {} did not read was dropped", connection.client);
                connection.close();
            }
        }
    }
}

/// One answer's part in the count.
#[derive(Debug)]
pub struct Hold {
    id: u64,
    unsent: Unsent,
}

impl Hold {
    /// Counts bytes that became ready. False if the answer was given up.
    pub fn add(&self, bytes: usize) -> bool {
        let mut all = self.unsent.all();
        let Some(held) = all.held.get_mut(&self.id) else { return false };
        held.bytes += bytes;
        all.total += bytes;
        all.cut(self.id);
        true
    }

    /// Counts bytes as taken by the client.
    pub fn sent(&self, bytes: usize) {
        let mut all = self.unsent.all();
        if let Some(held) = all.held.get_mut(&self.id) {
            let bytes = bytes.min(held.bytes);
            held.bytes -= bytes;
            all.total -= bytes;
        }
    }

    /// Whether the answer is still wanted.
    pub fn is_held(&self) -> bool {
        self.unsent.all().held.contains_key(&self.id)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.unsent.all().remove(self.id);
    }
}

/// Counts the bytes of every answer whose length is known until its client has taken them.
pub async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let response = next.run(request).await;
    match response.body().size_hint().exact() {
        Some(bytes) if bytes > PIECE as u64 => {
            let hold = app.unsent().hold(&caller);
            hold.add(usize::try_from(bytes).unwrap_or(usize::MAX));
            response.map(|body| body::Body::new(HeldBody { body, rest: Bytes::new(), left: bytes, hold }))
        }
        _ => response,
    }
}

/// A body that leaves in pieces, each counted as taken when it leaves.
struct HeldBody {
    body: body::Body,
    /// What `body` gave and has not left yet.
    rest: Bytes,
    left: u64,
    hold: Hold,
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.hold.is_held() {
            return Poll::Ready(Some(Err(axum::Error::new("the answer was not read"))));
        }
        if self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => self.rest = data,
                Ok(Err(other)) => return Poll::Ready(Some(Ok(other))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        let len = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(len);
        self.left = self.left.saturating_sub(len as u64);
        self.hold.sent(len);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Bytes that are written piece by piece, up to a limit: a large answer is never copied to grow.
#[derive(Debug)]
pub struct Pieces {
    full: VecDeque<Bytes>,
    last: Vec<u8>,
    len: usize,
    limit: usize,
}

/// Bytes of a piece.
const PIECE: usize = 32 << 10;

impl Pieces {
    pub fn up_to(limit: usize) -> Self {
        Self { full: VecDeque::new(), last: Vec::new(), len: 0, limit }
    }

    fn finish(mut self) -> Self {
        self.end_piece();
        self
    }

    pub fn into_body(self) -> body::Body {
        body::Body::new(WholeBody { left: self.len as u64, pieces: self.finish().full })
    }

    fn end_piece(&mut self) {
        if !self.last.is_empty() {
            self.full.push_back(std::mem::take(&mut self.last).into());
        }
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len + bytes.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.last.len() + bytes.len() > PIECE {
            self.end_piece();
        }
        self.last.extend_from_slice(bytes);
        self.len += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All pieces, of which those that have left are freed.
struct WholeBody {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.left -= piece.as_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::IpAddr;

    fn caller(last: u8) -> Caller {
        let connection = Arc::new(Connection::new(IpAddr::from([10, 0, 0, last])));
        Caller { client: connection.client, connection: Some(connection) }
    }

    #[tokio::test]
    async fn whoever_holds_most_loses_the_oldest() {
        let unsent = Unsent::new(100);
        let (one, other) = (caller(1), caller(2));
        let [small, old, new] = [&one, &other, &other].map(|caller| unsent.hold(caller));
        assert!(small.add(40) && old.add(30) && new.add(25));
        assert_eq!(unsent.bytes(), 95);
        assert!(new.add(20), "the one being written goes on");
        assert!(!old.is_held() && small.is_held());
        if let Some(connection) = &other.connection {
            connection.closed().await;
        }
        new.sent(15);
        assert_eq!(unsent.bytes(), 70);
        drop((small, old, new));
        assert_eq!(unsent.bytes(), 0);
    }

    #[test]
    fn pieces_are_limited() {
        let mut pieces = Pieces::up_to(1 << 20);
        assert!(pieces.write_all(&vec![1; 300 << 10]).is_ok());
        assert!(pieces.write_all(&vec![1; 300 << 10]).is_ok());
        assert!(pieces.write_all(&vec![1; 600 << 10]).is_err());
        let pieces = pieces.finish();
        assert_eq!((pieces.len, pieces.full.len()), (600 << 10, 2));
    }
}
