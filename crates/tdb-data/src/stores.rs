//! From a location to the store it is in.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, http::HttpBuilder, path::Path,
};

use crate::{
    Error, Location, Result, StoreEntry,
    connector::{Connector, UNASKED_PART},
    location::Root,
};

/// Opens stores and keeps them, with their connections.
#[derive(Debug)]
pub(crate) struct Stores {
    settings: Vec<StoreEntry>,
    /// Where Hugging Face repositories are served, without a trailing slash.
    hugging_face: String,
    hugging_face_token: Option<String>,
    /// Give up waiting for the next byte after this long.
    read_timeout: Duration,
    retry: RetryConfig,
    open: Mutex<HashMap<Root, Arc<dyn ObjectStore>>>,
}

impl Stores {
    pub fn new(
        settings: Vec<StoreEntry>,
        hugging_face: String,
        hugging_face_token: Option<String>,
        read_timeout: Duration,
    ) -> Self {
        // One provider for every TLS connection of the process. It fails only if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hugging_face = hugging_face.trim_end_matches('/').to_string();
        Self { settings, hugging_face, hugging_face_token, read_timeout, retry: no_retries(), open: Mutex::default() }
    }

    /// The same stores for folders that are written to: an upload may take its time.
    pub fn for_writing(&self) -> Self {
        self.retrying(UPLOAD_TIMEOUT)
    }

    /// The same stores, where requests are tried again by themselves.
    pub fn retrying(&self, read_timeout: Duration) -> Self {
        Self {
            settings: self.settings.clone(),
            hugging_face: self.hugging_face.clone(),
            hugging_face_token: self.hugging_face_token.clone(),
            read_timeout,
            retry: RetryConfig { max_retries: 8, retry_timeout: read_timeout, ..RetryConfig::default() },
            open: Mutex::default(),
        }
    }

    /// The store of `location` and the path in it. Local locations have none.
    pub fn open(&self, location: &Location) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let path = match location.root() {
            Root::HuggingFace { repository, revision } => {
                format!("{repository}/resolve/{revision}/{}", location.path())
            }
            Root::HuggingFaceInfo { repository, revision } => format!("api/models/{repository}/revision/{revision}"),
            _ => location.path().to_string(),
        };
        let path = Path::parse(&path).or_else(|_| Path::from_url_path(&path)).map_err(|e| config(location, &e))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(location.root()) {
            return Ok((store.clone(), path));
        }
        let store = self.build(location)?;
        open.insert(location.root().clone(), store.clone());
        Ok((store, path))
    }

    fn build(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        let text = location.to_string();
        let setting = self.settings.iter().find(|s| text.starts_with(&s.prefix));
        let anonymous = setting.is_some_and(|s| s.anonymous);
        let variable = |names: &[&str]| names.iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()));
        let has = |names: &[&str]| variable(names).is_some();
        let endpoint = setting.and_then(|s| s.endpoint.clone()).or_else(|| match location.root() {
            Root::Azure { .. } => variable(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]),
            Root::S3(_) => variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]),
            Root::Gcs(_) => variable(&["GOOGLE_BASE_URL"]).or_else(|| {
                // Google's own tools read this, with or without a scheme.
                let host = variable(&["STORAGE_EMULATOR_HOST"])?;
                Some(if host.contains("://") { host } else { format!("http://{host}") })
            }),
            _ => None,
        });
        // Whoever writes http:// means it.
        let plain = |address: &str| address.starts_with("http://");
        let allow_http =
            setting.is_some_and(|s| s.allow_http) || plain(&text) || endpoint.as_deref().is_some_and(plain);
        let store: Arc<dyn ObjectStore> = match location.root() {
            Root::Http(origin) => Arc::new(self.http(origin, None).map_err(|e| config(location, &e))?),
            Root::HuggingFace { .. } | Root::HuggingFaceInfo { .. } => {
                let token = self.hugging_face_token.as_deref();
                Arc::new(self.http(&self.hugging_face, token).map_err(|e| config(location, &e))?)
            }
            Root::Azure { account, container } => {
                let signed = has(&[
                    "AZURE_STORAGE_ACCOUNT_KEY",
                    "AZURE_STORAGE_ACCESS_KEY",
                    "AZURE_STORAGE_SAS_TOKEN",
                    "AZURE_STORAGE_SAS_KEY",
                    "AZURE_CLIENT_ID",
                    "AZURE_STORAGE_CLIENT_ID",
                ]);
                let mut builder = MicrosoftAzureBuilder::from_env()
                    .with_account(account)
                    .with_container_name(container)
                    .with_skip_signature(anonymous || !signed)
                    .with_retry(self.retry.clone())
                    .with_http_connector(Connector { drop_dates: false })
                    .with_client_options(self.client(allow_http));
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                Arc::new(builder.build().map_err(|e| config(location, &e))?)
            }
            Root::S3(bucket) => {
                let signed = has(&[
                    "AWS_ACCESS_KEY_ID",
                    "AWS_WEB_IDENTITY_TOKEN_FILE",
                    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                ]);
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_skip_signature(anonymous || !signed)
                    .with_retry(self.retry.clone())
                    .with_http_connector(Connector { drop_dates: false })
                    .with_client_options(self.client(allow_http));
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(region) = setting.and_then(|s| s.region.clone()) {
                    builder = builder.with_region(region);
                }
                Arc::new(builder.build().map_err(|e| config(location, &e))?)
            }
            Root::Gcs(bucket) => {
                let signed = has(&["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"]);
                let mut builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(bucket)
                    .with_skip_signature(anonymous || !signed)
                    .with_retry(self.retry.clone())
                    .with_http_connector(Connector { drop_dates: false })
                    .with_client_options(self.client(allow_http));
                if let Some(endpoint) = endpoint {
                    builder = builder.with_base_url(&endpoint);
                }
                Arc::new(builder.build().map_err(|e| config(location, &e))?)
            }
            Root::Local | Root::Embedded => {
                return Err(Error::Config(format!("{location} is on this machine and needs no store")));
            }
        };
        Ok(store)
    }

    fn http(&self, base: &str, token: Option<&str>) -> object_store::Result<object_store::http::HttpStore> {
        let mut client = self.client(base.starts_with("http://"));
        if let Some(token) = token.and_then(|t| format!("Bearer {t}").parse().ok()) {
            let mut headers = object_store::HeaderMap::new();
            headers.insert("authorization", token);
            client = client.with_default_headers(headers);
        }
        let builder = HttpBuilder::new().with_url(base).with_http_connector(Connector { drop_dates: true });
        builder.with_retry(self.retry.clone()).with_client_options(client).build()
    }

    fn client(&self, allow_http: bool) -> ClientOptions {
        ClientOptions::new()
            .with_allow_http(allow_http)
            .with_connect_timeout(Duration::from_secs(10))
            .with_timeout_disabled()
            .with_read_timeout(self.read_timeout)
            .with_pool_max_idle_per_host(64)
    }
}

