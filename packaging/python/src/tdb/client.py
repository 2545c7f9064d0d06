"""The interface of `tdb serve`, typed. Made by generate.py from /openapi.json: do not edit."""

from __future__ import annotations

from typing import Any, Iterator, Literal, Required, TypedDict, Union

from .transport import Transport


AblateTo = Literal['zero', 'prompt_mean', 'collated_mean']


class AblationSpec(TypedDict, total=False):
    """Entries of a tensor that are set to a value during the run."""

    index: Required['MirroredActivationIndex']
    value: Required[float]


ActivationLocationType = Literal['resid.post_emb', 'resid.delta_attn', 'resid.post_attn', 'resid.delta_mlp', 'resid.post_mlp', 'resid.post_mlp_ln', 'resid.post_attn_ln', 'resid.post_ln_f', 'mlp_ln.scale', 'attn_ln.scale', 'resid.ln_f.scale', 'attn.q', 'attn.k', 'attn.v', 'attn.qk_logits', 'attn.qk_probs', 'attn.v_out', 'mlp.pre_act', 'mlp.post_act', 'logits', 'online_autoencoder_latent', 'online_mlp_autoencoder_latent', 'online_attention_autoencoder_latent', 'online_residual_autoencoder_latent', 'online_mlp_autoencoder_error', 'online_residual_mlp_autoencoder_error', 'online_residual_attention_autoencoder_error', 'online_residual_autoencoder_error']


class AlignedTokens(TypedDict, total=False):
    """A token of the first prompt and the one of the second that stands for it."""

    left: Required[int]
    right: Required[int]


class AttentionHeadRecordResponse(TypedDict, total=False):
    """Examples of a component with one scalar for each pair of tokens."""

    dataset: Required[str]
    maxAttentionActivation: Required[float]
    mostPositiveTokenSequences: Required[list[list['TokenAndAttentionScalars']]]
    randomTokenSequences: Required[list[list['TokenAndAttentionScalars']]]


AttentionTraceType = Literal['Q', 'K', 'QK', 'V']


class AttributedScoredExplanation(TypedDict, total=False):
    """A stored explanation: the reference's fields, and beside them where it comes from, as far as its file says so."""

    explanation: Required[str]
    score: float
    datasetName: Required[str]
    method: str
    scoreMethod: str
    scoreKind: 'ScoreKind'
    model: str
    date: str


class AutoencoderInfo(TypedDict, total=False):
    """An autoencoder that the server has."""

    name: Required[str]
    nLatents: Required[int]
    site: Required[str]
    layers: Required[list[int]]
    normalization: Required[str]
    hasSkip: Required[bool]
    dictionaries: Required[list['LoadedDictionary']]


class BatchedRequest(TypedDict, total=False):
    """Several runs."""

    inferenceSubRequests: Required[list['InferenceSubRequest']]


class BatchedResponse(TypedDict, total=False):
    """Their answers, in the order of the request."""

    inferenceSubResponses: Required[list['InferenceResponseAndResponseDict']]


class BatchedTdbRequest(TypedDict, total=False):
    """One side, or two to be compared: their node tables hold the same nodes."""

    subRequests: Required[list['TdbRequestSpec']]
    alignment: list['AlignedTokens']
    checks: bool


class Check(TypedDict, total=False):
    """One check of an answer: what was found, and what it may be at most."""

    name: Required['CheckName']
    passed: Required[bool]
    found: Required[float]
    limit: Required[float]
    sentence: Required[str]


CheckName = Literal['sum', 'writes', 'identity', 'difference', 'whole', 'gradient', 'sharing', 'dictionary']


CircuitEdge = TypedDict('CircuitEdge', {
    'from': Required[int],
    'to': int,
    'through': 'AttentionTraceType',
    'weight': Required[float],
}, total=False)


class CircuitRequest(TypedDict, total=False):
    """Which nodes of the run that answers the debugger's question are a circuit, and what all others are set to."""

    prompt: Required[str]
    targetTokens: Required[list['TokenRef']]
    distractorTokens: Required[list['TokenRef']]
    componentTypeForMlp: 'ComponentTypeForMlp'
    componentTypeForAttention: 'ComponentTypeForAttention'
    residualCutLayer: int
    nodeAblations: list['NodeAblation']
    nodes: Required[list['MirroredNodeIndex']]
    ablateTo: 'AblateTo'


class CircuitResponse(TypedDict, total=False):
    """A circuit's edges, and the objective with and without it."""

    objective: Required[float]
    kept: Required[float]
    removed: Required[float]
    empty: Required[float]
    faithfulness: float
    estimates: Required[list[float]]
    edges: Required[list['CircuitEdge']]


class ComponentRequest(TypedDict, total=False):
    """Names a neuron, latent or head."""

    nodeType: Required['NodeType']
    layerIndex: Required[int]
    activationIndex: Required[int]


ComponentTypeForAttention = Literal['attention_head', 'autoencoder_latent']


ComponentTypeForMlp = Literal['neuron', 'autoencoder_latent']


class ComponentWeightsResponse(TypedDict, total=False):
    """A neuron or latent by its weights."""

    writeNorm: Required[float]
    neighbours: Required[list['WeightedComponent']]
    upstream: Required[list['WeightedComponent']]
    downstream: Required[list['WeightedComponent']]
    logitEffects: Required['Histogram']
    promoted: Required[list['TokenAndScalar']]
    suppressed: Required[list['TokenAndScalar']]


class DerivedAttentionScalarsRequest(TypedDict, total=False):
    """A run and a derived scalar of token pairs to be read off it."""

    inferenceRequestSpec: Required['InferenceRequestSpec']
    derivedAttentionScalarsRequestSpec: Required['DerivedAttentionScalarsRequestSpec']


