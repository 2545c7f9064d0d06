//! Which token a tokenizer puts before a text of its own accord. It is never put there here: whoever asks is told of it.

use serde_json::Value;

/// The id of that token, as the `post_processor` of a `tokenizer.json` has it.
pub(super) fn beginning(description: &Value) -> Option<u32> {
    of_processor(description.get("post_processor")?)
}

fn of_processor(processor: &Value) -> Option<u32> {
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    match processor.get("type")?.as_str()? {
        "Sequence" => processor.get("processors")?.as_array()?.iter().find_map(of_processor),
        "TemplateProcessing" => {
            let name = processor.get("single")?.get(0)?.get("SpecialToken")?.get("id")?.as_str()?;
            id(processor.get("special_tokens")?.get(name)?.get("ids")?.get(0)?)
        }
        "BertProcessing" | "RobertaProcessing" => id(processor.get("cls")?.get(1)?),
        _ => None,
    }
}
