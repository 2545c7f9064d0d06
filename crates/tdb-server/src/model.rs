//! What is asked of a model: each kind of question with its limits, its check and its answer.

use crate::config::Limits;
use crate::error::ApiError;
use crate::queue::Job;
use serde::Serialize;
use tdb_api::wire::{Decode, Describe};
use tdb_api::{
    AutoencoderInfo, BatchedRequest, BatchedResponse, BatchedTdbRequest, DerivedAttentionScalarsRequest,
    DerivedAttentionScalarsResponse, DerivedScalarsRequest, DerivedScalarsResponse, InferenceRequestSpec,
    ModelInfoResponse, ModelShape, MultipleTopKDerivedScalarsRequest, MultipleTopKDerivedScalarsResponse,
    ProcessingRequestSpec, Token,
};
use tdb_model::{Autoencoder, AutoencoderSite};
use tdb_scalars::{Context, Engine, Records};

/// A model that can be asked. The engine is one; tests have their own.
pub trait Ask: Send + Sync {
    fn model_info(&self) -> ModelInfoResponse;
    fn shape(&self) -> Option<ModelShape>;
    fn mlp_autoencoder(&self) -> Option<AutoencoderInfo>;
    fn attention_autoencoder(&self) -> Option<AutoencoderInfo>;
    fn tokenize(&self, text: &str) -> Vec<Token>;
    /// Tokens whose text begins with `prefix`, at most `limit`, in the order of their ids.
    fn vocabulary(&self, prefix: &str, limit: usize) -> Vec<Token>;
    fn batched(&self, request: &BatchedRequest, job: &Job) -> Result<BatchedResponse, ApiError>;
    fn batched_tdb(&self, request: &BatchedTdbRequest, job: &Job) -> Result<BatchedResponse, ApiError>;
    fn derived_scalars(&self, request: &DerivedScalarsRequest, job: &Job) -> Result<DerivedScalarsResponse, ApiError>;
    fn derived_attention_scalars(
        &self,
        request: &DerivedAttentionScalarsRequest,
        job: &Job,
    ) -> Result<DerivedAttentionScalarsResponse, ApiError>;
    fn multiple_top_k(
        &self,
        request: &MultipleTopKDerivedScalarsRequest,
        job: &Job,
    ) -> Result<MultipleTopKDerivedScalarsResponse, ApiError>;
}

/// The engine with the stored records that activations are normalised by.
pub struct Model {
    engine: Engine,
    records: Box<dyn Records + Send>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("engine", &self.engine.name()).finish_non_exhaustive()
    }
}

impl Model {
    pub fn new(engine: Engine, records: Box<dyn Records + Send>) -> Self {
        Self { engine, records }
    }

    fn context<'a>(&'a self, job: &'a Job) -> Context<'a> {
        Context { observer: job, records: &*self.records }
    }
}

impl Ask for Model {
    fn model_info(&self) -> ModelInfoResponse {
        self.engine.model_info()
    }

    fn shape(&self) -> Option<ModelShape> {
        let config = self.engine.model().config();
        Some(ModelShape {
            n_layers: config.n_layers as i64,
            n_heads: config.n_heads as i64,
            d_model: config.d_model as i64,
            d_mlp: config.d_ff as i64,
            vocab_size: config.n_vocab as i64,
            context_length: config.ctx_window as i64,
        })
    }

    fn mlp_autoencoder(&self) -> Option<AutoencoderInfo> {
        let name = self.engine.model_info().mlp_autoencoder_name?;
        self.engine.model().mlp_autoencoders_any().map(|found| info(name, found))
    }

    fn attention_autoencoder(&self) -> Option<AutoencoderInfo> {
        let name = self.engine.model_info().attention_autoencoder_name?;
        self.engine.model().attn_autoencoders_any().map(|found| info(name, found))
    }

    fn tokenize(&self, text: &str) -> Vec<Token> {
        self.engine.tokenizer().encode(text).into_iter().map(|id| self.token(id)).collect()
    }

    fn vocabulary(&self, prefix: &str, limit: usize) -> Vec<Token> {
        let ids = 0..u32::try_from(self.engine.tokenizer().n_vocab()).unwrap_or(u32::MAX);
        let exact = self.engine.tokenizer().tokens_of_text(prefix).into_iter().map(|id| self.token(id));
        let longer = ids.filter(|id| self.engine.tokenizer().contains(*id)).map(|id| self.token(id));
        let longer = longer.filter(|token| token.text.starts_with(prefix) && token.text != prefix);
        exact.chain(longer).take(limit).collect()
    }

