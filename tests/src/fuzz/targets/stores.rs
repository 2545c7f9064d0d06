//! What stores and web servers answer.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tdb_data::collated::LayerFile;
use tdb_data::{FetchConfig, Fetcher, Location, Registry};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::data::read_records;

/// A server on this machine, and who asks it.
struct World {
    served: Arc<Mutex<Served>>,
    runtime: Runtime,
    fetcher: Fetcher,
    address: String,
    _cache: TempDir,
}

#[derive(Default)]
struct Served {
    content: Arc<[u8]>,
    /// The content is the whole of an answer, rather than a file.
    is_answer: bool,
}

static WORLD: LazyLock<World> = LazyLock::new(|| World::new().expect("a server can be started on this machine"));

impl World {
    fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let served: Arc<Mutex<Served>> = Arc::default();
        let of_server = served.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let served = of_server.clone();
                std::thread::spawn(move || drop(serve(&client, &served)));
            }
        });
        let cache = TempDir::new()?;
        let store = format!(
            "[[store]]\nprefix = 's3://'\nendpoint = '{address}'\nregion = 'x'\nallow_http = true\nanonymous = true\n"
        );
        let registry = Registry::parse("fuzz", &store)?;
        let config = FetchConfig {
            cache: cache.path().to_owned(),
            cache_limit: 1 << 20,
            offline: false,
            mirrors: Vec::new(),
            retries: 0,
            pause: Duration::from_millis(1),
            parallel: 4,
            read_timeout: Duration::from_secs(2),
            pace: tdb_data::Pace::default(),
            in_place_from: 0,
            hugging_face: address.clone(),
            hugging_face_token: None,
            hub_cache: None,
            embedded: |_| None,
        };
        let fetcher = Fetcher::new(config, &registry);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { served, runtime, fetcher, address, _cache: cache })
    }

    fn serve(&self, content: &[u8], is_answer: bool) {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = Served { content: content.into(), is_answer };
    }
}

/// Answers the requests of a connection until the client closes it.
fn serve(client: &TcpStream, served: &Mutex<Served>) -> io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    loop {
        let Some(first) = lines.next().transpose()? else { return Ok(()) };
        let mut range = None;
        loop {
            let Some(line) = lines.next().transpose()? else { return Ok(()) };
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = value
                    .trim()
                    .strip_prefix("bytes=")
                    .and_then(|range| range.split_once('-'))
                    .map(|(from, to)| [from, to].map(|number| number.parse::<usize>().unwrap_or(usize::MAX)));
            }
        }
        let (content, is_answer) = {
            let served = served.lock().unwrap_or_else(PoisonError::into_inner);
            (served.content.clone(), served.is_answer)
        };
        let mut client = client;
        if is_answer {
            return client.write_all(&content);
        }
        let last = content.len().saturating_sub(1);
        let (status, head, part) = match range {
            Some([from, to]) if from <= to.min(last) && !content.is_empty() => {
                let to = to.min(last);
                let head = format!("content-range: bytes {from}-{to}/{}\r\n", content.len());
                ("206 Partial Content", head, &content[from..=to])
            }
            Some(_) => ("416 Range Not Satisfiable", String::new(), &[][..]),
            None => ("200 OK", String::new(), &content[..]),
        };
        let length = part.len();
        let head = format!(
            "HTTP/1.1 {status}\r\netag: \"a\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{head}content-length: {length}\r\n\r\n"
        );
        let body: &[u8] = if first.starts_with("HEAD") { &[] } else { part };
        client.write_all(&[head.as_bytes(), body].concat())?;
    }
}

/// Records of a layer that are read where they are, in a store.
pub fn stored(input: &[u8]) {
    WORLD.serve(input, false);
    let Ok(location) = Location::parse("s3://bucket/0.records") else { return };
    if let Ok(Some(file)) = WORLD.runtime.block_on(WORLD.fetcher.in_place(&location))
        && let Ok(file) = LayerFile::in_place("fuzz", file)
    {
        read_records(&file);
    }
}

/// What a web server answers, whatever is asked.
pub fn response(input: &[u8]) {
    WORLD.serve(input, true);
    for place in
        [format!("{}/a.json", WORLD.address), "s3://bucket/a.json".to_owned(), "hf://a/b@main/a.json".to_owned()]
    {
        if let Ok(location) = Location::parse(&place) {
            let _ = WORLD.runtime.block_on(WORLD.fetcher.bytes(&location, 1 << 20));
        }
    }
    WORLD.fetcher.cache().clear(None);
}
