//! What is asked of a model.

use crate::config::Limits;
use crate::error::ApiError;
use crate::queue::Job;
use crate::suggestion::suggest;
use std::sync::OnceLock;
use tdb_api::{
    AutoencoderInfo, BatchedRequest, BatchedResponse, BatchedTdbRequest, CircuitRequest, CircuitResponse,
    ComponentRequest, ComponentWeightsResponse, DictionaryFidelityRequest, DictionaryFidelityResponse, EffectsRequest,
    HeadReadingsRequest, HeadReadingsResponse, HeadScoresResponse, LoadedDictionary, LogitLensRequest,
    LogitLensResponse, ModelInfoResponse, ModelShape, PatchRequest, SampleRequest, SuggestedQuestion, Token,
};
use tdb_model::{MlpKind, Slot};
use tdb_scalars::{Bounds, Context, Engine, Observer, Records};

/// A model that can be asked. The engine is one; tests have their own.
pub trait Ask: Send + Sync {
    fn model_info(&self) -> ModelInfoResponse;
    fn shape(&self) -> Option<ModelShape>;
    /// Where it runs: `cpu`, or a GPU by kind and number, such as `cuda:0`.
    fn device(&self) -> Option<String>;
    fn mlp_autoencoder(&self) -> Option<AutoencoderInfo>;
    fn attention_autoencoder(&self) -> Option<AutoencoderInfo>;
    fn residual_autoencoder(&self) -> Option<AutoencoderInfo> {
        None
    }
    /// The token that texts begin with in the way of the model's kind.
    fn beginning_of_text(&self) -> Option<Token>;
    /// A question that the model can know.
    fn suggested_question(&self) -> Option<SuggestedQuestion>;
    fn tokenize(&self, text: &str) -> Vec<Token>;
    /// Tokens whose text begins with `prefix`, at most `limit`, in the order of their ids.
    fn vocabulary(&self, prefix: &str, limit: usize) -> Vec<Token>;
    fn batched(&self, request: &BatchedRequest, job: &Job) -> Result<BatchedResponse, ApiError>;
    /// Part by part to the observer; what is sent adds up to the answer. So do effects and patches.
    fn batched_tdb(&self, request: &BatchedTdbRequest, observer: &dyn Observer) -> Result<(), ApiError>;
    fn dictionary_fidelity(
        &self,
        request: &DictionaryFidelityRequest,
        job: &Job,
    ) -> Result<DictionaryFidelityResponse, ApiError>;
    fn effects(&self, _: &EffectsRequest, _: &dyn Observer) -> Result<(), ApiError> {
        Err(without("effects"))
    }
    fn circuit(&self, _: &CircuitRequest, _: &Job) -> Result<CircuitResponse, ApiError> {
        Err(without("circuits"))
    }
    fn patch(&self, _: &PatchRequest, _: &dyn Observer) -> Result<(), ApiError> {
        Err(without("patches"))
    }
    fn logit_lens(&self, _: &LogitLensRequest, _: &Job) -> Result<LogitLensResponse, ApiError> {
        Err(without("a logit lens"))
    }
    fn component_weights(&self, _: &ComponentRequest, _: &Job) -> Result<ComponentWeightsResponse, ApiError> {
        Err(without("weights"))
    }
    fn head_scores(&self, _: &ComponentRequest, _: &Job) -> Result<HeadScoresResponse, ApiError> {
        Err(without("heads"))
    }
    fn head_readings(&self, _: &HeadReadingsRequest, _: &Job) -> Result<HeadReadingsResponse, ApiError> {
        Err(without("heads"))
    }
    /// Draws tokens; each is an event.
    fn sample(&self, _: &SampleRequest, _: &dyn Observer) -> Result<(), ApiError> {
        Err(without("sampling"))
    }
}

/// What a model that is not an engine answers.
fn without(what: &str) -> ApiError {
    ApiError::NotHere(format!("this model has no {what}"))
}

/// The engine with the stored records that activations are normalised by.
pub struct Model {
    engine: Engine,
    records: Box<dyn Records + Send>,
    bounds: Bounds,
    /// Made when it is first asked for.
    suggestion: OnceLock<Option<SuggestedQuestion>>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("engine", &self.engine.name()).finish_non_exhaustive()
    }
}

impl Model {
    pub fn new(engine: Engine, records: Box<dyn Records + Send>) -> Self {
        Self { engine, records, bounds: Limits::default().bounds, suggestion: OnceLock::new() }
    }

    /// With other bounds than the default.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    fn context<'a>(&'a self, observer: &'a dyn Observer) -> Context<'a> {
        Context { observer, records: &*self.records, bounds: self.bounds }
    }
}

impl Ask for Model {
    fn model_info(&self) -> ModelInfoResponse {
        self.engine.model_info()
    }

    fn device(&self) -> Option<String> {
        Some(self.engine.model().device_name())
    }