class DerivedAttentionScalarsRequestSpec(TypedDict, total=False):
    """One derived scalar of one component, at every pair of tokens."""

    specType: Literal['derived_attention_scalars_request_spec']
    dst: Required['DerivedScalarType']
    layerIndex: int
    activationIndex: Required[int]
    normalizeActivationsUsingNeuronRecord: 'NodeIdAndDatasets'


class DerivedAttentionScalarsResponse(TypedDict, total=False):
    """What the run tells about itself, and the scalars."""

    inferenceAndTokenData: Required['InferenceAndTokenData']
    derivedAttentionScalarsResponseData: Required['DerivedAttentionScalarsResponseData']


class DerivedAttentionScalarsResponseData(TypedDict, total=False):
    """The values of one component at every pair of tokens."""

    responseDataType: Literal['derived_attention_scalars_response_data']
    tokenAndAttentionScalarsList: Required[list['TokenAndAttentionScalars']]


DerivedScalarType = Literal['logits', 'resid_post_embedding', 'mlp_pre_act', 'mlp_post_act', 'resid_delta_mlp', 'resid_post_mlp', 'attn_query', 'attn_key', 'attn_value', 'attn_qk_logits', 'attn_qk_probs', 'attn_weighted_sum_of_values', 'resid_delta_attn', 'resid_post_attn', 'resid_final_layer_norm_scale', 'attn_input_layer_norm_scale', 'mlp_input_layer_norm_scale', 'online_autoencoder_latent', 'attn_write_norm', 'flattened_attn_post_softmax', 'attn_act_times_grad', 'resid_delta_mlp_from_mlp_post_act', 'mlp_write_norm', 'mlp_act_times_grad', 'autoencoder_latent', 'autoencoder_write_norm', 'mlp_write_to_final_residual_grad', 'attn_write_norm_per_sequence_token', 'attn_write_to_final_residual_grad_per_sequence_token', 'attn_act_times_grad_per_sequence_token', 'resid_post_embedding_norm', 'resid_post_mlp_norm', 'mlp_layer_write_norm', 'resid_post_attn_norm', 'attn_layer_write_norm', 'resid_post_embedding_proj_to_final_residual_grad', 'resid_post_mlp_proj_to_final_residual_grad', 'mlp_layer_write_to_final_residual_grad', 'resid_post_attn_proj_to_final_residual_grad', 'attn_layer_write_to_final_residual_grad', 'unflattened_attn_act_times_grad', 'unflattened_attn_write_norm', 'unflattened_attn_write_to_final_residual_grad', 'attn_write_to_final_residual_grad', 'online_autoencoder_act_times_grad', 'online_autoencoder_write_norm', 'online_autoencoder_write_to_final_residual_grad', 'online_mlp_autoencoder_error', 'online_residual_mlp_autoencoder_error', 'online_residual_attention_autoencoder_error', 'online_mlp_autoencoder_error_act_times_grad', 'online_mlp_autoencoder_error_write_norm', 'online_mlp_autoencoder_error_write_to_final_residual_grad', 'attn_write', 'attn_write_sum_heads', 'mlp_write', 'online_autoencoder_write', 'attn_weighted_value', 'previous_layer_resid_post_mlp', 'mlp_write_to_final_activation_residual_grad', 'unflattened_attn_write_to_final_activation_residual_grad', 'online_autoencoder_write_to_final_activation_residual_grad', 'resid_post_embedding_proj_to_final_activation_residual_grad', 'autoencoder_latent_grad_wrt_residual_input', 'autoencoder_latent_grad_wrt_mlp_post_act_input', 'attn_write_to_latent', 'attn_write_to_latent_summed_over_heads', 'flattened_attn_write_to_latent_summed_over_heads', 'flattened_attn_write_to_latent_summed_over_heads_batched', 'attn_write_to_latent_per_sequence_token', 'attn_write_to_latent_per_sequence_token_batched', 'token_attribution', 'single_node_write', 'grad_of_single_subnode_attribution', 'attn_out_edge_attribution', 'mlp_out_edge_attribution', 'online_autoencoder_out_edge_attribution', 'attn_query_in_edge_attribution', 'attn_key_in_edge_attribution', 'attn_value_in_edge_attribution', 'mlp_in_edge_attribution', 'online_autoencoder_in_edge_attribution', 'token_out_edge_attribution', 'single_node_write_to_final_residual_grad', 'vocab_token_write_to_input_direction', 'always_one', 'attn_query_in_edge_activation', 'attn_key_in_edge_activation', 'mlp_in_edge_activation', 'online_autoencoder_in_edge_activation', 'mlp_autoencoder_latent', 'mlp_autoencoder_write_norm', 'online_mlp_autoencoder_latent', 'online_mlp_autoencoder_write', 'online_mlp_autoencoder_write_norm', 'online_mlp_autoencoder_act_times_grad', 'online_mlp_autoencoder_write_to_final_residual_grad', 'online_mlp_autoencoder_write_to_final_activation_residual_grad', 'attention_autoencoder_latent', 'attention_autoencoder_write_norm', 'online_attention_autoencoder_latent', 'online_attention_autoencoder_write', 'online_attention_autoencoder_write_norm', 'online_attention_autoencoder_act_times_grad', 'online_attention_autoencoder_write_to_final_residual_grad', 'online_attention_autoencoder_write_to_final_activation_residual_grad', 'residual_autoencoder_latent', 'residual_autoencoder_write_norm', 'online_residual_autoencoder_latent', 'online_residual_autoencoder_write', 'online_residual_autoencoder_write_norm', 'online_residual_autoencoder_act_times_grad', 'online_residual_autoencoder_write_to_final_residual_grad', 'online_residual_autoencoder_write_to_final_activation_residual_grad', 'online_residual_autoencoder_error', 'mlp_autoencoder_error_node_norm', 'mlp_autoencoder_error_node_write_norm', 'mlp_autoencoder_error_node_act_times_grad', 'mlp_autoencoder_error_node_write_to_final_residual_grad', 'attention_autoencoder_error_node_norm', 'attention_autoencoder_error_node_write_norm', 'attention_autoencoder_error_node_act_times_grad', 'attention_autoencoder_error_node_write_to_final_residual_grad', 'residual_autoencoder_error_node_norm', 'residual_autoencoder_error_node_write_norm', 'residual_autoencoder_error_node_act_times_grad', 'residual_autoencoder_error_node_write_to_final_residual_grad', 'mlp_transcoder_skip_norm', 'mlp_transcoder_skip_write_norm', 'mlp_transcoder_skip_act_times_grad', 'mlp_transcoder_skip_write_to_final_residual_grad']