/// A store may be silent this long while it takes a file.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Retrying of what is fetched into the cache is done in one place, [`crate::fetch`], which also resumes.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

fn config(location: &Location, error: &dyn std::error::Error) -> Error {
    Error::Config(format!("{location} cannot be opened: {error}"))
}

/// Of an answer without a length, such as one in chunks. Where the connection's end is the file's end, a broken one
/// could not be told from a whole one.
const NO_LENGTH: &str = "the server does not say how long the file is (it sends no Content-Length)";

/// What a failed request means.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Not there: asking again will not help.
    NotFound,
    /// Refused: asking again will not help.
    Denied(String),
    /// Another file than the one that was begun, or a server that cannot begin in the middle: start anew.
    Changed,
    /// No connection could be made.
    Connect(String),
    /// Worth another try.
    Transient(String),
    /// Wrong in itself.
    Fatal(String),
}

impl Failure {
    pub fn of(error: &object_store::Error) -> Self {
        let text = chain(error);
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Self::Denied(text)
            }
            object_store::Error::Precondition { .. } | object_store::Error::NotSupported { .. } => Self::Changed,
            object_store::Error::InvalidPath { .. } => Self::Fatal(text),
            _ => match (status(&text), http_kind(error)) {
                (Some(404 | 410), _) => Self::NotFound,
                (Some(416), _) => Self::Changed,
                (Some(408 | 425 | 429 | 500..), _) => Self::Transient(text),
                (Some(401 | 403), _) => Self::Denied(text),
                (Some(_), _) => Self::Fatal(text),
                (None, Some(object_store::client::HttpErrorKind::Connect)) => Self::Connect(root_cause(error)),
                (None, _) if ["non-partial", "Content-Range", "Wanted range"].iter().any(|t| text.contains(t)) => {
                    Self::Changed
                }
                (None, _) if text.contains("Content-Length Header missing") => Self::Fatal(NO_LENGTH.into()),
                (None, _) if text.contains("Content-Length") || text.contains(UNASKED_PART) => Self::Fatal(text),
                (None, _) => Self::Transient(text),
            },
        }
    }
}

/// The error and its causes on one line, without saying anything twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    // Bodies of error pages can be long and have line breaks.
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = text.char_indices().nth(400) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What it all came from, such as that a name could not be resolved.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The HTTP status; the library's own error type for it is private, so it is read from the text.
fn status(text: &str) -> Option<u16> {
    let rest = text.split("status code: ").nth(1)?;
    rest.get(..3)?.parse().ok()
}

fn http_kind(error: &object_store::Error) -> Option<object_store::client::HttpErrorKind> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = next {
        if let Some(http) = e.downcast_ref::<object_store::client::HttpError>() {
            return Some(http.kind());
        }
        next = e.source();
    }
    None
}
