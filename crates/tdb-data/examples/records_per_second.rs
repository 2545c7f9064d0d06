//! Records per second from a web server, from the cache on disk, and from memory.
//!
//! `cargo run --release -p tdb-data --example records_per_second [records]`

use std::time::Instant;

use tdb_api::{DerivedScalarType, NodeIdAndDatasets};
use tdb_data::{ActivationRecord, FetchConfig, Fetcher, Library, Moments, NodeRecord, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// As large as a record of the public sets: 20 + 20 texts of 64 tokens.
fn record(index: usize) -> Vec<u8> {
    let example = |i: usize| ActivationRecord {
        activations: (0..64).map(|t| ((index * 31 + i * 17 + t * 7) % 1000) as f32 / 137.0).collect(),
        tokens: (0..64).map(|t| format!(" token{}", (i + t) % 50)).collect(),
    };
    let node = NodeRecord {
        layer: 0,
        index,
        random_sample: (0..20).map(example).collect(),
        random_sample_by_quantile: None,
        quantile_boundaries: None,
        moments: Moments::default(),
        most_positive: (20..40).map(example).collect(),
    };
    node.to_json().expect("a record of plain numbers")
}

async fn serve(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = Vec::new();
            let mut chunk = [0; 2048];
            while let Ok(n @ 1..) = stream.read(&mut chunk).await {
                head.extend_from_slice(&chunk[..n]);
                if !head.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let text = String::from_utf8_lossy(&head);
                let name = text.split(' ').nth(1).and_then(|p| p.rsplit('/').next()).unwrap_or_default();
                let index = name.trim_end_matches(".json").parse().unwrap_or(0);
                let body = record(index);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"1\"\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n",
                    body.len()
                );
                // In one piece: two small writes would wait for each other's acknowledgement.
                if stream.write_all(&[answer.as_bytes(), &body].concat()).await.is_err() {
                    return;
                }
                head.clear();
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n: usize = std::env::args().nth(1).map_or(Ok(1000), |a| a.parse())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/records", listener.local_addr()?);
    tokio::spawn(serve(listener));
    let folder = tempfile::tempdir()?;
    let text = format!("[[records]]\nname = 'b'\nscalar = 'mlp_post_act'\ntitle = ''\nlocation = '{url}'\n");
    let registry = Registry::parse("bench", &text)?;
    let mut config = FetchConfig::from_env()?;
    (config.cache, config.offline) = (folder.path().join("cache"), false);
    let open = || Library::new(registry.clone(), Fetcher::new(config.clone(), &registry), folder.path().join("own"));
    let first = open();
    println!("{n} records of {} kB, one after the other", record(0).len() / 1000);
    for (name, library) in [("web server", first.clone()), ("disk", open()), ("memory", first)] {
        let begin = Instant::now();
        for index in 0..n {
            let request = NodeIdAndDatasets {
                dst: DerivedScalarType::MlpPostAct,
                layer_index: 0,
                activation_index: index as i64,
                datasets: vec!["b".into()],
            };
            library.neuron_record(&request).await?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!("{name:>10}: {:8.0} records/s, {:.3} ms each", n as f64 / seconds, 1e3 * seconds / n as f64);
    }
    Ok(())
}
