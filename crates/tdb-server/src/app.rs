//! The application: what all requests share, and the routes with what surrounds them.

use crate::body::Intake;
use crate::config::ServerConfig;
use crate::connection::{Caller, Connections};
use crate::controllers;
use crate::error::ApiError;
use crate::guard::{self, Names};
use crate::metrics::{Dropped, Levels, Metrics};
use crate::model::Ask;
use crate::openapi::Api;
use crate::queue::Queue;
use crate::stop::Stop;
use crate::unsent::{self, Unsent};
use crate::{observe, pages, token, ui};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::sync::Arc;
use tdb_api::stream::Events;
use tdb_api::wire::Describe;
use tdb_data::Library;
use tdb_explain::{Client, ClientConfig, Explainer};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::set_header::SetResponseHeaderLayer;

/// What all requests share, and who sent the one that is being answered. Cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
    caller: Caller,
}

struct Shared {
    model: Option<Arc<dyn Ask>>,
    library: Option<Library>,
    explainer: Option<Explainer>,
    queue: Queue,
    intake: Intake,
    unsent: Unsent,
    connections: Connections,
    metrics: Arc<Metrics>,
    stop: Stop,
    config: ServerConfig,
    names: Names,
}

impl App {
    /// # Errors
    /// If the system gives no threads.
    pub fn new(model: Option<Arc<dyn Ask>>, library: Option<Library>, config: ServerConfig) -> std::io::Result<Self> {
        let metrics: Arc<Metrics> = Arc::default();
        let shared = Arc::new(Shared {
            model,
            explainer: library.clone().map(explainer),
            library,
            queue: Queue::new(config.limits.clone(), metrics.clone())?,
            intake: Intake::new(&config.limits),
            unsent: Unsent::new(config.limits.unsent_bytes),
            connections: Connections::default(),
            metrics,
            stop: Stop::default(),
            names: Names::new(&config.hosts),
            config,
        });
        Ok(Self { shared, caller: Caller::default() })
    }

    /// The model, or why there is none.
    pub fn model(&self) -> Result<Arc<dyn Ask>, ApiError> {
        self.shared.model.clone().ok_or_else(|| {
            ApiError::NotHere("this server was started without a model; start it without --run_model False".into())
        })
    }

    /// The model, if there is one.
    pub fn maybe_model(&self) -> Option<&Arc<dyn Ask>> {
        self.shared.model.as_ref()
    }

    /// The stored records, or why there are none.
    pub fn library(&self) -> Result<&Library, ApiError> {
        self.shared.library.as_ref().ok_or_else(|| ApiError::NotHere("this server was started without records".into()))
    }

    /// What writes and scores explanations, or why there is nothing to explain.
    pub fn explainer(&self) -> Result<&Explainer, ApiError> {
        self.library()?;
        self.shared.explainer.as_ref().ok_or(ApiError::Internal)
    }

    pub fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    /// The same for a request of `caller`.
    pub(crate) fn for_caller(self, caller: Caller) -> Self {
        Self { caller, ..self }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Large bodies on their way in.
    pub(crate) fn intake(&self) -> &Intake {
        &self.shared.intake
    }

    /// Answers on their way out.
    pub(crate) fn unsent(&self) -> &Unsent {
        &self.shared.unsent
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// All metrics, as Prometheus reads them.
    pub(crate) fn metrics_text(&self) -> String {
        let (running, waiting) = self.queue().levels();
        let (connections, unsent_bytes) = (self.connections().len(), self.unsent().bytes());
        self.metrics().text(Levels { running, waiting, connections, unsent_bytes })
    }

    /// The end of the server.
    pub(crate) fn stop(&self) -> &Stop {
        &self.shared.stop
    }

    pub fn config(&self) -> &ServerConfig {
        &self.shared.config
    }

    pub fn names(&self) -> &Names {
        &self.shared.names
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
    let (index, docs) = (app.config().pages.index_text(), controllers::docs_page(&document));
    let headers = pages::headers([&*index, &*docs, ui::NO_PAGES, pages::TOKEN_FORM]);
    // Streams are sent as they come: a compressor would hold their lines back.
    let compressible = DefaultPredicate::new().and(NotForContentType::const_new(Events::MEDIA_TYPE));
    let routes = routes
        .merge(controllers::pages(document, docs))
        .fallback(controllers::not_found)
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(from_fn_with_state(app.clone(), unsent::count))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressible))
        .layer(from_fn_with_state(app.clone(), until_cut))
        .layer(from_fn_with_state(app.clone(), token::check))
        .layer(cors)
        .layer(from_fn_with_state(app.clone(), guard::check));
    let with_headers = headers
        .into_iter()
        .fold(routes, |routes, (name, value)| routes.layer(SetResponseHeaderLayer::if_not_present(name, value)));
    with_headers.layer(from_fn_with_state(app.clone(), observe::observe)).with_state(app)
}

/// Answers 503 when the server cannot wait for the request any longer.
async fn until_cut(State(app): State<App>, request: Request, next: Next) -> Response {
    tokio::select! {
        response = next.run(request) => response,
        () = app.stop().cutting() => {
            app.stop().count_cut();
            app.metrics().dropped(Dropped::Stopped);
            ApiError::Stopping.into_response()
        }
    }
}
