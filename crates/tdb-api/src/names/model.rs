//! Names of the parts of a model and of its tensors.

use crate::wire::wire_enum;

wire_enum! {
    /// What a node is: a part of the model with one scalar for each token, or for each pair of tokens.
    pub enum NodeType {
        AttentionHead = "attention_head",
        QkChannel = "qk_channel",
        VChannel = "v_channel",
        MlpNeuron = "mlp_neuron",
        AutoencoderLatent = "autoencoder_latent",
        MlpAutoencoderLatent = "mlp_autoencoder_latent",
        AttentionAutoencoderLatent = "attention_autoencoder_latent",
        ResidualAutoencoderLatent = "residual_autoencoder_latent",
        MlpAutoencoderError = "mlp_autoencoder_error",
        AttentionAutoencoderError = "attention_autoencoder_error",
        ResidualAutoencoderError = "residual_autoencoder_error",
        MlpTranscoderSkip = "mlp_transcoder_skip",
        AutoencoderLatentByTokenPair = "autoencoder_latent_by_token_pair",
        Layer = "layer",
        ResidualStreamChannel = "residual_stream_channel",
        VocabToken = "vocab_token",
    }
}

wire_enum! {
    /// A tensor that exists during a run and can be read or set there.
    /// Residual stream tensors are before layer norm unless the name says otherwise.
    pub enum ActivationLocationType {
        ResidPostEmbedding = "resid.post_emb",
        ResidDeltaAttn = "resid.delta_attn",
        ResidPostAttn = "resid.post_attn",
        ResidDeltaMlp = "resid.delta_mlp",
        ResidPostMlp = "resid.post_mlp",
        ResidPostMlpLayerNorm = "resid.post_mlp_ln",
        ResidPostAttnLayerNorm = "resid.post_attn_ln",
        ResidPostFinalLayerNorm = "resid.post_ln_f",
        MlpInputLayerNormScale = "mlp_ln.scale",
        AttnInputLayerNormScale = "attn_ln.scale",
        ResidFinalLayerNormScale = "resid.ln_f.scale",
        AttnQuery = "attn.q",
        AttnKey = "attn.k",
        AttnValue = "attn.v",
        AttnQkLogits = "attn.qk_logits",
        AttnQkProbs = "attn.qk_probs",
        AttnWeightedSumOfValues = "attn.v_out",
        MlpPreAct = "mlp.pre_act",
        MlpPostAct = "mlp.post_act",
        Logits = "logits",
        OnlineAutoencoderLatent = "online_autoencoder_latent",
        OnlineMlpAutoencoderLatent = "online_mlp_autoencoder_latent",
        OnlineAttentionAutoencoderLatent = "online_attention_autoencoder_latent",
        OnlineResidualAutoencoderLatent = "online_residual_autoencoder_latent",
        OnlineMlpAutoencoderError = "online_mlp_autoencoder_error",
        OnlineResidualMlpAutoencoderError = "online_residual_mlp_autoencoder_error",
        OnlineResidualAttentionAutoencoderError = "online_residual_attention_autoencoder_error",
        OnlineResidualAutoencoderError = "online_residual_autoencoder_error",
    }
}

wire_enum! {
    /// What one axis of a tensor counts.
    pub enum Dimension {
        SequenceTokens = "sequence_tokens",
        AttendedToSequenceTokens = "attended_to_sequence_tokens",
        MaxContextLength = "max_context_length",
        ResidualStreamChannels = "residual_stream_channels",
        VocabSize = "vocab_size",
        AttnHeads = "attn_heads",
        QueryAndKeyChannels = "query_and_key_channels",
        ValueChannels = "value_channels",
        MlpActs = "mlp_acts",
        Layers = "layers",
        Singleton = "singleton",
        AutoencoderLatents = "autoencoder_latents",
        AutoencoderLatentsByTokenPair = "autoencoder_latents_by_token_pair",
    }
}

wire_enum! {
    /// The pass through the model: values go forward, gradients backward.
    pub enum PassType {
        Forward = "forward",
        Backward = "backward",
    }
}
