//! Components by words of their stored explanations.

use tdb_api::{DerivedScalarType, ExplainedComponent, ExplanationSearchResponse};

use crate::{ExplanationsEntry, Library, Location, RecordsLayout, Result, Root};

/// Layers that are looked through; no model has more.
const MOST_LAYERS: usize = 512;

impl Library {
    /// Up to `most` components whose explanation holds all the words of `text`, by set, layer and index.
    ///
    /// Only sets with one file a layer that need no network are searched: the others have a file for each component.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub async fn search_explanations(&self, text: &str, most: usize) -> Result<ExplanationSearchResponse> {
        let words: Vec<String> = text.to_lowercase().split_whitespace().map(str::to_owned).collect();
        let mut answer = ExplanationSearchResponse { found: Vec::new(), more: false, searchable: false };
        for set in &self.registry().explanations {
            let (Some(folder), Ok(dst)) = (local_layers(set), set.scalar.parse()) else { continue };
            answer.searchable = true;
            for layer in 0..if words.is_empty() { 0 } else { MOST_LAYERS } {
                let Some(mut found) = self.search_layer(set, &folder, dst, layer, &words).await? else { break };
                answer.found.append(&mut found);
                if answer.found.len() > most {
                    answer.found.truncate(most);
                    answer.more = true;
                    return Ok(answer);
                }
            }
        }
        Ok(answer)
    }

    /// The fitting components of a layer; `None` if the set has no such layer.
    async fn search_layer(
        &self,
        set: &ExplanationsEntry,
        folder: &Location,
        dst: DerivedScalarType,
        layer: usize,
        words: &[String],
    ) -> Result<Option<Vec<ExplainedComponent>>> {
        let Some(all) = self.layer_of_explanations(folder, layer).await? else { return Ok(None) };
        let fits = |text: &&str| {
            let text = text.to_lowercase();
            words.iter().all(|word| text.contains(word))
        };
        let mut found = Vec::new();
        for (index, node) in all.iter() {
            let texts = node.explanations.iter().filter_map(|e| e.explanation.as_deref());
            found.extend(texts.filter(fits).take(1).map(|explanation| ExplainedComponent {
                dataset: set.records.clone(),
                dst,
                layer_index: layer as i64,
                activation_index: *index as i64,
                explanation: explanation.to_owned(),
            }));
        }
        found.sort_by_key(|component| component.activation_index);
        Ok(Some(found))
    }
}

/// The folder of a set that can be searched.
fn local_layers(set: &ExplanationsEntry) -> Option<Location> {
    let location = Location::parse(&set.location).ok()?;
    let is_here = matches!(location.root(), Root::Local | Root::Embedded);
    (set.layout == RecordsLayout::Layers && is_here).then_some(location)
}