class DerivedScalarsRequest(TypedDict, total=False):
    """A run and a derived scalar to be read off it."""

    inferenceRequestSpec: Required['InferenceRequestSpec']
    derivedScalarsRequestSpec: Required['DerivedScalarsRequestSpec']


class DerivedScalarsRequestSpec(TypedDict, total=False):
    """One derived scalar of one component, at every token."""

    specType: Literal['derived_scalars_request_spec']
    dst: Required['DerivedScalarType']
    layerIndex: int
    activationIndex: Required[int]
    normalizeActivationsUsingNeuronRecord: 'NodeIdAndDatasets'
    passType: 'PassType'
    numTopTokens: int


class DerivedScalarsResponse(TypedDict, total=False):
    """What the run tells about itself, and the scalars."""

    inferenceAndTokenData: Required['InferenceAndTokenData']
    derivedScalarsResponseData: Required['DerivedScalarsResponseData']


class DerivedScalarsResponseData(TypedDict, total=False):
    """The values of one component, parallel to `node_indices`."""

    responseDataType: Literal['derived_scalars_response_data']
    activations: Required[list[float]]
    normalizedActivations: list[float]
    nodeIndices: Required[list['MirroredNodeIndex']]
    topTokens: 'TopTokens'


class DictionaryFidelity(TypedDict, total=False):
    """One dictionary."""

    name: Required[str]
    nodeType: Required['NodeType']
    site: Required[str]
    layers: Required[list['LayerFidelity']]
    mismatch: str


class DictionaryFidelityRequest(TypedDict, total=False):
    """Asks how well the loaded dictionaries fit this prompt."""

    prompt: Required[str]
    targetTokens: Required[list['TokenRef']]
    distractorTokens: Required[list['TokenRef']]


class DictionaryFidelityResponse(TypedDict, total=False):
    """How well dictionaries fit a prompt, beside the model without them."""

    crossEntropy: Required[float]
    logitDifference: float
    dictionaries: Required[list['DictionaryFidelity']]


Dimension = Literal['sequence_tokens', 'attended_to_sequence_tokens', 'max_context_length', 'residual_stream_channels', 'vocab_size', 'attn_heads', 'query_and_key_channels', 'value_channels', 'mlp_acts', 'layers', 'singleton', 'autoencoder_latents', 'autoencoder_latents_by_token_pair']


class EffectsRequest(TypedDict, total=False):
    """Which nodes to remove, one at a time, from the run that answers the debugger's question."""

    prompt: Required[str]
    targetTokens: Required[list['TokenRef']]
    distractorTokens: Required[list['TokenRef']]
    nodeAblations: list['NodeAblation']
    upstreamNodeToTrace: 'NodeToTrace'
    downstreamNodeToTrace: 'NodeToTrace'
    nodes: Required[list['MirroredNodeIndex']]
    ablateTo: 'AblateTo'
    datasets: list[str]
    betterEstimates: bool
    randomNodes: int
    seed: int
    onlyPrice: bool


class EffectsResponse(TypedDict, total=False):
    """The exact effects of the nodes asked about."""

    objective: Required[float]
    price: Required['Price']
    nodes: Required[list['NodeEffect']]
    sampled: 'SampledBound'
    checks: Required[list['Check']]


class ExistingExplanationsBatchRequest(TypedDict, total=False):
    """Asks for stored explanations of several components at once."""

    requests: Required[list['ExistingExplanationsRequest']]


class ExistingExplanationsBatchResponse(TypedDict, total=False):
    """Stored explanations of several components."""

    explanations: Required[list[list['AttributedScoredExplanation']]]


class ExistingExplanationsRequest(TypedDict, total=False):
    """Asks for explanations that are stored."""

    dst: Required['DerivedScalarType']
    layerIndex: Required[int]
    activationIndex: Required[int]
    explanationDatasets: Required[list[str]]
    neuronDataset: str


class ExplainedComponent(TypedDict, total=False):
    """A component whose explanation holds the words."""

    dataset: Required[str]
    dst: Required['DerivedScalarType']
    layerIndex: Required[int]
    activationIndex: Required[int]
    explanation: Required[str]


class ExplanationResult(TypedDict, total=False):
    """Explanations of a component, stored or newly written."""

    explanations: Required[list[str]]
    dataset: Required[str]


class ExplanationSearchResponse(TypedDict, total=False):
    """Components whose explanations hold the words."""

    found: Required[list['ExplainedComponent']]
    more: Required[bool]
    searchable: Required[bool]


GroupId = Literal['act_times_grad', 'activation', 'direct_write_to_grad', 'direction_write', 'logits', 'mlp_layer_write', 'singleton', 'token_write', 'token_read', 'write_norm', 'token_pair_attribution']


class HTTPValidationError(TypedDict, total=False):
    detail: list['ValidationError']