    fn batched(&self, request: &BatchedRequest, job: &Job) -> Result<BatchedResponse, ApiError> {
        Ok(self.engine.batched(request, &self.context(job))?)
    }

    fn batched_tdb(&self, request: &BatchedTdbRequest, job: &Job) -> Result<BatchedResponse, ApiError> {
        Ok(self.engine.batched_tdb(request, &self.context(job))?)
    }

    fn derived_scalars(&self, request: &DerivedScalarsRequest, job: &Job) -> Result<DerivedScalarsResponse, ApiError> {
        Ok(self.engine.derived_scalars(request, &self.context(job))?)
    }

    fn derived_attention_scalars(
        &self,
        request: &DerivedAttentionScalarsRequest,
        job: &Job,
    ) -> Result<DerivedAttentionScalarsResponse, ApiError> {
        Ok(self.engine.derived_attention_scalars(request, &self.context(job))?)
    }

    fn multiple_top_k(
        &self,
        request: &MultipleTopKDerivedScalarsRequest,
        job: &Job,
    ) -> Result<MultipleTopKDerivedScalarsResponse, ApiError> {
        Ok(self.engine.multiple_top_k_derived_scalars(request, &self.context(job))?)
    }
}

impl Model {
    fn token(&self, id: u32) -> Token {
        Token { id: i64::from(id), text: self.engine.token_text(id) }
    }
}

fn info(name: String, autoencoder: &Autoencoder) -> AutoencoderInfo {
    let site = match autoencoder.site() {
        AutoencoderSite::MlpPostAct => "mlp_post_act",
        AutoencoderSite::ResidDeltaMlp => "resid_delta_mlp",
        AutoencoderSite::ResidDeltaAttn => "resid_delta_attn",
    };
    AutoencoderInfo { name, n_latents: autoencoder.n_latents() as i64, site: site.to_owned() }
}

/// One kind of question.
pub trait Question: Decode + Describe + Send + 'static {
    type Answer: Serialize + Describe + Send + 'static;

    /// Refuses what is beyond the limits, before anything is computed.
    fn check(&self, limits: &Limits) -> Result<(), ApiError>;

    /// The prompts, each with its place in the request.
    fn prompts(&self) -> Vec<(String, &str)>;

    fn answer(&self, model: &dyn Ask, job: &Job) -> Result<Self::Answer, ApiError>;
}

/// Refuses prompts with more tokens than the limit. Done on a compute thread: tokenizing is work.
pub fn check_prompts(question: &impl Question, model: &dyn Ask, limits: &Limits) -> Result<(), ApiError> {
    // No tokenizer has tokens this long; a text beyond it is too long whatever its tokens are.
    const LONGEST_TOKEN: usize = 256;
    let limit = limits.prompt_tokens;
    for (place, prompt) in question.prompts() {
        if prompt.len() > limit.saturating_mul(LONGEST_TOKEN) {
            return Err(ApiError::Bad(format!("{place}: {} bytes are more than {limit} tokens", prompt.len())));
        }
        // Short texts cannot have more tokens than bytes.
        if prompt.len() > limit {
            let found = model.tokenize(prompt).len();
            at_most(&place, "tokens", found, limit)?;
        }
    }
    Ok(())
}

fn at_most(place: &str, what: &str, found: usize, limit: usize) -> Result<(), ApiError> {
    match found <= limit {
        true => Ok(()),
        false => Err(ApiError::Bad(format!("{place}: has {found} {what}; this server takes at most {limit}"))),
    }
}

fn check_k(place: &str, k: i64, limits: &Limits) -> Result<(), ApiError> {
    match k <= limits.top_k {
        true => Ok(()),
        false => Err(ApiError::Bad(format!("{place}: is {k}; this server takes at most {}", limits.top_k))),
    }
}

fn check_run(place: &str, run: &InferenceRequestSpec, limits: &Limits) -> Result<(), ApiError> {
    let ablations = run.ablation_specs.as_ref().map_or(0, Vec::len);
    at_most(&format!("{place}.ablationSpecs"), "entries", ablations, limits.ablations)
}

fn check_spec(place: &str, spec: &ProcessingRequestSpec, limits: &Limits) -> Result<(), ApiError> {
    use ProcessingRequestSpec as Spec;
    let (name, k) = match spec {
        Spec::MultipleTopKDerivedScalars(spec) => ("topAndBottomK", spec.top_and_bottom_k),
        Spec::DerivedScalars(spec) => ("numTopTokens", spec.num_top_tokens),
        Spec::DerivedAttentionScalars(_) => return Ok(()),
        Spec::ScoredTokens(spec) => ("numTokens", Some(spec.num_tokens)),
        Spec::TokenPairAttribution(spec) => ("numTokensAttendedTo", Some(spec.num_tokens_attended_to)),
    };
    k.map_or(Ok(()), |k| check_k(&format!("{place}.{name}"), k, limits))
}

