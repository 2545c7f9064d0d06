//! The engine: a model with its tokenizer and autoencoders, ready to answer.

use tdb_api::wire::FieldPath;
use tdb_api::{ModelInfoResponse, TokenRef};
use tdb_model::{Slot, Tokenizer, Transformer};

use crate::error::{Error, bad};
use crate::kept::KeptReadings;

/// Ids of GPT-2's tokens that its training text hardly held; their embeddings are noise that would top every list.
const RARE_GPT2_TOKENS: &str = include_str!("../data/rare_gpt2_tokens.txt");

/// What was loaded as a dictionary, by itself or beside others in the same slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    pub slot: Slot,
    pub name: String,
    pub layers: Vec<usize>,
}

/// A model, what it is called, and what follows from its weights alone. Shared by all requests. Immutable but for what is kept
/// of readings, on which no answer depends.
#[derive(Debug)]
pub struct Engine {
    name: String,
    model: Transformer,
    tokenizer: Tokenizer,
    mlp_autoencoder: Option<String>,
    attn_autoencoder: Option<String>,
    residual_autoencoder: Option<String>,
    dictionaries: Vec<Dictionary>,
    beginning: Option<u32>,
    /// By row of the vocabulary: whether readings leave it out.
    unread_tokens: Option<Vec<bool>>,
    kept: KeptReadings,
}

impl Engine {
    /// `model` carries its autoencoders; their names are given beside it.
    pub fn new(
        name: impl Into<String>,
        model: Transformer,
        tokenizer: Tokenizer,
        mlp_autoencoder: Option<String>,
        attn_autoencoder: Option<String>,
    ) -> Self {
        let unread_tokens = unread_tokens(&tokenizer, model.config().n_vocab);
        Engine {
            name: name.into(),
            mlp_autoencoder: mlp_autoencoder.filter(|_| model.has(Slot::Mlp)),
            attn_autoencoder: attn_autoencoder.filter(|_| model.has(Slot::Attention)),
            residual_autoencoder: None,
            dictionaries: Vec::new(),
            model,
            tokenizer,
            beginning: None,
            unread_tokens,
            kept: KeptReadings::default(),
        }
    }

    /// What the dictionary in a slot is called.
    pub(crate) fn dictionary_name(&self, slot: Slot) -> Option<&str> {
        match slot {
            Slot::Mlp => self.mlp_autoencoder.as_deref(),
            Slot::Attention => self.attn_autoencoder.as_deref(),
            Slot::Residual => self.residual_autoencoder.as_deref(),
        }
    }

    /// With the name of the dictionary on the residual stream.
    pub fn with_residual_autoencoder(self, name: Option<String>) -> Self {
        Engine { residual_autoencoder: name.filter(|_| self.model.has(Slot::Residual)), ..self }
    }

    /// With what was loaded as dictionaries, of which a slot may have several in layers of their own.
    pub fn with_dictionaries(self, dictionaries: Vec<Dictionary>) -> Self {
        Engine { dictionaries, ..self }
    }

    /// What was loaded as dictionaries in a slot.
    pub fn dictionaries(&self, slot: Slot) -> impl Iterator<Item = &Dictionary> {
        self.dictionaries.iter().filter(move |found| found.slot == slot)
    }

    /// The same with another bound on the bytes that readings in token space are kept in; 0 keeps none. Answers do not depend
    /// on it.
    pub fn with_kept_readings(self, bytes: usize) -> Self {
        Engine { kept: KeptReadings::new(bytes), ..self }
    }

    pub(crate) fn kept(&self) -> &KeptReadings {
        &self.kept
    }

    /// How many bytes are kept of readings in token space, and of how many directions.
    pub fn kept_readings(&self) -> [usize; 2] {
        self.kept.size()
    }

    /// The same with the token that texts begin with in the way of the model's kind.
    pub fn with_beginning(self, beginning: Option<u32>) -> Self {
        Engine { beginning, ..self }
    }