class HeadCircuit(TypedDict, total=False):
    """A head's OV or QK circuit."""

    tokens: Required[list['TokenReading']]
    pairs: Required[list['VocabularyPair']]
    unseenAtMost: float


class HeadReadingsRequest(TypedDict, total=False):
    """Asks what a head does in tokens, by its weights."""

    layerIndex: Required[int]
    activationIndex: Required[int]
    prompt: str


class HeadReadingsResponse(TypedDict, total=False):
    """What a head does in tokens, each taken as its embedding alone, without a position, after the norm before the
    layer.
    """

    ov: Required['HeadCircuit']
    qk: Required['HeadCircuit']
    notes: Required[list[str]]


class HeadScoresResponse(TypedDict, total=False):
    """Standard scores of an attention head."""

    previousToken: Required[float]
    duplicateToken: Required[float]
    induction: Required[float]
    copying: Required[float]
    previousTokenChance: Required[float]
    repeatChance: Required[float]
    copyingChance: Required[float]
    repeatedTokens: Required[int]
    sampledTokens: Required[int]


class Histogram(TypedDict, total=False):
    """How many values lie in each of equally wide parts of a range."""

    low: Required[float]
    high: Required[float]
    counts: Required[list[int]]


class InferenceAndTokenData(TypedDict, total=False):
    """What a run tells about itself."""

    inferenceTime: Required[float]
    memoryUsedBefore: float
    memoryUsedAfter: float
    log: str
    loss: float
    activationValueForBackwardPass: float
    tokensAsInts: Required[list[int]]
    tokensAsStrings: Required[list[str]]


class InferenceRequestSpec(TypedDict, total=False):
    """One run: a forward pass and, where asked for, a backward pass."""

    prompt: Required[str]
    ablationSpecs: list['AblationSpec']
    lossFnConfig: 'LossFnConfig'
    traceConfig: 'MirroredTraceConfig'
    activationIndexForWithinLayerGrad: 'MirroredActivationIndex'


class InferenceResponse(TypedDict, total=False):
    """The answer to a run that nothing else was asked of."""

    inferenceAndTokenData: Required['InferenceAndTokenData']


class InferenceResponseAndResponseDict(TypedDict, total=False):
    """One run's answers."""

    inferenceResponse: Required['InferenceResponse']
    processingResponseDataByName: dict[str, Union['MultipleTopKDerivedScalarsResponseData', 'DerivedScalarsResponseData', 'DerivedAttentionScalarsResponseData', 'ScoredTokensResponseData', 'TokenPairAttributionResponseData']]
    checks: list['Check']


class InferenceSubRequest(TypedDict, total=False):
    """One run and what is asked of it."""

    inferenceRequestSpec: Required['InferenceRequestSpec']
    processingRequestSpecByName: dict[str, Union['MultipleTopKDerivedScalarsRequestSpec', 'DerivedScalarsRequestSpec', 'DerivedAttentionScalarsRequestSpec', 'ScoredTokensRequestSpec', 'TokenPairAttributionRequestSpec']]


class LayerFidelity(TypedDict, total=False):
    """One layer of a dictionary. Figures leave out the first token, whose activations are unlike all others."""

    layerIndex: Required[int]
    varianceExplained: Required[float]
    activeLatents: Required[list[int]]
    crossEntropy: Required[float]
    logitDifference: float


class LimitsResponse(TypedDict, total=False):
    """What a request may ask for at most. Beyond it the answer is a 4xx that names the limit."""

    maxBodyBytes: Required[int]
    maxListItems: Required[int]
    maxPromptTokens: Required[int]
    maxSubRequests: Required[int]
    maxSpecsPerRun: Required[int]
    maxSpecs: Required[int]
    maxAblations: Required[int]
    maxTopK: Required[int]
    maxAnswerBytes: Required[int]
    maxTokenScores: Required[int]
    maxActivationBytes: Required[int]
    maxVariedRuns: Required[int]
    maxPairProducts: Required[int]
    maxSeconds: Required[int]
    workers: Required[int]
    queueLength: Required[int]
    maxUnsentBytes: Required[int]
    maxConnections: Required[int]
    idleSeconds: Required[int]
    bodySeconds: Required[int]
    writeSeconds: Required[int]


class LoadedDictionary(TypedDict, total=False):
    """One of several dictionaries that answer together."""

    name: Required[str]
    layers: Required[list[int]]


class LogitLensCell(TypedDict, total=False):
    """What the residual stream predicts at a layer and a token."""

    top: Required[str]
    probability: Required[float]
    targetRank: int
    targetProbability: float
    distractorRank: int
    distractorProbability: float


class LogitLensLayer(TypedDict, total=False):
    """One layer."""

    layer: int
    cells: Required[list['LogitLensCell']]


class LogitLensRequest(TypedDict, total=False):
    """Asks for the logit lens of a prompt."""

    prompt: Required[str]
    targetTokens: Required[list['TokenRef']]
    distractorTokens: Required[list['TokenRef']]
    nodeAblations: list['NodeAblation']
    lastTokens: int


class LogitLensResponse(TypedDict, total=False):
    """The logit lens, from the embeddings up; the last layer is what the model predicts."""

    firstToken: Required[int]
    tokensAsStrings: Required[list[str]]
    layers: Required[list['LogitLensLayer']]


class LossFnConfig(TypedDict, total=False):
    """A function of the logits."""

    name: Required['LossFnName']
    targetTokens: list['TokenRef']
    distractorTokens: list['TokenRef']


LossFnName = Literal['logit_diff', 'logit_minus_mean', 'probs', 'zero']


class MirroredActivationIndex(TypedDict, total=False):
    """Entries of a tensor of a run."""

    activationLocationType: Required['ActivationLocationType']
    tensorIndices: Required[list[Union[int, Literal['All']]]]
    layerIndex: int
    passType: Required['PassType']