impl Question for BatchedTdbRequest {
    type Answer = BatchedResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        at_most("subRequests", "entries", self.sub_requests.len(), limits.sub_requests)?;
        for (i, side) in self.sub_requests.iter().enumerate() {
            let ablations = side.node_ablations.as_ref().map_or(0, Vec::len);
            at_most(&format!("subRequests[{i}].nodeAblations"), "entries", ablations, limits.ablations)?;
            let place = format!("subRequests[{i}].topAndBottomKForNodeTable");
            check_k(&place, side.top_and_bottom_k_for_node_table, limits)?;
            for (name, tokens) in [("targetTokens", &side.target_tokens), ("distractorTokens", &side.distractor_tokens)]
            {
                at_most(&format!("subRequests[{i}].{name}"), "entries", tokens.len(), limits.ablations)?;
            }
        }
        Ok(())
    }

    fn prompts(&self) -> Vec<(String, &str)> {
        let place = |i| format!("subRequests[{i}].prompt");
        self.sub_requests.iter().enumerate().map(|(i, side)| (place(i), side.prompt.as_str())).collect()
    }

    fn answer(&self, model: &dyn Ask, job: &Job) -> Result<BatchedResponse, ApiError> {
        model.batched_tdb(self, job)
    }
}

impl Question for BatchedRequest {
    type Answer = BatchedResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let runs = &self.inference_sub_requests;
        at_most("inferenceSubRequests", "entries", runs.len(), limits.sub_requests)?;
        for (i, run) in runs.iter().enumerate() {
            let place = format!("inferenceSubRequests[{i}]");
            check_run(&format!("{place}.inferenceRequestSpec"), &run.inference_request_spec, limits)?;
            let specs = &run.processing_request_spec_by_name;
            let place = format!("{place}.processingRequestSpecByName");
            at_most(&place, "entries", specs.len(), limits.specs_per_run)?;
            specs.iter().try_for_each(|(name, spec)| check_spec(&format!("{place}.{name}"), spec, limits))?;
        }
        Ok(())
    }

    fn prompts(&self) -> Vec<(String, &str)> {
        let place = |i| format!("inferenceSubRequests[{i}].inferenceRequestSpec.prompt");
        let runs = self.inference_sub_requests.iter().enumerate();
        runs.map(|(i, run)| (place(i), run.inference_request_spec.prompt.as_str())).collect()
    }

    fn answer(&self, model: &dyn Ask, job: &Job) -> Result<BatchedResponse, ApiError> {
        model.batched(self, job)
    }
}

/// A question with one run and one thing asked of it.
macro_rules! single_question {
    ($request:ty => $answer:ty, $ask:ident, |$self:ident, $limits:ident| $check:expr) => {
        impl Question for $request {
            type Answer = $answer;

            fn check(&self, $limits: &Limits) -> Result<(), ApiError> {
                let $self = self;
                check_run("inferenceRequestSpec", &$self.inference_request_spec, $limits)?;
                $check
            }

            fn prompts(&self) -> Vec<(String, &str)> {
                vec![("inferenceRequestSpec.prompt".to_owned(), &self.inference_request_spec.prompt)]
            }

            fn answer(&self, model: &dyn Ask, job: &Job) -> Result<$answer, ApiError> {
                model.$ask(self, job)
            }
        }
    };
}

single_question!(DerivedScalarsRequest => DerivedScalarsResponse, derived_scalars, |question, limits| {
    let k = question.derived_scalars_request_spec.num_top_tokens;
    k.map_or(Ok(()), |k| check_k("derivedScalarsRequestSpec.numTopTokens", k, limits))
});
single_question!(
    DerivedAttentionScalarsRequest => DerivedAttentionScalarsResponse,
    derived_attention_scalars,
    |_question, _limits| Ok(())
);
single_question!(
    MultipleTopKDerivedScalarsRequest => MultipleTopKDerivedScalarsResponse,
    multiple_top_k,
    |question, limits| {
        let k = question.multiple_top_k_derived_scalars_request_spec.top_and_bottom_k;
        k.map_or(Ok(()), |k| check_k("multipleTopKDerivedScalarsRequestSpec.topAndBottomK", k, limits))
    }
);
