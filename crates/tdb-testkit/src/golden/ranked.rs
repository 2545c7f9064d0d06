//! Lists sorted by value whose entries have an identity: top tokens, attributions.

use serde_json::{Map, Value};

use super::compare::{Comparison, field, float, floats, list};

/// Identity, value, and a value derived from it.
type Entry = (String, f64, Option<f64>);

pub(super) fn top_tokens(
    c: &mut Comparison,
    path: &str,
    got: &Map<String, Value>,
    want: &Map<String, Value>,
) -> Result<(), String> {
    fn entries(tokens: &Value) -> Result<Vec<Entry>, String> {
        let entry = |t: &Value| {
            let normalized = float(&t["normalizedScalar"])?;
            let token = t["token"].as_str().ok_or("malformed: an entry without a token")?;
            Ok((token.to_owned(), float(&t["scalar"])?, Some(normalized)))
        };
        list(tokens)?.iter().map(entry).collect()
    }
    for side in c.keys(path, got, want) {
        let path = format!("{path}.{side}");
        match (entries(&got[side]), entries(&want[side])) {
            (Ok(got), Ok(want)) => compare(c, &path, &got, &want),
            (got, want) => c.bad(&path, got.err().or(want.err()).unwrap_or_default()),
        }
    }
    Ok(())
}

pub(super) fn attributions(
    c: &mut Comparison,
    path: &str,
    got: &Map<String, Value>,
    want: &Map<String, Value>,
) -> Result<(), String> {
    fn entries(object: &Map<String, Value>) -> Result<Vec<Entry>, String> {
        let ids = list(field(object, "tokenIndices")?)?.iter().map(Value::to_string);
        let values = floats(field(object, "attributions")?)?;
        Ok(ids.zip(values).map(|(id, v)| (id, v, None)).collect())
    }
    c.keys(path, got, want);
    compare(c, path, &entries(got)?, &entries(want)?);
    Ok(())
}

/// Values agree position by position; identities agree but for entries tied with the last one.
fn compare(c: &mut Comparison, path: &str, got: &[Entry], want: &[Entry]) {
    if got.len() != want.len() {
        return c.bad(path, format!("length {}, want {}", got.len(), want.len()));
    }
    let Some(&(_, edge, _)) = want.last() else { return };
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        c.number(&format!("{path}[{i}].value"), g.1, w.1);
    }
    let mut left: Vec<&Entry> = got.iter().collect();
    for w in want {
        if let Some(at) = left.iter().position(|g| g.0 == w.0 && c.close(g.1, w.1)) {
            if let (Some(g), Some(w2)) = (left.remove(at).2, w.2) {
                c.number(&format!("{path}.{:?}.normalized", w.0), g, w2);
            }
        } else if !c.close(w.1, edge) {
            c.bad(path, format!("{:?} ({}) missing and not tied with the last entry", w.0, w.1));
        }
    }
    for g in left {
        if !c.close(g.1, edge) {
            c.bad(path, format!("{:?} ({}) unexpected and not tied with the last entry", g.0, g.1));
        }
    }
}