class MirroredNodeIndex(TypedDict, total=False):
    """A node: a part of the model at a token, or at a pair of tokens."""

    nodeType: Required['NodeType']
    tensorIndices: Required[list[int]]
    layerIndex: int
    passType: Required['PassType']


class MirroredTraceConfig(TypedDict, total=False):
    """Where a backward pass begins, when it is not a function of the logits."""

    nodeIndex: Required['MirroredNodeIndex']
    preOrPostAct: Required['PreOrPostAct']
    detachLayerNormScale: Required[bool]
    attentionTraceType: 'AttentionTraceType'
    mlpTraceType: 'MlpTraceType'
    downstreamTraceConfig: 'MirroredTraceConfig'


MlpTraceType = Literal['gate', 'up']


class ModelInfoResponse(TypedDict, total=False):
    """Which model the server has."""

    modelName: str
    hasMlpAutoencoder: Required[bool]
    mlpAutoencoderName: str
    hasAttentionAutoencoder: Required[bool]
    attentionAutoencoderName: str
    residualAutoencoderName: str
    nLayers: Required[int]


class ModelShape(TypedDict, total=False):
    """Sizes of a model."""

    nLayers: Required[int]
    nHeads: Required[int]
    dModel: Required[int]
    dMlp: Required[int]
    vocabSize: Required[int]
    mlpIsGated: Required[bool]
    contextLength: Required[int]


class MultipleTopKDerivedScalarsRequest(TypedDict, total=False):
    """A run and the extreme nodes to be found in it."""

    inferenceRequestSpec: Required['InferenceRequestSpec']
    multipleTopKDerivedScalarsRequestSpec: Required['MultipleTopKDerivedScalarsRequestSpec']


class MultipleTopKDerivedScalarsRequestSpec(TypedDict, total=False):
    """The extreme nodes of each group, and every group's value for each of them."""

    specType: Literal['multiple_top_k_derived_scalars_request_spec']
    dstListByGroupId: Required[dict[str, list['DerivedScalarType']]]
    tokenIndex: int
    topAndBottomK: int
    passType: 'PassType'
    residualCutLayer: int
    leaveOutReplaced: bool
    dimensionsToKeepForIntermediateSum: list['Dimension']


class MultipleTopKDerivedScalarsResponse(TypedDict, total=False):
    """What the run tells about itself, and the extreme nodes."""

    inferenceAndTokenData: Required['InferenceAndTokenData']
    multipleTopKDerivedScalarsResponseData: Required['MultipleTopKDerivedScalarsResponseData']


class MultipleTopKDerivedScalarsResponseData(TypedDict, total=False):
    """The extreme nodes: of this run and of all runs asked for together under the same name."""

    responseDataType: Literal['multiple_top_k_derived_scalars_response_data']
    activationsByGroupId: Required[dict[str, list[float]]]
    nodeIndices: Required[list['MirroredNodeIndex']]
    vocabTokenStringsForIndices: list[str]
    intermediateSumActivationsByDstByGroupId: Required[dict[str, dict[str, Union['Tensor0D', 'Tensor1D', 'Tensor2D', 'Tensor3D']]]]


class NeuronDatasetMetadata(TypedDict, total=False):
    """A registered set of records."""

    shortName: Required[str]
    derivedScalarType: Required[str]
    userVisibleName: Required[str]
    neuronDatasetPath: Required[str]


class NeuronRecordResponse(TypedDict, total=False):
    """Examples of a component with one scalar for each token."""

    dataset: Required[str]
    maxActivation: Required[float]
    topActivations: Required[list[list['TokenAndScalar']]]
    randomSample: Required[list[list['TokenAndScalar']]]


class NodeAblation(TypedDict, total=False):
    """A node that is set to a value during the forward pass."""

    nodeIndex: Required['MirroredNodeIndex']
    value: Required[float]


class NodeEffect(TypedDict, total=False):
    """One node's part in the objective, found by removing it and estimated. All figures have the sign of what the
    node does: a node that helps the targets has positive ones.
    """

    nodeIndex: Required['MirroredNodeIndex']
    ablatedTo: 'AblateTo'
    exact: Required[float]
    estimate: Required[float]
    correctedEstimate: float
    droppedEstimate: float
    parts: Required[bool]


class NodeIdAndDatasets(TypedDict, total=False):
    """A component and where its record may be found."""

    dst: Required['DerivedScalarType']
    layerIndex: Required[int]
    activationIndex: Required[int]
    datasets: Required[list[str]]


class NodeToTrace(TypedDict, total=False):
    """A node to trace, as the debugger's page asks for it."""

    nodeIndex: Required['MirroredNodeIndex']
    attentionTraceType: 'AttentionTraceType'
    mlpTraceType: 'MlpTraceType'
    downstreamTraceConfig: 'MirroredTraceConfig'


NodeType = Literal['attention_head', 'qk_channel', 'v_channel', 'mlp_neuron', 'autoencoder_latent', 'mlp_autoencoder_latent', 'attention_autoencoder_latent', 'residual_autoencoder_latent', 'mlp_autoencoder_error', 'attention_autoencoder_error', 'residual_autoencoder_error', 'mlp_transcoder_skip', 'autoencoder_latent_by_token_pair', 'layer', 'residual_stream_channel', 'vocab_token']


PassType = Literal['forward', 'backward']


class PatchCell(TypedDict, total=False):
    """Activations that are patched at the same time. The first index of each is a token of the patched run."""

    sites: Required[list['MirroredActivationIndex']]


PatchDirection = Literal['denoising', 'noising']


PatchGrid = Literal['residual', 'attention', 'mlp', 'heads']


PatchGroup = Literal['residual', 'attention', 'mlp', 'heads', 'cells', 'units', 'paths']


