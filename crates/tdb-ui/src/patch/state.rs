//! What the patch bench asks, as it stands in the address and as a request.

use tdb_api::page::token_pairs;
use tdb_api::{
    ActivationLocationType as Location, AllOrOneIndex, AttentionTraceType, MirroredActivationIndex, PassType,
    PatchCell, PatchDirection, PatchGroup, PatchMetric, PatchPath, PatchRequest, PatchUnits, PatchedCell, TokenPair,
    TokenRef,
};

use crate::server::Facts;

/// Everything but what is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub clean: String,
    pub corrupted: String,
    pub target: String,
    pub distractor: String,
    pub direction: PatchDirection,
    pub metric: PatchMetric,
    /// Pairs of tokens as `clean:corrupted`, separated by spaces; empty for those at the same positions.
    pub alignment: String,
    /// Heads that paths from the chosen cell lead to.
    pub path_end: Option<PathEnd>,
    /// Whether cells open into latents.
    pub latents: bool,
}

/// The heads of a layer, by their query, key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathEnd {
    pub layer: i64,
    pub through: AttentionTraceType,
}

impl PathEnd {
    pub fn word(self) -> String {
        format!("{}.{}", self.layer, self.through)
    }

    pub fn parse(word: &str) -> Option<Self> {
        let (layer, through) = word.split_once('.')?;
        Some(Self { layer: layer.parse().ok()?, through: through.parse().ok()? })
    }
}

/// What the model has that a cell can be opened into.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    pub layers: i64,
    heads: i64,
    /// Layers with latents of the MLP and of attention.
    latents: [Vec<i64>; 2],
}

impl Parts {
    pub fn of(facts: &Facts) -> Self {
        let server = facts.server.as_ref();
        let latents = |of: Option<&tdb_api::AutoencoderInfo>| of.map(|of| of.layers.clone()).unwrap_or_default();
        Self {
            layers: facts.model.n_layers,
            heads: server.and_then(|s| s.shape.as_ref()).map_or(0, |shape| shape.n_heads),
            latents: [
                latents(server.and_then(|s| s.mlp_autoencoder.as_ref())),
                latents(server.and_then(|s| s.attention_autoencoder.as_ref())),
            ],
        }
    }

    /// The kinds of parts of a cell, each part patched alone, with a heading; latents in place of heads and neurons, if
    /// they are asked for and there are any.
    pub fn units(&self, place: Place, latents: bool) -> Vec<(Location, &'static str)> {
        match place.group {
            _ if latents && self.has_latents(place) => match place.group {
                PatchGroup::Mlp => vec![(Location::OnlineMlpAutoencoderLatent, "Latents")],
                _ => vec![(Location::OnlineAttentionAutoencoderLatent, "Latents")],
            },
            PatchGroup::Attention => vec![
                (Location::AttnWeightedSumOfValues, "Heads"),
                (Location::AttnQuery, "Queries"),
                (Location::AttnKey, "Keys"),
                (Location::AttnValue, "Values"),
            ],
            PatchGroup::Mlp => vec![(Location::MlpPostAct, "Neurons")],
            PatchGroup::Residual => vec![
                (Location::AttnWeightedSumOfValues, "Heads of the layer"),
                (Location::MlpPostAct, "Neurons of the layer"),
            ],
            _ => Vec::new(),
        }
    }

    /// Whether a dictionary describes what is written there.
    pub fn has_latents(&self, place: Place) -> bool {
        let [mlp, attention] = &self.latents;
        match place.group {
            PatchGroup::Mlp => mlp.contains(&place.layer),
            PatchGroup::Attention => attention.contains(&place.layer),
            _ => false,
        }
    }

    /// Layers whose heads a path from a cell can lead to; none from the middle of the residual stream, which is no
    /// node.
    pub fn reached(&self, place: Place) -> std::ops::Range<i64> {
        match place.group {
            PatchGroup::Residual if place.layer > 0 => 0..0,
            PatchGroup::Residual => 0..self.layers,
            _ => place.layer + 1..self.layers,
        }
    }
}

/// What a head at all tokens is patched in, with headings.
pub const OF_HEAD: [(Location, &str); 4] = [
    (Location::AttnWeightedSumOfValues, "Output"),
    (Location::AttnQuery, "Query"),
    (Location::AttnKey, "Key"),
    (Location::AttnValue, "Value"),
];

impl Default for Asked {
    fn default() -> Self {
        Self {
            clean: "<|endoftext|>When Mary and John went to the store, John gave a drink to".into(),
            corrupted: "<|endoftext|>When John and Mary went to the store, Mary gave a drink to".into(),
            target: " Mary".into(),
            distractor: " John".into(),
            direction: PatchDirection::Denoising,
            metric: PatchMetric::LogitDifference,
            alignment: String::new(),
            path_end: None,
            latents: false,
        }
    }
}

