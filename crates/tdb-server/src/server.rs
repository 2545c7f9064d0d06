//! From a listening socket to answered requests: connections are limited in number and in how long their clients may
//! let them wait, hang-ups are noticed, and the end is orderly.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, sleep, timeout};
use tower::ServiceExt;

use crate::app::{App, router};
use crate::config::Limits;
use crate::connection::{Caller, Connection};
use crate::metrics::Dropped;
use crate::socket::{Socket, is_gone};

/// How often a connection is looked at: whether its client is gone, or has been silent for too long.
const LOOK: Duration = Duration::from_millis(200);
/// How long answers that were cut have to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a connection may be idle when the server ends.
const IDLE_AT_THE_END: Duration = Duration::from_millis(500);

/// Serves `app` until `stopped` resolves and what was begun is done, for at most `grace` longer. How many requests were
/// cut then.
pub async fn serve(listener: TcpListener, app: App, stopped: impl Future<Output = ()>, grace: Duration) -> usize {
    let routes = router(app.clone());
    tokio::select! {
        () = accept(&listener, &app, &routes) => {}
        () = stopped => {}
    }
    app.stop().begin();
    drop(listener);
    if timeout(grace, all_closed(&app)).await.is_err() {
        app.stop().cut();
        // What cannot be told to its client in this time is dropped with the process.
        let _ = timeout(LAST_WORDS, all_closed(&app)).await;
    }
    app.stop().cuts()
}

async fn accept(listener: &TcpListener, app: &App, routes: &Router) {
    let (limits, proxies) = (&app.config().limits, &app.config().proxies);
    let most = limits.connections.min(connections_by_descriptors());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connections = app.connections();
                if connections.len() >= most {
                    app.metrics().dropped(Dropped::Crowded);
                    if !connections.make_room(proxies) {
                        continue;
                    }
                }
                tokio::spawn(serve_connection(stream, peer, app.clone(), routes.clone()));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                // No descriptors or memory left: fewer connections will help.
                tracing::warn!("a connection could not be accepted: {error}");
                app.connections().make_room(proxies);
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What the limit on file descriptors leaves for connections, after raising it as far as it may be.
fn connections_by_descriptors() -> usize {
    /// For the listening socket, the log, model files, records that are being read, and language models.
    const OTHERS: u64 = 32;
    let most = rlimit::increase_nofile_limit(rlimit::INFINITY).unwrap_or(u64::MAX);
    usize::try_from(most.saturating_sub(OTHERS).max(8)).unwrap_or(usize::MAX)
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, app: App, routes: Router) {
    // Large answers leave in several packets, small ones at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("{error}");
    }
    let limits = &app.config().limits;
    let connection = Arc::new(Connection::new(peer.ip()));
    let _entry = app.connections().add(connection.clone());
    let stream = Arc::new(stream);
    let io = TokioIo::new(Socket::new(stream.clone(), connection.clone(), limits.write_time));
    let answering = connection.clone();
    let service = hyper::service::service_fn(move |request| answer(request, answering.clone(), routes.clone()));
    let builder = builder(limits);
    let served = builder.serve_connection(io, service);
    tokio::pin!(served);
    let dropped = tokio::select! {
        outcome = served.as_mut() => {
            if let Err(error) = outcome {
                tracing::debug!("connection from {peer}: {error}");
            }
            return;
        }
        dropped = given_up(&stream, &connection, &app) => dropped,
        () = app.stop().begun() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                _ = served.as_mut() => return,
                dropped = given_up(&stream, &connection, &app) => dropped,
            }
        }
    };
    // A hang-up is counted with its request.
    if dropped != Dropped::Gone {
        app.metrics().dropped(dropped);
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle_time).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(32)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        .max_send_buf_size(64 << 10)
        .max_header_list_size(64 << 10);
    builder
}

async fn answer(
    request: Request<Incoming>,
    connection: Arc<Connection>,
    routes: Router,
) -> Result<Response<Body>, Infallible> {
    let _request = connection.request();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Caller { client: connection.client, connection: Some(connection.clone()) });
    routes.oneshot(request).await
}

/// Until there is no sense in keeping the connection. The HTTP library itself notices a hang-up only while it reads,
/// which it does not while it has unread bytes of the client and an answer to wait for.
async fn given_up(stream: &TcpStream, connection: &Connection, app: &App) -> Dropped {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = connection.closed() => return Dropped::Closed,
        }
        let idle_time = if app.stop().has_begun() { IDLE_AT_THE_END } else { app.config().limits.idle_time };
        if connection.is_asked() {
            if is_gone(stream) {
                return Dropped::Gone;
            }
        } else if connection.left_alone() > idle_time {
            return Dropped::Idle;
        }
    }
}

async fn all_closed(app: &App) {
    while app.connections().len() > 0 {
        // Looked at again after a while, too: a connection may have ended between the two.
        let _ = timeout(LOOK, app.connections().one_less()).await;
    }
}