PatchMetric = Literal['logit_difference', 'log_probability', 'probability', 'kl_divergence']


PatchPath = TypedDict('PatchPath', {
    'from': Required['MirroredActivationIndex'],
    'toLayer': Required[int],
    'toHead': Required[int],
    'through': Required['AttentionTraceType'],
}, total=False)


class PatchRequest(TypedDict, total=False):
    """Two prompts, what to patch between them, and how to measure it."""

    cleanPrompt: Required[str]
    corruptedPrompt: Required[str]
    direction: 'PatchDirection'
    metric: 'PatchMetric'
    targetTokens: list['TokenRef']
    distractorTokens: list['TokenRef']
    alignment: list['TokenPair']
    grids: list['PatchGrid']
    cells: list['PatchCell']
    units: list['PatchUnits']
    paths: list['PatchPath']
    onlyPrice: bool


class PatchResponse(TypedDict, total=False):
    """What patching did."""

    runs: Required['PatchRuns']
    price: Required['Price']
    cells: Required[list['PatchedCell']]
    checks: Required[list['Check']]


class PatchRuns(TypedDict, total=False):
    """The two runs, before anything is patched."""

    cleanTokens: Required[list[str]]
    corruptedTokens: Required[list[str]]
    alignment: Required[list['TokenPair']]
    clean: Required[float]
    corrupted: Required[float]
    denominator: Required[float]
    remark: str


class PatchUnits(TypedDict, total=False):
    """The units of one layer at one token, each patched alone."""

    activationLocationType: Required['ActivationLocationType']
    layerIndex: Required[int]
    tokenIndex: Required[int]
    most: int


class PatchedCell(TypedDict, total=False):
    """The patched run's metric."""

    group: Required['PatchGroup']
    index: Required[int]
    layerIndex: int
    tokenIndex: int
    unit: int
    metric: Required[float]
    effect: float


PreOrPostAct = Literal['pre', 'post']


class Price(TypedDict, total=False):
    """What an answer costs."""

    runs: Required[int]
    limit: Required[int]
    seconds: Required[float]


ProcessingResponseDataType = Literal['derived_scalars_response_data', 'derived_attention_scalars_response_data', 'multiple_top_k_derived_scalars_response_data', 'scored_tokens_response_data', 'token_pair_attribution_response_data']


class RecordSummaryResponse(TypedDict, total=False):
    """What a record says of a component over the whole text that it was collated on. Null where the record does not
    tell.
    """

    dataset: Required[str]
    values: int
    positiveValues: int
    texts: int
    activeTexts: int
    histogram: 'Histogram'
    mean: float
    variance: float
    skewness: float
    kurtosis: float
    quantileBoundaries: Required[list[float]]
    examplesByQuantile: Required[list[list[list['TokenAndScalar']]]]


class SampleRequest(TypedDict, total=False):
    """Asks for a continuation. With ablations there are two: side 0 with them, side 1 without, drawn by the same
    seed.
    """

    prompt: Required[str]
    nodeAblations: list['NodeAblation']
    tokens: Required[int]
    temperature: Required[float]
    topP: Required[float]
    seed: Required[int]


class SampledBound(TypedDict, total=False):
    """What was not looked at: exact effects of nodes chosen at random among those that were not asked about."""

    nodes: Required[int]
    population: Required[int]
    largest: Required[float]
    nodeIndex: Required['MirroredNodeIndex']
    share: Required[float]
    sentence: Required[str]


ScoreKind = Literal['correlation', 'roc_auc', 'balanced_accuracy']


class ScoreRequest(TypedDict, total=False):
    """Asks how well an explanation predicts a component's activations."""

    dst: Required['DerivedScalarType']
    layerIndex: Required[int]
    activationIndex: Required[int]
    datasets: Required[list[str]]
    explanation: Required[str]
    maxSequences: int


class ScoreResult(TypedDict, total=False):
    """A score."""

    score: Required[float]
    datasetPath: Required[str]


class ScoredTokensRequestSpec(TypedDict, total=False):
    """Token readings of the nodes that another part of the same request found."""

    specType: Literal['scored_tokens_request_spec']
    tokenScoringType: Required['TokenScoringType']
    numTokens: Required[int]
    dependsOnSpecName: Required[str]


class ScoredTokensResponseData(TypedDict, total=False):
    """Token readings, parallel to `node_indices`."""

    responseDataType: Literal['scored_tokens_response_data']
    nodeIndices: Required[list['MirroredNodeIndex']]
    topTokensList: Required[list['TopTokens']]


class ServerInfoResponse(TypedDict, total=False):
    """Everything a client may want to know before it asks."""

    version: Required[str]
    model: 'ModelInfoResponse'
    shape: 'ModelShape'
    beginningOfText: 'Token'
    suggestedQuestion: 'SuggestedQuestion'
    device: str
    mlpAutoencoder: 'AutoencoderInfo'
    attentionAutoencoder: 'AutoencoderInfo'
    residualAutoencoder: 'AutoencoderInfo'
    limits: Required['LimitsResponse']
    writesExplanations: Required[bool]


class SuggestedQuestion(TypedDict, total=False):
    """A question to begin with."""

    prompt: Required[str]
    targetTokens: Required[list['TokenRef']]
    distractorTokens: Required[list['TokenRef']]


class TdbRequestSpec(TypedDict, total=False):
    """One side of the debugger's question."""

    specType: Literal['tdb_request_spec']
    prompt: Required[str]
    targetTokens: Required[list['TokenRef']]
    distractorTokens: Required[list['TokenRef']]
    componentTypeForMlp: Required['ComponentTypeForMlp']
    componentTypeForAttention: Required['ComponentTypeForAttention']
    residualCutLayer: int
    listErrorNodes: bool
    topAndBottomKForNodeTable: Required[int]
    hideEarlyLayersWhenAblating: Required[bool]
    nodeAblations: list['NodeAblation']
    upstreamNodeToTrace: 'NodeToTrace'
    downstreamNodeToTrace: 'NodeToTrace'