/// A cell of a heat map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub group: PatchGroup,
    pub layer: i64,
    /// The token, or for heads the head.
    pub at: i64,
}

impl Place {
    /// Of a heat map's cell.
    pub fn of(cell: &PatchedCell) -> Option<Self> {
        Some(Self { group: cell.group, layer: cell.layer_index?, at: cell.token_index.or(cell.unit)? })
    }

    fn word(self) -> String {
        format!("{}.{}.{}", self.group, self.layer, self.at)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split('.');
        let group = parts.next()?.parse().ok()?;
        let (layer, at) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { group, layer, at })
    }

    /// In words.
    pub fn label(self) -> String {
        let (layer, at) = (self.layer, self.at);
        match self.group {
            PatchGroup::Residual => format!("residual stream before layer {layer} at token {at}"),
            PatchGroup::Attention => format!("attention layer {layer} at token {at}"),
            PatchGroup::Mlp => format!("MLP layer {layer} at token {at}"),
            _ => format!("head {layer}:{at}"),
        }
    }

    /// Whether a patch here can change what is there: later layers read it, from this token on.
    pub fn reaches(self, there: Self) -> bool {
        let at_a_token = |place: Self| place.group != PatchGroup::Heads;
        // The order in which a layer computes: the stream before it, attention, MLP.
        let order = |place: Self| match place.group {
            PatchGroup::Residual => (place.layer, 0),
            PatchGroup::Attention => (place.layer, 1),
            _ => (place.layer, 2),
        };
        // Only attention carries something to later tokens.
        at_a_token(self)
            && at_a_token(there)
            && order(there) > order(self)
            && (there.at == self.at || (there.at > self.at && carries(self, there)))
    }

    /// The activation that it patches.
    fn site(self) -> MirroredActivationIndex {
        let one = AllOrOneIndex::One;
        match self.group {
            PatchGroup::Residual if self.layer == 0 => index(Location::ResidPostEmbedding, None, vec![one(self.at)]),
            PatchGroup::Residual => index(Location::ResidPostMlp, Some(self.layer - 1), vec![one(self.at)]),
            PatchGroup::Attention => index(Location::ResidDeltaAttn, Some(self.layer), vec![one(self.at)]),
            PatchGroup::Mlp => index(Location::ResidDeltaMlp, Some(self.layer), vec![one(self.at)]),
            _ => {
                let all = AllOrOneIndex::All;
                index(Location::AttnWeightedSumOfValues, Some(self.layer), vec![all, one(self.at)])
            }
        }
    }
}

/// Whether an attention layer stands between the two.
fn carries(from: Place, there: Place) -> bool {
    let first = if from.group == PatchGroup::Residual { from.layer } else { from.layer + 1 };
    let last = if there.group == PatchGroup::Residual { there.layer - 1 } else { there.layer };
    first <= last
}

fn index(location: Location, layer: Option<i64>, tensor_indices: Vec<AllOrOneIndex>) -> MirroredActivationIndex {
    MirroredActivationIndex {
        activation_location_type: location,
        tensor_indices,
        layer_index: layer,
        pass_type: PassType::Forward,
    }
}

impl Asked {
    /// Reads an address; what is not there is at its default.
    pub fn from_query(query: &str) -> (Self, Vec<Place>) {
        let (mut asked, mut chosen) = (Self::default(), Vec::new());
        for (name, value) in pairs(query) {
            match name.as_str() {
                "clean" => asked.clean = value,
                "corrupted" => asked.corrupted = value,
                "target" => asked.target = value,
                "distractor" => asked.distractor = value,
                "direction" => asked.direction = value.parse().unwrap_or(asked.direction),
                "metric" => asked.metric = value.parse().unwrap_or(asked.metric),
                "alignment" => asked.alignment = value,
                "latents" => asked.latents = value == "true",
                "into" => asked.path_end = PathEnd::parse(&value),
                "cells" => chosen = value.split(' ').filter_map(Place::parse).collect(),
                _ => {}
            }
        }
        (asked, chosen)
    }

    pub fn to_query(&self, chosen: &[Place]) -> String {
        let cells: Vec<String> = chosen.iter().map(|place| place.word()).collect();
        let into = self.path_end.map(PathEnd::word).unwrap_or_default();
        let all = [
            ("clean", self.clean.as_str()),
            ("corrupted", &self.corrupted),
            ("target", &self.target),
            ("distractor", &self.distractor),
            ("direction", self.direction.as_str()),
            ("metric", self.metric.as_str()),
            ("alignment", &self.alignment),
            ("cells", &cells.join(" ")),
            ("into", &into),
            ("latents", if self.latents { "true" } else { "" }),
        ];
        let written = all.iter().filter(|(_, value)| !value.is_empty());
        written.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }

    /// The question whose answer the heat maps show.
    pub fn request(&self) -> PatchRequest {
        let tokens = |text: &str| (!text.is_empty()).then(|| vec![TokenRef::from(text)]);
        let is = |metric| self.metric == metric;
        PatchRequest {
            clean_prompt: self.clean.clone(),
            corrupted_prompt: self.corrupted.clone(),
            direction: self.direction,
            metric: self.metric,
            target_tokens: tokens(&self.target).filter(|_| !is(PatchMetric::KlDivergence)),
            distractor_tokens: tokens(&self.distractor).filter(|_| is(PatchMetric::LogitDifference)),
            alignment: self.pairs(),
            grids: None,
            cells: None,
            units: None,
            paths: None,
            only_price: false,
        }
    }

    /// The question about what is chosen: the parts of one cell and paths from it, or several cells together.
    pub fn drill(&self, chosen: &[Place], parts: &Parts) -> Option<PatchRequest> {
        let mut request = PatchRequest { grids: Some(Vec::new()), ..self.request() };
        match chosen {
            [] => return None,
            [place] if place.group == PatchGroup::Heads => {
                let indices = || vec![AllOrOneIndex::All, AllOrOneIndex::One(place.at)];
                let cell = |(location, _)| PatchCell { sites: vec![index(location, Some(place.layer), indices())] };
                request.cells = Some(OF_HEAD.into_iter().map(cell).collect());
            }
            [place] => {
                let units = |(location, _)| PatchUnits {
                    activation_location_type: location,
                    layer_index: place.layer,
                    token_index: place.at,
                    most: 16,
                };
                request.units = Some(parts.units(*place, self.latents).into_iter().map(units).collect());
            }
            several => {
                let sites = several.iter().map(|place| place.site()).collect();
                request.cells = Some(vec![PatchCell { sites }]);
            }
        }
        if let ([place], Some(end)) = (chosen, self.path_end)
            && parts.reached(*place).contains(&end.layer)
        {
            let path = |to_head| PatchPath { from: place.site(), to_layer: end.layer, to_head, through: end.through };
            request.paths = Some((0..parts.heads).map(path).collect());
        }
        Some(request)
    }

    /// The state in which a residual stream of one run at token `source` stands in the other run at token `target`.
    pub fn put(&self, from_clean: bool, source: i64, target: i64, aligned: &[TokenPair]) -> Self {
        let direction = if from_clean { PatchDirection::Denoising } else { PatchDirection::Noising };
        let (clean, corrupted) = if from_clean { (source, target) } else { (target, source) };
        let new = TokenPair { clean, corrupted };
        let mut asked = Self { direction, ..self.clone() };
        if !aligned.contains(&new) {
            let others = aligned.iter().filter(|pair| pair.clean != clean && pair.corrupted != corrupted);
            let pairs = others.chain([&new]).map(|pair| format!("{}:{}", pair.clean, pair.corrupted));
            asked.alignment = pairs.collect::<Vec<_>>().join(" ");
        }
        asked
    }

    fn pairs(&self) -> Option<Vec<TokenPair>> {
        let pairs = token_pairs(&self.alignment).into_iter();
        let pairs: Vec<_> = pairs.map(|(clean, corrupted)| TokenPair { clean, corrupted }).collect();
        (!pairs.is_empty()).then_some(pairs)
    }