    /// The token that texts begin with in the way of the model's kind; prompts have it only where it stands in them.
    pub fn beginning(&self) -> Option<u32> {
        self.beginning
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn model(&self) -> &Transformer {
        &self.model
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a prompt, which stands at `field` of the request.
    ///
    /// # Errors
    /// If there are none.
    pub(crate) fn tokens_of(&self, field: &str, prompt: &str) -> Result<Vec<u32>, Error> {
        let tokens = self.tokenizer.encode(prompt);
        match (tokens.is_empty(), prompt.is_empty()) {
            (false, _) => Ok(tokens),
            (true, true) => bad!(at field, "is empty; give at least one token, such as \"<|endoftext|>\""),
            (true, false) => bad!(at field, "cannot be split: this model has no token for a part of it"),
        }
    }

    /// The text of one token, alone.
    pub fn token_text(&self, token: u32) -> String {
        self.tokenizer.decode_token(token)
    }

    /// By row of the vocabulary: whether readings in token space leave it out, because no token belongs to the row, or
    /// because it is one of GPT-2's rare tokens. `None` if none is left out.
    pub fn unread_tokens(&self) -> Option<&[bool]> {
        self.unread_tokens.as_deref()
    }

    /// Whether a token belongs to this row of the vocabulary: models are padded to round numbers of rows.
    pub fn has_token(&self, row: usize) -> bool {
        u32::try_from(row).is_ok_and(|id| self.tokenizer.contains(id))
    }

    /// The tokens of a field of the request.
    ///
    /// # Errors
    /// If one is not exactly one token.
    pub(crate) fn tokens_of_field(&self, field: &str, tokens: &[TokenRef]) -> Result<Vec<u32>, Error> {
        let one = |(i, token)| {
            self.token(token).map_err(|what| Error::BadField { field: FieldPath::of(field).index(i), what })
        };
        tokens.iter().enumerate().map(one).collect()
    }

    /// The id of the token that is named.
    ///
    /// # Errors
    /// A sentence, if not exactly one token is named, its text is not the one that is said, or the model lacks it.
    pub fn token(&self, token: &TokenRef) -> Result<u32, String> {
        let id = match token {
            TokenRef::Text(text) if text.is_empty() => {
                return Err("an empty text is no token; every entry must be exactly one token".to_owned());
            }
            TokenRef::Text(text) => self.tokenizer.single_token(text).map_err(|e| e.to_string())?,
            TokenRef::Id { id, text } => {
                let found = u32::try_from(*id).ok().filter(|id| self.tokenizer.contains(*id));
                let found = found.ok_or_else(|| format!("there is no token with the id {id}"))?;
                let own = self.token_text(found);
                if let Some(said) = text.as_ref().filter(|said| **said != own) {
                    return Err(format!("the token with the id {id} is {own:?}, not {said:?}"));
                }
                found
            }
        };
        let n_vocab = self.model.config().n_vocab;
        if id as usize >= n_vocab {
            let text = self.token_text(id);
            return Err(format!("the tokenizer's token {id} ({text:?}) is none of the model's {n_vocab}"));
        }
        Ok(id)
    }

    pub fn model_info(&self) -> ModelInfoResponse {
        ModelInfoResponse {
            model_name: Some(self.name.clone()),
            has_mlp_autoencoder: self.model.has(Slot::Mlp),
            mlp_autoencoder_name: self.mlp_autoencoder.clone(),
            has_attention_autoencoder: self.model.has(Slot::Attention),
            attention_autoencoder_name: self.attn_autoencoder.clone(),
            residual_autoencoder_name: self.residual_autoencoder.clone(),
            n_layers: self.model.config().n_layers as i64,
        }
    }
}

/// Which of `rows` rows of the vocabulary readings leave out; `None` if none.
fn unread_tokens(tokenizer: &Tokenizer, rows: usize) -> Option<Vec<bool>> {
    let mut unread: Vec<bool> = (0..rows).map(|row| !tokenizer.contains(row as u32)).collect();
    if is_gpt2(tokenizer) {
        for id in RARE_GPT2_TOKENS.lines().filter_map(|line| line.parse::<usize>().ok()) {
            if let Some(unread) = unread.get_mut(id) {
                *unread = true;
            }
        }
    }
    unread.contains(&true).then_some(unread)
}

/// Whether a tokenizer has GPT-2's vocabulary, told by some entries; there may be added tokens after it.
fn is_gpt2(tokenizer: &Tokenizer) -> bool {
    let entries = [(0, "!"), (13, "."), (262, " the"), (3340, " Canada"), (40313, "Paris"), (50256, "<|endoftext|>")];
    tokenizer.n_vocab() >= 50257 && entries.iter().all(|(id, text)| tokenizer.decode_token(*id) == *text)
}
