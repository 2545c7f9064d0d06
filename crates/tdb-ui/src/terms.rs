//! The debugger's words, explained in place and without a network.

/// A term, and what it means here.
pub const TERMS: &[(&str, &str)] = &[
    (
        "Prompt",
        "The text the model reads. The question is always about the token that follows its last one. Many models saw a \
            token such as <|endoftext|> or <bos> before each text, so their prompts usually begin with it.",
    ),
    (
        "Token",
        "A piece of text that the model reads or writes as one unit. Most words carry their leading space: “ Canada” \
            and “Canada” are different tokens.",
    ),
    (
        "Target and distractor",
        "The question is why the target token is more likely than the distractor. Several tokens on one side are \
            averaged. Without a distractor the target's logit itself is asked about.",
    ),
    (
        "Logit",
        "The score that the model gives a candidate for the next token, before scores become probabilities. A \
            difference of 1 makes a token about 2.7 times as likely.",
    ),
    (
        "Logit difference",
        "The mean logit of the targets minus that of the distractors: larger means that the model prefers the target \
            more. Other tools call it a loss; here larger is better.",
    ),
    (
        "Component",
        "A part of the model that writes into the residual stream: an attention head, an MLP neuron, an autoencoder \
            latent, or the embedding.",
    ),
    (
        "Node",
        "A component at one token; for an attention head, at a pair of tokens: the one that reads (attended from) and \
            the one that is read (attended to).",
    ),
    (
        "Residual stream",
        "The running sum, at each token, to which every component adds what it has found. The last layer's sum decides \
            the logits.",
    ),
    (
        "Activation",
        "How strongly a node fires. For a head it is the share of attention between the two tokens, from 0 to 1; the \
            embedding counts as 1.",
    ),
    (
        "Write magnitude",
        "The size of what the node adds to the residual stream: activation times the length of its write vector. It \
            carries the sign of the activation.",
    ),
    (
        "Direct effect",
        "How much the node's own write moves the asked quantity directly, not by way of later components. Positive \
            helps the target.",
    ),
    (
        "Estimated total effect",
        "Activation times gradient: a first guess of how much the asked quantity would fall if the node were set to \
            zero, all paths included.",
    ),
    (
        "Ablation",
        "A run in which a node is held at another value, usually zero. The table then shows the changed run beside the \
            unchanged one.",
    ),
    (
        "Trace",
        "Asking the same question of a node instead of the output: what upstream made it fire? Attention heads can be \
            traced through their query, their key, both, or through the value that they move.",
    ),
    (
        "Circuit",
        "Some nodes that together do a task. An edge is the part of a node's effect that goes through another one. The \
            circuit is faithful as far as it gives the same answer with all other nodes ablated.",
    ),
    (
        "Direction of interest",
        "The direction in the residual stream along which effects are measured: from distractor to target at the \
            output, or whatever excites the traced node.",
    ),
    ("Latent", "A direction found by a sparse autoencoder. Latents are often easier to name than neurons."),
    (
        "Promotes, suppresses",
        "Tokens whose logit rises, or falls, when this node writes. With a negative activation the lists trade places.",
    ),
    (
        "Excited by, inhibited by",
        "Tokens whose embedding, sent straight into the node, would excite it, or inhibit it.",
    ),
    (
        "Layer and index",
        "Layers count from 0, nearest the input, upwards. attn_L5_1 is head 1 of layer 5; mlp_L3_2011 is neuron 2011 \
            of layer 3.",
    ),
    (
        "Top examples",
        "Texts from a data set on which the component was most active, found beforehand. Random examples show what it \
            does elsewhere.",
    ),
    (
        "Logit lens",
        "What a component says in the language of tokens: which outputs its write raises or lowers, and which inputs \
            would excite it.",
    ),
    (
        "Explanation score",
        "How well somebody who knows only the explanation predicts the activations. A correlation (r) is 1 when \
            perfect and 0 by chance; the area under the ROC curve (AUC) and the balanced accuracy are 1 when perfect \
            and 0.5 by chance. Scores of different kinds are not comparable.",
    ),
    ("Attended to", "The token that a head reads, or that an attention latent's activation comes from."),
    ("Attended from", "The token that the node sits at; for a head the token that reads."),
    ("Explanation", "What the component responds to on texts of its data set, in words."),
    (
        "Contribution",
        "What a part of the model adds to the logit difference through its own write, with the final norm's scale as \
            it is in this run. Contributions of all parts add up to the logit difference.",
    ),
];

/// How a quantity is computed, and its unit.
const FORMULAS: &[(&str, &str, &str)] = &[
    (
        "Activation",
        "neuron: f(w_in · x + b); head: softmax(q · k) at one pair of tokens; latent: as encoded",
        "none (heads: share of attention, 0 to 1)",
    ),
    ("Write magnitude", "activation × |write vector|", "length in the residual stream"),
    (
        "Direct effect",
        "write · ∂(asked quantity)/∂(residual stream where it is read)",
        "that of the asked quantity: logits",
    ),
    ("Estimated total effect", "activation × ∂(asked quantity)/∂(activation)", "that of the asked quantity: logits"),
    ("Logit difference", "mean logit of targets − mean logit of distractors", "logits"),
    ("Logit", "unembedding · norm(last residual stream)", "natural logarithm of odds, up to a constant"),
    ("Contribution", "write · ∂(logit difference)/∂(last residual stream), scale of the norm held", "logits"),
];

/// The formula of a term and its unit, where it is a quantity.
pub fn formula(term: &str) -> Option<(&'static str, &'static str)> {
    FORMULAS.iter().find(|(t, ..)| *t == term).map(|(_, formula, unit)| (*formula, *unit))
}

/// The meaning of one term.
pub fn meaning(term: &str) -> &'static str {
    TERMS.iter().find(|(t, _)| *t == term).map_or("", |(_, m)| m)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_words_of_the_table_are_explained() {
        for metric in crate::answer::Metric::ALL {
            assert!(!super::meaning(metric.label()).is_empty(), "{}", metric.label());
            assert!(super::formula(metric.label()).is_some(), "{}", metric.label());
        }
    }
}
