//! What the patch bench asks, as it stands in the address and as a request.

use tdb_api::{
    ActivationLocationType as Location, AllOrOneIndex, MirroredActivationIndex, PassType, PatchCell, PatchDirection,
    PatchGroup, PatchMetric, PatchRequest, PatchUnits, TokenPair, TokenRef,
};

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
}

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
                "cells" => chosen = value.split(' ').filter_map(Place::parse).collect(),
                _ => {}
            }
        }
        (asked, chosen)
    }

    pub fn to_query(&self, chosen: &[Place]) -> String {
        let cells: Vec<String> = chosen.iter().map(|place| place.word()).collect();
        let all = [
            ("clean", self.clean.as_str()),
            ("corrupted", &self.corrupted),
            ("target", &self.target),
            ("distractor", &self.distractor),
            ("direction", self.direction.as_str()),
            ("metric", self.metric.as_str()),
            ("alignment", &self.alignment),
            ("cells", &cells.join(" ")),
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

    /// The question about what is chosen: the parts of one cell, or several cells together.
    pub fn drill(&self, chosen: &[Place]) -> Option<PatchRequest> {
        let mut request = PatchRequest { grids: Some(Vec::new()), ..self.request() };
        match chosen {
            [] => return None,
            [place] => {
                let units = |location, token| PatchUnits {
                    activation_location_type: location,
                    layer_index: place.layer,
                    token_index: token,
                    most: 16,
                };
                let heads =
                    [Location::AttnWeightedSumOfValues, Location::AttnQuery, Location::AttnKey, Location::AttnValue];
                let locations: Vec<Location> = match place.group {
                    PatchGroup::Attention => heads.to_vec(),
                    PatchGroup::Mlp => vec![Location::MlpPostAct],
                    PatchGroup::Residual => vec![Location::AttnWeightedSumOfValues, Location::MlpPostAct],
                    // A head at all tokens: its output, query, key and value together, one after the other.
                    _ => {
                        let one = |location| PatchCell {
                            sites: vec![index(
                                location,
                                Some(place.layer),
                                vec![AllOrOneIndex::All, AllOrOneIndex::One(place.at)],
                            )],
                        };
                        request.cells = Some(heads.into_iter().map(one).collect());
                        return Some(request);
                    }
                };
                request.units = Some(locations.into_iter().map(|location| units(location, place.at)).collect());
            }
            several => {
                let sites = several.iter().map(|place| place.site()).collect();
                request.cells = Some(vec![PatchCell { sites }]);
            }
        }
        Some(request)
    }

    fn pairs(&self) -> Option<Vec<TokenPair>> {
        let words: Vec<&str> = self.alignment.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let number = |text: &str| text.trim().parse().unwrap_or(-1);
        let pair = |word: &&str| match word.split_once(':') {
            Some((clean, corrupted)) => TokenPair { clean: number(clean), corrupted: number(corrupted) },
            None => TokenPair { clean: number(word), corrupted: number(word) },
        };
        (!words.is_empty()).then(|| words.iter().map(pair).collect())
    }

    /// The prompt with target and distractor exchanged wherever they stand: it has as many tokens, and the other answer.
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

    #[test]
    fn one_chosen_cell_opens_and_several_are_patched_together() {
        let place = |group| Place { group, layer: 2, at: 5 };
        let asked = Asked::default();
        assert!(asked.drill(&[]).is_none());
        assert_eq!(asked.drill(&[place(PatchGroup::Attention)]).unwrap().units.unwrap().len(), 4);
        assert_eq!(asked.drill(&[place(PatchGroup::Heads)]).unwrap().cells.unwrap().len(), 4);
        let several = asked.drill(&[place(PatchGroup::Mlp), place(PatchGroup::Residual)]).unwrap().cells.unwrap();
        assert_eq!((several.len(), several[0].sites.len()), (1, 2));
        assert_eq!(asked.request().alignment, None);
        let aligned = Asked { alignment: "0:0 3:2".into(), ..asked };
        assert_eq!(aligned.request().alignment.unwrap()[1], TokenPair { clean: 3, corrupted: 2 });
    }
}
