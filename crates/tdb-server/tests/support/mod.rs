//! A client without a network, and a model that does as the prompt says.

#![allow(clippy::unwrap_used, dead_code)] // each test file uses a part

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tdb_api::stream::TdbEvent;
use tdb_api::{
    AutoencoderInfo, BatchedRequest, BatchedResponse, BatchedTdbRequest, DictionaryFidelityRequest,
    DictionaryFidelityResponse, InferenceAndTokenData, ModelInfoResponse, ModelShape, SuggestedQuestion, Token,
};
use tdb_scalars::Observer;
use tdb_server::queue::Job;
use tdb_server::{ApiError, App, Ask, ServerConfig, router, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// The debugger's question about `prompt`.
pub fn question(prompt: &str) -> Value {
    json!({ "subRequests": [{
        "prompt": prompt, "targetTokens": [" b"], "distractorTokens": [], "componentTypeForMlp": "neuron",
        "componentTypeForAttention": "attention_head", "topAndBottomKForNodeTable": 3,
        "hideEarlyLayersWhenAblating": true,
    }] })
}

/// Answers, waits, refuses or panics, as its prompt says. Its tokens are words.
#[derive(Default)]
pub struct FakeModel {
    asked: AtomicUsize,
    computing: AtomicUsize,
    cancelled: AtomicUsize,
    released: AtomicBool,
}

impl FakeModel {
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn computing(&self) -> usize {
        self.computing.load(Ordering::SeqCst)
    }

    pub fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Lets what waits go on, now and later.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// Waits until `reached`; a test that never gets there fails.
    pub async fn until(&self, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reached(self) {
            assert!(Instant::now() < deadline, "it never came to that");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn wait(&self, observer: &dyn Observer) -> Result<(), ApiError> {
        while !self.released.load(Ordering::SeqCst) {
            if observer.is_cancelled() {
                self.cancelled.fetch_add(1, Ordering::SeqCst);
                return Err(ApiError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Ask for FakeModel {
    fn model_info(&self) -> ModelInfoResponse {
        ModelInfoResponse {
            model_name: Some("fake".into()),
            has_mlp_autoencoder: false,
            mlp_autoencoder_name: None,
            has_attention_autoencoder: false,
            attention_autoencoder_name: None,
            residual_autoencoder_name: None,
            n_layers: 1,
        }
    }

    fn device(&self) -> Option<String> {
        None
    }

    fn shape(&self) -> Option<ModelShape> {
        None
    }

    fn mlp_autoencoder(&self) -> Option<AutoencoderInfo> {
        None
    }

    fn attention_autoencoder(&self) -> Option<AutoencoderInfo> {
        None
    }

    fn beginning_of_text(&self) -> Option<Token> {
        None
    }

    fn suggested_question(&self) -> Option<SuggestedQuestion> {
        None
    }

    fn tokenize(&self, text: &str) -> Vec<Token> {
        text.split(' ').enumerate().map(|(id, text)| Token { id: id as i64, text: text.into() }).collect()
    }

    fn vocabulary(&self, _: &str, _: usize) -> Vec<Token> {
        Vec::new()
    }

    fn batched(&self, _: &BatchedRequest, _: &Job) -> Result<BatchedResponse, ApiError> {
        Err(ApiError::Bad("not asked for here".into()))
    }

    fn dictionary_fidelity(
        &self,
        _request: &DictionaryFidelityRequest,
        _job: &Job,
    ) -> Result<DictionaryFidelityResponse, ApiError> {
        Ok(DictionaryFidelityResponse { cross_entropy: 0.0, logit_difference: None, dictionaries: Vec::new() })
    }

    fn batched_tdb(&self, request: &BatchedTdbRequest, observer: &dyn Observer) -> Result<(), ApiError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.computing.fetch_add(1, Ordering::SeqCst);
        let prompt = request.sub_requests[0].prompt.as_str();
        if prompt.contains("tokens") {
            observer.event(TdbEvent::Tokens { side: 0, tokens_as_ints: vec![], tokens_as_strings: vec![] });
        }
        let outcome = match prompt {
            "panic" => panic!("as asked"),
            "refuse" => Err(ApiError::Bad("that cannot be".into())),
            prompt if prompt.contains("wait") => self.wait(observer),
            _ => Ok(()),
        };
        self.computing.fetch_sub(1, Ordering::SeqCst);
        let bytes = prompt.strip_prefix("large ").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        outcome?;
        for side in 0..request.sub_requests.len() {
            observer.event(TdbEvent::Inference { side, data: run_of(bytes) });
        }
        Ok(())
    }
}

/// A run that is told in about so many bytes.
fn run_of(bytes: usize) -> InferenceAndTokenData {
    InferenceAndTokenData {
        inference_time: 0.0,
        memory_used_before: None,
        memory_used_after: None,
        log: None,
        loss: None,
        activation_value_for_backward_pass: None,
        tokens_as_ints: vec![],
        tokens_as_strings: vec!["x".repeat(bytes)],
    }
}

/// A server that listens on a port of its own.
pub struct Listening {
    pub model: Arc<FakeModel>,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<usize>,
}

impl Listening {
    pub async fn new(config: ServerConfig) -> Self {
        let model = Arc::new(FakeModel::default());
        let app = App::new(Some(model.clone()), None, config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let ended = tokio::spawn(serve(listener, app, stopped, Duration::from_millis(300)));
        Self { model, address, stop: Some(stop), ended }
    }

    /// Stops it; how many requests were cut.
    pub async fn stop(mut self) -> usize {
        drop(self.stop.take());
        self.ended.await.unwrap()
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    /// Sends a request and reads to the end of the connection.
    pub async fn exchange(&self, request: &str) -> String {
        let mut stream = self.send(request).await;
        read_to_end(&mut stream).await
    }

    pub async fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }
}

/// All that comes until the server closes the connection.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut out = Vec::new();
    // A connection that is reset has ended, too.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut out)).await.expect("it does not end");
    String::from_utf8_lossy(&out).into_owned()
}

/// The debugger's question as it is sent.
pub fn post(prompt: &str) -> String {
    let body = question(prompt).to_string();
    let length = body.len();
    format!(
        "POST /batched_tdb HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Asks the routes directly.
pub struct Client<M = FakeModel> {
    pub model: Arc<M>,
    router: axum::Router,
}

impl<M> Clone for Client<M> {
    fn clone(&self) -> Self {
        Self { model: self.model.clone(), router: self.router.clone() }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

impl Client<FakeModel> {
    pub fn without_model() -> Self {
        let app = App::new(None, None, ServerConfig::default()).unwrap();
        Self { model: Arc::default(), router: router(app) }
    }
}

impl<M: Ask + 'static> Client<M> {
    pub fn new(model: M, config: ServerConfig) -> Self {
        let model = Arc::new(model);
        let app = App::new(Some(model.clone()), None, config).unwrap();
        Self { model, router: router(app) }
    }

    pub async fn raw(&self, path: &str, body: &Value) -> Response<Body> {
        let request = Request::post(path).header(header::HOST, "localhost").body(Body::from(body.to_string())).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(header::HeaderName, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name == header::HOST) {
            request = request.header(header::HOST, "localhost:8000");
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Body::from(body.unwrap_or_default())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str, headers: &[(header::HeaderName, &str)]) -> Answer {
        self.send(Method::GET, path, None, headers).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[]).await
    }

    pub async fn post_with(&self, path: &str, body: &Value, headers: &[(header::HeaderName, &str)]) -> Answer {
        self.send(Method::POST, path, Some(body.to_string().into_bytes()), headers).await
    }

    pub async fn post_to(self, path: &'static str, prompt: &'static str) -> Answer {
        self.post(path, &question(prompt)).await
    }

    pub async fn ask(self, prompt: &'static str) -> Answer {
        self.post_to("/batched_tdb", prompt).await
    }
}
