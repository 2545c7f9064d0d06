//! What is known of the server, and whether it is there.

use std::time::Duration;

use leptos::prelude::*;
use tdb_api::page::{ModelSlug, NodePage, NodePageKind};
use tdb_api::{ModelInfoResponse, NeuronDatasetMetadata, NodeType, ServerInfoResponse, routes};

use crate::client::{self, Kind, Problem};
use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::signals::{Peek, RwSignal};
use crate::tasks::spawn;
use crate::ui::Notices;

/// How often an unreachable server is tried again, and how often a present one is looked at.
const RETRY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq)]
pub enum Health {
    Unknown,
    Present,
    Absent(Problem),
}

/// The model and its server.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub model: ModelInfoResponse,
    /// Shapes and limits; the reference's server does not tell them.
    pub server: Option<ServerInfoResponse>,
    /// Whether explanations can be asked for here.
    pub explains: bool,
    /// Whether new ones can be written.
    pub writes_explanations: bool,
    /// Registered sets of records: name and scalar. `None` if the server does not tell.
    pub records: Option<Vec<NeuronDatasetMetadata>>,
}

impl Facts {
    /// The model and its autoencoders, as paths name them; `None` when the server runs without a model.
    pub fn slug(&self) -> Option<ModelSlug> {
        ModelSlug::from_info(&self.model)
    }

    /// The text of the token that texts begin with in the way of this model's kind; empty if there is none. The
    /// reference's server, which does not tell, has GPT-2s.
    pub fn beginning_of_text(&self) -> String {
        match &self.server {
            Some(server) => server.beginning_of_text.as_ref().map(|token| token.text.clone()).unwrap_or_default(),
            None => "<|endoftext|>".to_owned(),
        }
    }

    /// Whether examples of this node may be stored here.
    pub fn may_have_records(&self, node: &NodePage) -> bool {
        let (Some(records), Some(name)) = (&self.records, node.dataset_name()) else { return true };
        records
            .iter()
            .any(|r| r.short_name == name && NodePageKind::of_records(&r.derived_scalar_type) == Some(node.kind))
    }

    /// Number of layers, and of units in a layer, of this type of node: what a node picker may offer.
    pub fn extent(&self, node_type: NodeType) -> (Option<i64>, Option<i64>) {
        let layers = (self.model.n_layers > 0).then_some(self.model.n_layers);
        let Some(server) = &self.server else { return (layers, None) };
        let shape = server.shape.as_ref();
        let latents = |a: &Option<tdb_api::AutoencoderInfo>| a.as_ref().map(|a| a.n_latents);
        let units = match node_type {
            NodeType::AttentionHead => shape.map(|s| s.n_heads),
            NodeType::MlpNeuron => shape.map(|s| s.d_mlp),
            NodeType::ResidualStreamChannel => shape.map(|s| s.d_model),
            NodeType::MlpAutoencoderLatent => latents(&server.mlp_autoencoder),
            NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => {
                latents(&server.attention_autoencoder)
            }
            NodeType::ResidualAutoencoderLatent => latents(&server.residual_autoencoder),
            NodeType::AutoencoderLatent => latents(&server.mlp_autoencoder).or(latents(&server.attention_autoencoder)),
            NodeType::VocabToken => shape.map(|s| s.vocab_size),
            _ => None,
        };
        (layers, units)
    }
}

#[derive(Clone, Copy)]
pub struct Server {
    pub health: RwSignal<Health>,
    pub facts: RwSignal<Option<Facts>>,
    /// Set while a long question is being computed: a server that computes may be slow to say that it is there.
    pub busy: RwSignal<bool>,
    looking: StoredValue<bool>,
    /// When it is looked at next.
    timer: StoredValue<Option<TimeoutHandle>>,
    /// How often it was lost of late, and when last.
    losses: StoredValue<(u32, f64)>,
    notices: Notices,
}

impl Server {
    pub fn provide() {
        let server = Self {
            health: RwSignal::new(Health::Unknown),
            facts: RwSignal::new(None),
            busy: RwSignal::new(false),
            looking: StoredValue::new(false),
            timer: StoredValue::new(None),
            losses: StoredValue::new((0, f64::NEG_INFINITY)),
            notices: Notices::get(),
        };
        provide_context(server);
        server.look();
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// Another call had no answer, or not the whole of one. A question without any answer is asked again when the
    /// server is back, later each time; one whose answer broke off only if the server is gone, as it would break off
    /// again.
    pub fn lost(self, problem: &Problem) {
        if self.health.get_untracked() != Health::Present {
            return;
        }
        match problem.kind {
            Kind::Unreachable => {
                self.health.set(Health::Absent(problem.clone()));
                self.look_after(self.pause());
            }
            Kind::CutOff => self.look(),
            _ => {}
        }
    }

    /// None at first, twice as long each time while the server is lost again within a minute.
    fn pause(self) -> Duration {
        let (before, last) = self.losses.get_value();
        let now = dom::now();
        let n = if now - last > 60_000.0 { 0 } else { before };
        self.losses.set_value((n + 1, now));
        if n == 0 { Duration::ZERO } else { RETRY * 2u32.pow(n.min(5) - 1) }
    }

    /// Looks now, and goes on looking.
    pub fn look(self) {
        if self.looking.get_value() {
            return;
        }
        self.looking.set_value(true);
        spawn(async move {
            let found = ask().await;
            self.looking.set_value(false);
            let was = self.health.get_untracked();
            let wait = match found {
                Ok(facts) => {
                    if self.facts.peek(|f| f.as_ref() != Some(&facts)) {
                        self.facts.set(Some(facts));
                    }
                    if was != Health::Present {
                        self.health.set(Health::Present);
                        if matches!(was, Health::Absent(_)) {
                            self.notices.say("The server is back.");
                        }
                    }
                    LOOK
                }
                Err(problem) => {
                    let now = Health::Absent(problem);
                    if was != now {
                        self.health.set(now);
                    }
                    RETRY
                }
            };
            self.look_after(wait);
        });
    }

    /// Looks after a while, rather than when it would have.
    fn look_after(self, wait: Duration) {
        let look = move || {
            let hidden = dom::document().is_some_and(|d| d.hidden());
            // A busy or unwatched page does not ask; it looks again later.
            if self.busy.get_untracked() || (hidden && wait == LOOK) { self.look_after(wait) } else { self.look() }
        };
        let timer = set_timeout_with_handle(look, wait).ok();
        if let Some(before) = self.timer.try_update_value(|next| std::mem::replace(next, timer)).flatten() {
            before.clear();
        }
    }
}

async fn ask() -> Result<Facts, Problem> {
    let model = client::call::<routes::ModelInfo>(&(), None).await?;
    // The reference's server has no such route; there shapes stay unknown, and explanations, which may cost, are not
    // asked for.
    let server = client::call::<routes::Info>(&(), None).await.ok();
    let explains = server.is_some();
    let writes_explanations = server.as_ref().is_some_and(|s| s.writes_explanations);
    let records = client::call::<routes::NeuronDatasetsMetadata>(&(), None).await.ok();
    Ok(Facts { model, server, explains, writes_explanations, records })
}
