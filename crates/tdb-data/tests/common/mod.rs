//! A plain file server that can be told to misbehave, and what tests need around it.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses another part

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tdb_data::{FetchConfig, Fetcher, Registry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How the server answers a request for a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// This status and nothing else.
    Status(u16),
    /// Close the connection after so many bytes of the body.
    BreakAfter(usize),
    /// Say that the body is longer than it is, by this much.
    ClaimMore(usize),
    /// Send more than was said.
    SendMore(usize),
    /// Pause before every chunk of 1000 bytes.
    Slow(Duration),
    /// Answer nothing at all until the client gives up.
    Silent,
    /// Send the first bytes as a part of the file, though nobody asked for a part.
    Unasked(usize),
    /// Say that the body is compressed.
    Encoded,
    /// Send the body in chunks, without its length.
    Chunked,
    /// Name another ETag than before.
    OtherVersion,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// Faults that are used up, one for each request; afterwards the file is served as it is.
    faults: HashMap<String, Vec<Fault>>,
    requests: Vec<(String, Option<u64>)>,
    /// Changes the ETag of everything.
    version: u32,
    ignore_ranges: bool,
}

/// Serves files on 127.0.0.1 with ranges and ETags.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { url, state }
    }

    pub fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(path.into(), content.into());
    }

    pub fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.insert(path.into(), faults.into_iter().collect());
    }

    pub fn new_version(&self) {
        self.state.lock().unwrap().version += 1;
    }

    pub fn ignore_ranges(&self) {
        self.state.lock().unwrap().ignore_ranges = true;
    }

    /// Paths that were asked for, with the beginning of the range.
    pub fn requests(&self) -> Vec<(String, Option<u64>)> {
        self.state.lock().unwrap().requests.clone()
    }

    pub fn location(&self, path: &str) -> tdb_data::Location {
        tdb_data::Location::parse(&format!("{}/{path}", self.url)).unwrap()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(i) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break i + 4;
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(n) => buffer.extend_from_slice(&chunk[..n]),
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        if !answer(&mut stream, &head, &state).await {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// Answers one request; false if the connection is to be closed.
async fn answer(stream: &mut TcpStream, head: &str, state: &Mutex<State>) -> bool {
    let path = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_string();
    let range = head.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        let range = name.eq_ignore_ascii_case("range").then_some(value.trim())?;
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse::<u64>().ok()?, end.parse::<usize>().ok()))
    });
    let start = range.map(|(start, _)| start);
    let (content, fault, mut etag, ranges) = {
        let mut s = state.lock().unwrap();
        s.requests.push((path.clone(), start));
        let fault = match s.faults.get_mut(&path) {
            Some(list) if !list.is_empty() => list.remove(0),
            _ => Fault::None,
        };
        (s.files.get(&path).cloned(), fault, format!("\"{}-{}\"", path.len(), s.version), !s.ignore_ranges)
    };
    if let Fault::Status(status) = fault {
        let text = format!("HTTP/1.1 {status} Failed\r\ncontent-length: 4\r\n\r\noops");
        return stream.write_all(text.as_bytes()).await.is_ok();
    }
    if fault == Fault::Silent {
        tokio::time::sleep(Duration::from_secs(600)).await;
        return false;
    }
    let Some(content) = content else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.is_ok();
    };
    if fault == Fault::OtherVersion {
        etag = "\"other\"".into();
    }
    let from = start.filter(|_| ranges).unwrap_or(0) as usize;
    let end = range.filter(|_| ranges).and_then(|(_, end)| end).map_or(content.len(), |end| content.len().min(end + 1));
    let mut body = &content[from.min(end)..end];
    let (start, end) = match fault {
        Fault::Unasked(n) => (Some(0), n),
        _ => (start, end),
    };
    body = &body[..body.len().min(end - from.min(end))];
    let claimed = match fault {
        Fault::ClaimMore(n) => body.len() + n,
        _ => body.len(),
    };
    let status = match start.filter(|_| ranges) {
        Some(s) => format!("206 Partial Content\r\ncontent-range: bytes {s}-{}/{}", end - 1, content.len()),
        None => "200 OK".into(),
    };
    let length = match fault {
        Fault::Chunked => "transfer-encoding: chunked".into(),
        Fault::Encoded => format!("content-length: {claimed}\r\ncontent-encoding: gzip"),
        _ => format!("content-length: {claimed}"),
    };
    // Web servers' dates may be wrong, those of stores are not.
    let date = if path.starts_with("bucket/") { "Wed, 21 Oct 2020 07:28:00 GMT" } else { "yesterday" };
    let header = format!("HTTP/1.1 {status}\r\n{length}\r\netag: {etag}\r\nlast-modified: {date}\r\n\r\n");
    if stream.write_all(header.as_bytes()).await.is_err() {
        return false;
    }
    if head.starts_with("HEAD") {
        return true;
    }
    match fault {
        Fault::Chunked => {
            let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
            stream.write_all(&chunk).await.is_ok()
        }
        Fault::BreakAfter(n) => {
            let _ = stream.write_all(&body[..n.min(body.len())]).await;
            let _ = stream.flush().await;
            false
        }
        Fault::ClaimMore(_) => {
            let _ = stream.write_all(body).await;
            false
        }
        Fault::SendMore(n) => {
            let _ = stream.write_all(body).await;
            let _ = stream.write_all(&vec![b'x'; n]).await;
            false
        }
        Fault::Slow(pause) => {
            for chunk in body.chunks(1000) {
                tokio::time::sleep(pause).await;
                if stream.write_all(chunk).await.is_err() {
                    return false;
                }
            }
            true
        }
        _ => stream.write_all(body).await.is_ok(),
    }
}

/// Settings for tests: a cache of its own, short pauses.
pub fn config(cache: &Path) -> FetchConfig {
    let mut config = FetchConfig::from_env().unwrap();
    config.cache = cache.to_path_buf();
    config.offline = false;
    config.hub_cache = None;
    config.hugging_face_token = None;
    config.pause = Duration::from_millis(5);
    config.read_timeout = Duration::from_millis(500);
    config
}

pub fn fetcher(cache: &Path) -> Fetcher {
    Fetcher::new(config(cache), &Registry::default())
}

/// Bytes that differ everywhere, the same in every run.
pub fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}