class Tensor0D(TypedDict, total=False):
    """A scalar."""

    tensorType: 'TensorType'
    value: Required[float]


class Tensor1D(TypedDict, total=False):
    """A list."""

    tensorType: 'TensorType'
    value: Required[list[float]]


class Tensor2D(TypedDict, total=False):
    """A list of rows."""

    tensorType: 'TensorType'
    value: Required[list[list[float]]]


class Tensor3D(TypedDict, total=False):
    """A list of matrices."""

    tensorType: 'TensorType'
    value: Required[list[list[list[float]]]]


TensorType = Literal['tensor_0d', 'tensor_1d', 'tensor_2d', 'tensor_3d']


class Token(TypedDict, total=False):
    """A token of a text."""

    id: Required[int]
    text: Required[str]


class TokenAndAttentionScalars(TypedDict, total=False):
    """What one token reads from each token before it and from itself, with sums and maxima of what goes in and out."""

    token: Required[str]
    scalars: Required[list[float]]
    normalizedScalars: Required[list[float]]
    totalScalarIn: Required[float]
    normalizedTotalScalarIn: Required[float]
    maxScalarIn: Required[float]
    normalizedMaxScalarIn: Required[float]
    totalScalarOut: Required[float]
    normalizedTotalScalarOut: Required[float]
    maxScalarOut: Required[float]
    normalizedMaxScalarOut: Required[float]


class TokenAndScalar(TypedDict, total=False):
    """A token of the vocabulary with a score."""

    token: Required[str]
    scalar: Required[float]
    normalizedScalar: Required[float]


class TokenPair(TypedDict, total=False):
    """A token of the clean prompt and the one of the corrupted prompt that takes its place."""

    clean: Required[int]
    corrupted: Required[int]


class TokenPairAttributionRequestSpec(TypedDict, total=False):
    """Attended-to tokens of the nodes that another part of the same request found."""

    specType: Literal['token_pair_attribution_request_spec']
    numTokensAttendedTo: Required[int]
    dependsOnSpecName: Required[str]


class TokenPairAttributionResponseData(TypedDict, total=False):
    """Attended-to tokens, parallel to `node_indices`."""

    responseDataType: Literal['token_pair_attribution_response_data']
    nodeIndices: Required[list['MirroredNodeIndex']]
    topTokensAttendedToList: Required[list['TopTokensAttendedTo']]


class TokenReading(TypedDict, total=False):
    """What a head does with one token."""

    token: Required[str]
    tokens: Required['TopTokens']


TokenRef = Union[str, dict[str, Any]]


TokenScoringType = Literal['upvoted_output_tokens', 'input_tokens_that_upvote_mlp', 'input_tokens_that_upvote_attn_q', 'input_tokens_that_upvote_attn_k']


class TokenizeRequest(TypedDict, total=False):
    """A text to be split into tokens."""

    text: Required[str]


class TokenizeResponse(TypedDict, total=False):
    """The tokens of a text."""

    tokens: Required[list['Token']]


class TopTokens(TypedDict, total=False):
    """The tokens with the highest and with the lowest scores, each list from its extreme inwards."""

    top: Required[list['TokenAndScalar']]
    bottom: Required[list['TokenAndScalar']]


class TopTokensAttendedTo(TypedDict, total=False):
    """The attended-to tokens with the largest share in a node's activation."""

    tokenIndices: Required[list[int]]
    attributions: Required[list[float]]


class ValidationError(TypedDict, total=False):
    loc: Required[list[Union[str, int]]]
    msg: Required[str]
    type: Required[str]


VocabularyPair = TypedDict('VocabularyPair', {
    'from': Required[str],
    'to': Required[str],
    'value': Required[float],
}, total=False)


class WeightedComponent(TypedDict, total=False):
    """A component and a number about it."""

    nodeType: Required['NodeType']
    layerIndex: Required[int]
    activationIndex: Required[int]
    value: Required[float]