    /// The prompt with target and distractor exchanged wherever they stand: it has as many tokens, and the other
    /// answer.
    pub fn swapped(&self) -> Option<String> {
        let (target, distractor) = (self.target.trim(), self.distractor.trim());
        if target.is_empty() || distractor.is_empty() {
            return None;
        }
        const MARK: char = '\u{0}';
        let marked = self.clean.replace(target, &MARK.to_string());
        let swapped = marked.replace(distractor, target).replace(MARK, distractor);
        (swapped != self.clean).then_some(swapped)
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            b' ' => "+".to_owned(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// Names and values of a query string.
fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.trim_start_matches('?').split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_the_whole_state() {
        let asked = Asked {
            clean: "A & b = 100% \u{2603}\n".into(),
            direction: PatchDirection::Noising,
            metric: PatchMetric::Probability,
            alignment: "0:1 2:3".into(),
            path_end: Some(PathEnd { layer: 2, through: AttentionTraceType::K }),
            latents: true,
            ..Asked::default()
        };
        let chosen = vec![
            Place { group: PatchGroup::Mlp, layer: 3, at: 14 },
            Place { group: PatchGroup::Heads, layer: 1, at: 2 },
        ];
        let (read, places) = Asked::from_query(&format!("?{}", asked.to_query(&chosen)));
        assert_eq!((read, places), (asked, chosen));
    }

    #[test]
    fn a_prompt_is_corrupted_by_exchanging_the_names() {
        let asked = Asked { corrupted: String::new(), ..Asked::default() };
        assert_eq!(asked.swapped().unwrap(), Asked::default().corrupted);
        assert_eq!(Asked { distractor: String::new(), ..Asked::default() }.swapped(), None);
    }

    fn parts() -> Parts {
        Parts { layers: 4, heads: 8, latents: [vec![2], Vec::new()] }
    }

    #[test]
    fn one_chosen_cell_opens_and_several_are_patched_together() {
        let place = |group| Place { group, layer: 2, at: 5 };
        let asked = Asked::default();
        let drill = |chosen: &[Place]| asked.drill(chosen, &parts());
        assert!(drill(&[]).is_none());
        assert_eq!(drill(&[place(PatchGroup::Attention)]).unwrap().units.unwrap().len(), 4);
        let of_latents = Asked { latents: true, ..asked.clone() };
        let location = |asked: &Asked, group| {
            let units = asked.drill(&[place(group)], &parts()).unwrap().units.unwrap();
            units[0].activation_location_type
        };
        assert_eq!(location(&asked, PatchGroup::Mlp), Location::MlpPostAct);
        assert_eq!(location(&of_latents, PatchGroup::Mlp), Location::OnlineMlpAutoencoderLatent);
        assert_eq!(location(&of_latents, PatchGroup::Attention), Location::AttnWeightedSumOfValues, "none are there");
        assert_eq!(drill(&[place(PatchGroup::Heads)]).unwrap().cells.unwrap().len(), OF_HEAD.len());
        let several = drill(&[place(PatchGroup::Mlp), place(PatchGroup::Residual)]).unwrap().cells.unwrap();
        assert_eq!((several.len(), several[0].sites.len()), (1, 2));
        assert_eq!(asked.request().alignment, None);
        let aligned = Asked { alignment: "0:0 3:2".into(), ..asked };
        assert_eq!(aligned.request().alignment.unwrap()[1], TokenPair { clean: 3, corrupted: 2 });
    }

    #[test]
    fn a_patch_reaches_later_tokens_through_attention_alone() {
        let place = |group, layer, at| Place { group, layer, at };
        let (stream, attention, mlp) = (PatchGroup::Residual, PatchGroup::Attention, PatchGroup::Mlp);
        let from = place(stream, 1, 5);
        assert!(from.reaches(place(attention, 1, 7)) && from.reaches(place(mlp, 1, 7)), "its own layer reads it");
        assert!(!from.reaches(place(stream, 2, 4)), "an earlier token");
        assert!(!from.reaches(place(mlp, 0, 5)), "an earlier layer");
        let from = place(mlp, 1, 5);
        assert!(from.reaches(place(stream, 2, 5)) && !from.reaches(place(stream, 2, 6)));
        assert!(from.reaches(place(attention, 2, 6)) && !from.reaches(place(mlp, 1, 6)));
        assert!(!from.reaches(place(PatchGroup::Heads, 3, 6)), "heads stand for all tokens");
    }

    #[test]
    fn paths_lead_from_a_node_to_the_heads_of_a_later_layer() {
        let asked = Asked { path_end: PathEnd::parse("3.V"), ..Asked::default() };
        let paths = |group, layer| asked.drill(&[Place { group, layer, at: 5 }], &parts()).unwrap().paths;
        let from_mlp = paths(PatchGroup::Mlp, 2).unwrap();
        assert_eq!((from_mlp.len(), from_mlp[7].to_layer, from_mlp[7].to_head), (8, 3, 7));
        assert_eq!(paths(PatchGroup::Mlp, 3), None, "its own layer has read already");
        assert_eq!(paths(PatchGroup::Residual, 1), None, "no node writes there");
        let from_embedding = paths(PatchGroup::Residual, 0).unwrap();
        assert_eq!(from_embedding[0].from.activation_location_type, Location::ResidPostEmbedding);
        assert_eq!(asked.path_end.unwrap().word(), "3.V");
    }

    #[test]
    fn a_residual_stream_that_is_put_elsewhere_changes_the_alignment() {
        let same = |n: i64| (0..n).map(|at| TokenPair { clean: at, corrupted: at }).collect::<Vec<_>>();
        let asked = Asked::default();
        let put = asked.put(false, 2, 2, &same(4));
        assert_eq!((put.direction, put.alignment.as_str()), (PatchDirection::Noising, ""));
        let put = asked.put(true, 1, 3, &same(4));
        assert_eq!((put.direction, put.alignment.as_str()), (PatchDirection::Denoising, "0:0 2:2 1:3"));
    }
}
