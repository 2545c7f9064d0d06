//! The application: what all requests share, and the routes with what surrounds them.

use crate::config::ServerConfig;
use crate::controllers;
use crate::error::ApiError;
use crate::guard::{self, Names};
use crate::model::Ask;
use crate::openapi::Api;
use crate::queue::Queue;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use bytes::Bytes;
use std::sync::Arc;
use tdb_data::Library;
use tdb_explain::{Client, ClientConfig, Explainer};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::set_header::SetResponseHeaderLayer;

/// What all requests share. Cheap to clone; nothing in it changes but the queue.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    model: Option<Arc<dyn Ask>>,
    library: Option<Library>,
    explainer: Option<Explainer>,
    queue: Queue,
    config: ServerConfig,
    names: Names,
}

impl App {
    /// # Errors
    /// If the system gives no threads.
    pub fn new(model: Option<Arc<dyn Ask>>, library: Option<Library>, config: ServerConfig) -> std::io::Result<Self> {
        let queue = Queue::new(config.limits.clone())?;
        let names = Names::new(&config.hosts);
        let explainer = library.clone().map(explainer);
        Ok(Self(Arc::new(Shared { model, library, explainer, queue, config, names })))
    }

    /// The model, or why there is none.
    pub fn model(&self) -> Result<Arc<dyn Ask>, ApiError> {
        self.0.model.clone().ok_or_else(|| {
            ApiError::NotHere("this server was started without a model; start it without --run_model False".into())
        })
    }

    /// The model, if there is one.
    pub fn maybe_model(&self) -> Option<&Arc<dyn Ask>> {
        self.0.model.as_ref()
    }

    /// The stored records, or why there are none.
    pub fn library(&self) -> Result<&Library, ApiError> {
        self.0.library.as_ref().ok_or_else(|| ApiError::NotHere("this server was started without records".into()))
    }

    /// What writes and scores explanations, or why there is nothing to explain.
    pub fn explainer(&self) -> Result<&Explainer, ApiError> {
        self.library()?;
        self.0.explainer.as_ref().ok_or(ApiError::Internal)
    }

    pub fn queue(&self) -> &Queue {
        &self.0.queue
    }

    pub fn config(&self) -> &ServerConfig {
        &self.0.config
    }

    pub fn names(&self) -> &Names {
        &self.0.names
    }
}

/// Asks the language model that the environment names, if it names one.
fn explainer(library: Library) -> Explainer {
    let client = ClientConfig::from_env().and_then(|config| match Client::new(config) {
        Ok(client) => Some(client),
        Err(error) => {
            tracing::warn!("explanations cannot be written: {error}");
            None
        }
    });
    Explainer::new(library, client)
}

/// The whole interface.
pub fn router(app: App) -> Router {
    let mut api = Api::default();
    controllers::add_all(&mut api);
    let (routes, document) = api.finish();
    let document = Bytes::from(document.to_string());
    let cors = guard::cors(app.names().clone());
    let security = |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    // Streams are sent as they come: a compressor would hold their lines back.
    let compressible = DefaultPredicate::new().and(NotForContentType::const_new("application/x-ndjson"));
    routes
        .merge(controllers::pages(document))
        .fallback(controllers::not_found)
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(app.config().limits.body_bytes))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressible))
        .layer(security(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(security(header::X_FRAME_OPTIONS, "DENY"))
        .layer(security(header::REFERRER_POLICY, "no-referrer"))
        .layer(cors)
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::check))
        .with_state(app)
}