class Client(Transport):
    """Asks a server. Each route is a method of its own name."""

    def read_root(self) -> dict[str, str]:
        """The debugger's page for browsers, a greeting for programs."""
        return self.request('GET', '/')

    def force_client_code_generation(self, group_id: 'GroupId') -> Any:
        """Does nothing. It makes generated clients know the names of groups."""
        return self.request('GET', '/force_client_code_generation', query={'group_id': group_id})

    def dump_memory_snapshot(self) -> str:
        """Refused: this server computes in the machine's own memory."""
        return self.request('GET', '/dump_memory_snapshot')

    def neuron_record(self, body: 'NodeIdAndDatasets') -> 'NeuronRecordResponse':
        """The examples that excite a component most, with a value for each token."""
        return self.request('POST', '/neuron_record', body=body)

    def attention_head_record(self, body: 'NodeIdAndDatasets') -> 'AttentionHeadRecordResponse':
        """The examples that excite a component most, with a value for each pair of tokens."""
        return self.request('POST', '/attention_head_record', body=body)

    def record_summary(self, body: 'NodeIdAndDatasets') -> 'RecordSummaryResponse':
        """What a component's record says of it over its whole text: density, moments, texts by quantile."""
        return self.request('POST', '/record_summary', body=body)

    def neuron_datasets_metadata(self) -> list['NeuronDatasetMetadata']:
        """The registered sets of records."""
        return self.request('POST', '/neuron_datasets_metadata')

    def existing_explanations(self, body: 'ExistingExplanationsRequest') -> list['AttributedScoredExplanation']:
        """The stored explanations of a component."""
        return self.request('POST', '/existing_explanations', body=body)

    def existing_explanations_batch(self, body: 'ExistingExplanationsBatchRequest') -> 'ExistingExplanationsBatchResponse':
        """The stored explanations of several components."""
        return self.request('POST', '/existing_explanations/batch', body=body)

    def explanation_search(self, text: str) -> 'ExplanationSearchResponse':
        """Up to 50 components whose stored explanations hold all the words, in the order of layers."""
        return self.request('GET', '/explanations/search', query={'text': text})

    def explain(self, body: 'NodeIdAndDatasets') -> 'ExplanationResult':
        """Explanations of a component."""
        return self.request('POST', '/explain', body=body)

    def score(self, body: 'ScoreRequest') -> 'ScoreResult':
        """How well an explanation predicts a component's activations."""
        return self.request('POST', '/score', body=body)

    def derived_scalars(self, body: 'DerivedScalarsRequest') -> 'DerivedScalarsResponse':
        """One scalar of one component at every token."""
        return self.request('POST', '/derived_scalars', body=body)

    def derived_attention_scalars(self, body: 'DerivedAttentionScalarsRequest') -> 'DerivedAttentionScalarsResponse':
        """One scalar of one component at every pair of tokens."""
        return self.request('POST', '/derived_attention_scalars', body=body)

    def multiple_top_k_derived_scalars(self, body: 'MultipleTopKDerivedScalarsRequest') -> 'MultipleTopKDerivedScalarsResponse':
        """The nodes with the largest and smallest scalars."""
        return self.request('POST', '/multiple_top_k_derived_scalars', body=body)

    def batched(self, body: 'BatchedRequest') -> 'BatchedResponse':
        """Several runs, and several things asked of each."""
        return self.request('POST', '/batched', body=body)

    def batched_tdb(self, body: 'BatchedTdbRequest') -> 'BatchedResponse':
        """The debugger's question, for one prompt or two."""
        return self.request('POST', '/batched_tdb', body=body)

    def dictionary_fidelity(self, body: 'DictionaryFidelityRequest') -> 'DictionaryFidelityResponse':
        """How well the loaded dictionaries reconstruct what they stand in for, on one prompt."""
        return self.request('POST', '/dictionary_fidelity', body=body)

    def effects(self, body: 'EffectsRequest') -> 'EffectsResponse':
        """What really happens to the debugger's objective when nodes are removed, one at a time."""
        return self.request('POST', '/effects', body=body)

    def circuit(self, body: 'CircuitRequest') -> 'CircuitResponse':
        """How some nodes act on each other, and what the objective is with all others ablated."""
        return self.request('POST', '/circuit', body=body)

    def patch(self, body: 'PatchRequest') -> 'PatchResponse':
        """What happens when activations of one prompt's run are put into another's."""
        return self.request('POST', '/patch', body=body)

    def logit_lens(self, body: 'LogitLensRequest') -> 'LogitLensResponse':
        """What the residual stream of each layer would predict."""
        return self.request('POST', '/logit_lens', body=body)

    def component_weights(self, body: 'ComponentRequest') -> 'ComponentWeightsResponse':
        """Neighbours, connections and effects on the logits of a neuron or latent, from the weights."""
        return self.request('POST', '/component_weights', body=body)

    def head_scores(self, body: 'ComponentRequest') -> 'HeadScoresResponse':
        """Standard scores of an attention head."""
        return self.request('POST', '/head_scores', body=body)

    def head_readings(self, body: 'HeadReadingsRequest') -> 'HeadReadingsResponse':
        """What an attention head does in tokens, by its weights: its OV and QK circuits."""
        return self.request('POST', '/head_readings', body=body)

    def model_info(self) -> 'ModelInfoResponse':
        """Which model and autoencoders the server has."""
        return self.request('POST', '/model_info')

    def batched_tdb_stream(self, body: 'BatchedTdbRequest') -> Iterator[dict[str, Any]]:
        """The debugger's question, answered in parts: lines of JSON, or server-sent events by the Accept header."""
        return self.stream('POST', '/batched_tdb/stream', body=body)

    def effects_stream(self, body: 'EffectsRequest') -> Iterator[dict[str, Any]]:
        """As `/effects`, answered in parts: each node's effect when it is known."""
        return self.stream('POST', '/effects/stream', body=body)

    def patch_stream(self, body: 'PatchRequest') -> Iterator[dict[str, Any]]:
        """As `/patch`, answered in parts: each cell when it is known."""
        return self.stream('POST', '/patch/stream', body=body)

    def sample_stream(self, body: 'SampleRequest') -> Iterator[dict[str, Any]]:
        """Continues a prompt, with and without ablations: a line of JSON for each token drawn."""
        return self.stream('POST', '/sample/stream', body=body)

    def limits(self) -> 'LimitsResponse':
        """What a request may ask for at most."""
        return self.request('GET', '/limits')

    def info(self) -> 'ServerInfoResponse':
        """Version, model, shapes, autoencoders and limits."""
        return self.request('GET', '/info')

    def tokenize(self, body: 'TokenizeRequest') -> 'TokenizeResponse':
        """The tokens of a text."""
        return self.request('POST', '/tokenize', body=body)

    def vocabulary(self, prefix: str) -> 'TokenizeResponse':
        """Up to 50 tokens whose text begins with `prefix`, in the order of their ids."""
        return self.request('GET', '/vocabulary', query={'prefix': prefix})

    def health(self) -> str:
        """Whether the server lives, as text. Needs no token."""
        return self.text('GET', '/health')

    def ready(self) -> str:
        """Whether the server takes requests, as text: 503 while it is being stopped. Needs no token."""
        return self.text('GET', '/ready')

    def metrics(self) -> str:
        """What the server counted, as Prometheus reads it."""
        return self.text('GET', '/metrics')