    fn shape(&self) -> Option<ModelShape> {
        let config = self.engine.model().config();
        Some(ModelShape {
            n_layers: config.n_layers as i64,
            n_heads: config.n_heads as i64,
            d_model: config.d_model as i64,
            d_mlp: config.d_ff as i64,
            vocab_size: config.n_vocab as i64,
            mlp_is_gated: matches!(config.mlp, MlpKind::Gated(_)),
            context_length: config.ctx_window as i64,
        })
    }

    fn mlp_autoencoder(&self) -> Option<AutoencoderInfo> {
        let name = self.engine.model_info().mlp_autoencoder_name?;
        self.dictionary(name, Slot::Mlp)
    }

    fn attention_autoencoder(&self) -> Option<AutoencoderInfo> {
        let name = self.engine.model_info().attention_autoencoder_name?;
        self.dictionary(name, Slot::Attention)
    }

    fn residual_autoencoder(&self) -> Option<AutoencoderInfo> {
        let name = self.engine.model_info().residual_autoencoder_name?;
        self.dictionary(name, Slot::Residual)
    }

    fn beginning_of_text(&self) -> Option<Token> {
        self.engine.beginning().map(|id| self.token(id))
    }

    fn suggested_question(&self) -> Option<SuggestedQuestion> {
        self.suggestion.get_or_init(|| suggest(&self.engine)).clone()
    }

    fn tokenize(&self, text: &str) -> Vec<Token> {
        self.engine.tokenizer().encode(text).into_iter().map(|id| self.token(id)).collect()
    }

    fn vocabulary(&self, prefix: &str, limit: usize) -> Vec<Token> {
        let tokenizer = self.engine.tokenizer();
        let exact = tokenizer.tokens_of_text(prefix).into_iter().map(|id| self.token(id));
        let longer = tokenizer.tokens_beginning_with(prefix).map(|id| self.token(id));
        exact.chain(longer.filter(|token| token.text != prefix)).take(limit).collect()
    }

    fn batched(&self, request: &BatchedRequest, job: &Job) -> Result<BatchedResponse, ApiError> {
        Ok(self.engine.batched(request, &self.context(job))?)
    }

    fn circuit(&self, request: &CircuitRequest, job: &Job) -> Result<CircuitResponse, ApiError> {
        Ok(self.engine.circuit(request, &self.context(job))?)
    }

    fn logit_lens(&self, request: &LogitLensRequest, job: &Job) -> Result<LogitLensResponse, ApiError> {
        Ok(self.engine.logit_lens(request, &self.context(job))?)
    }

    fn component_weights(&self, request: &ComponentRequest, _: &Job) -> Result<ComponentWeightsResponse, ApiError> {
        Ok(self.engine.component_weights(request)?)
    }

    fn head_scores(&self, request: &ComponentRequest, job: &Job) -> Result<HeadScoresResponse, ApiError> {
        Ok(self.engine.head_scores(request, &self.context(job))?)
    }

    fn head_readings(&self, request: &HeadReadingsRequest, job: &Job) -> Result<HeadReadingsResponse, ApiError> {
        Ok(self.engine.head_readings(request, &self.context(job))?)
    }

    fn sample(&self, request: &SampleRequest, observer: &dyn Observer) -> Result<(), ApiError> {
        Ok(self.engine.sample(request, &self.context(observer))?)
    }

    fn batched_tdb(&self, request: &BatchedTdbRequest, observer: &dyn Observer) -> Result<(), ApiError> {
        Ok(self.engine.send_batched_tdb(request, &self.context(observer))?)
    }

    fn dictionary_fidelity(
        &self,
        request: &DictionaryFidelityRequest,
        job: &Job,
    ) -> Result<DictionaryFidelityResponse, ApiError> {
        Ok(self.engine.dictionary_fidelity(request, &self.context(job))?)
    }

    fn effects(&self, request: &EffectsRequest, observer: &dyn Observer) -> Result<(), ApiError> {
        Ok(self.engine.send_effects(request, &self.context(observer))?)
    }

    fn patch(&self, request: &PatchRequest, observer: &dyn Observer) -> Result<(), ApiError> {
        Ok(self.engine.send_patch(request, &self.context(observer))?)
    }
}

impl Model {
    fn dictionary(&self, name: String, slot: Slot) -> Option<AutoencoderInfo> {
        let model = self.engine.model();
        let found = model.any_autoencoder(slot)?;
        Some(AutoencoderInfo {
            name,
            n_latents: found.n_latents() as i64,
            site: found.site().name().to_owned(),
            layers: model.layers_with(slot).map(|layer| layer as i64).collect(),
            normalization: found.weights().normalization.name().to_owned(),
            has_skip: found.weights().skip.is_some(),
            dictionaries: self
                .engine
                .dictionaries(slot)
                .map(|found| LoadedDictionary {
                    name: found.name.clone(),
                    layers: found.layers.iter().map(|layer| *layer as i64).collect(),
                })
                .collect(),
        })
    }

    fn token(&self, id: u32) -> Token {
        Token { id: i64::from(id), text: self.engine.token_text(id) }
    }
}
