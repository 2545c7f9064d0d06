//! Rotary positions, in the forms in which versions of `transformers` have written them: `rope_theta` and
//! `rope_scaling` beside the other settings, or both in `rope_parameters`.

use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::config::{Rotary, RotaryScaling};

use super::settings::agreed_number;

/// θ where no setting says it.
pub(super) const BASE: f64 = 10_000.0;

/// The longest prompt that the model was trained with before it was stretched.
const CONTEXT: &str = "original_max_position_embeddings";

/// The same rotation of whole heads in all layers.
pub(super) fn rotary(settings: &Settings<'_>, d_head: usize, absent_base: f64) -> Result<Rotary, CheckpointError> {
    whole_head(settings, d_head)?;
    let inner = parameters(settings)?;
    let base = base(settings, "rope_theta", inner, absent_base)?;
    Ok(Rotary { dims: d_head, base, scaling: scaling(settings, inner)? })
}

/// Gemma 3's: the rotation of layers that see all tokens, and that of layers with a window.
pub(super) fn rotary_by_window(settings: &Settings<'_>, d_head: usize) -> Result<[Rotary; 2], CheckpointError> {
    whole_head(settings, d_head)?;
    let inner = parameters(settings)?;
    let nests = |inner: Settings<'_>| inner.has("full_attention") || inner.has("sliding_attention");
    let is_nested = inner.is_some_and(nests);
    // `transformers` takes no notice of parameters for all layers at once, other than under the older name.
    if settings.object("rope_parameters")?.is_some_and(|new| !new.is_empty() && !nests(new)) {
        return Err(settings.unexpected("rope_parameters", "an object each for full_attention and sliding_attention"));
    }
    let (full, windowed) = match inner {
        Some(inner) if is_nested => {
            inner.only(&["full_attention", "sliding_attention"])?;
            (inner.object("full_attention")?, inner.object("sliding_attention")?)
        }
        other => (other, None),
    };
    let rotary = |key: &str, inner: Option<Settings<'_>>, absent: f64| {
        Ok(Rotary { dims: d_head, base: base(settings, key, inner, absent)?, scaling: scaling(settings, inner)? })
    };
    Ok([rotary("rope_theta", full, 1e6)?, rotary("rope_local_base_freq", windowed, BASE)?])
}

/// The object that describes the rotation, if there is one.
pub(super) fn parameters<'a>(settings: &Settings<'a>) -> Result<Option<Settings<'a>>, CheckpointError> {
    let filled = |key: &str| Ok(settings.object(key)?.filter(|inner| !inner.is_empty()));
    match (filled("rope_parameters")?, filled("rope_scaling")?) {
        (Some(_), Some(_)) if settings.get("rope_parameters") != settings.get("rope_scaling") => {
            Err(settings.unexpected("rope_scaling", "the same as rope_parameters"))
        }
        (new, old) => Ok(new.or(old)),
    }
}

/// How the frequencies are stretched.
pub(super) fn scaling(settings: &Settings<'_>, inner: Option<Settings<'_>>) -> Result<RotaryScaling, CheckpointError> {
    let Some(inner) = inner else { return Ok(RotaryScaling::None) };
    let kind = match (inner.get("rope_type"), inner.get("type")) {
        (None, None) => "default",
        (Some(new), Some(old)) if new != old => return Err(inner.unexpected("type", &format!("{new}, as rope_type"))),
        (Some(_), _) => inner.text("rope_type")?,
        (None, Some(_)) => inner.text("type")?,
    };
    let only =
        |more: &[&str]| inner.only(&[&["rope_type", "type", "rope_theta", "partial_rotary_factor"], more].concat());
    let number = |key: &str| Ok(inner.positive(key)? as f32);
    match kind {
        "default" => only(&[]).map(|()| RotaryScaling::None),
        "linear" => {
            only(&["factor"])?;
            Ok(RotaryScaling::Linear { factor: number("factor")? })
        }
        // It stretches only what is longer than max_position_embeddings, which no prompt here may be.
        "dynamic" => {
            only(&["factor", CONTEXT])?;
            number("factor").map(|_| RotaryScaling::None)
        }
        "llama3" => {
            only(&["factor", "low_freq_factor", "high_freq_factor", CONTEXT])?;
            let original_context = original_context(settings, inner)?;
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            if high <= low {
                return Err(inner.unexpected("high_freq_factor", &format!("more than low_freq_factor, {low}")));
            }
            let factor = number("factor")?;
            Ok(RotaryScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context })
        }
        "yarn" => yarn(settings, inner, only),
        _ => {
            let key = if inner.has("rope_type") { "rope_type" } else { "type" };
            Err(inner.unexpected(key, "\"default\", \"linear\", \"dynamic\", \"llama3\" or \"yarn\""))
        }
    }
}

fn original_context(settings: &Settings<'_>, inner: Settings<'_>) -> Result<usize, CheckpointError> {
    if inner.get(CONTEXT).is_some() { inner.size(CONTEXT) } else { settings.size("max_position_embeddings") }
}

/// YaRN's settings, with what `transformers` takes where one is missing. Unless the amplitude is told, it is
/// `m(factor, mscale) / m(factor, mscale_all_dim)` where both are told, else `m(factor, 1)`, with
/// `m(s, a) = 0.1 a ln(s) + 1` for `s > 1`, else 1.
fn yarn(
    settings: &Settings<'_>,
    inner: Settings<'_>,
    only: impl Fn(&[&str]) -> Result<(), CheckpointError>,
) -> Result<RotaryScaling, CheckpointError> {
    const AMPLITUDE: &str = "attention_factor";
    only(&["factor", CONTEXT, AMPLITUDE, "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"])?;
    let optional = |key: &str| inner.get(key).map(|_| inner.positive(key)).transpose();
    let factor = inner.positive("factor")?;
    let m = |a: f64| if factor > 1.0 { 0.1 * a * factor.ln() + 1.0 } else { 1.0 };
    let amplitude = match (optional(AMPLITUDE)?, optional("mscale")?, optional("mscale_all_dim")?) {
        (Some(told), ..) => told,
        (None, Some(above), Some(below)) => m(above) / m(below),
        _ => m(1.0),
    };
    let (fast, slow) = (optional("beta_fast")?.unwrap_or(32.0), optional("beta_slow")?.unwrap_or(1.0));
    if fast < slow {
        return Err(inner.unexpected("beta_fast", &format!("at least beta_slow, {slow}")));
    }
    Ok(RotaryScaling::Yarn {
        factor: factor as f32,
        beta_fast: fast as f32,
        beta_slow: slow as f32,
        original_context: original_context(settings, inner)?,
        truncate: inner.flag("truncate", true)?,
        amplitude: amplitude as f32,
    })
}

fn base(settings: &Settings<'_>, key: &str, inner: Option<Settings<'_>>, absent: f64) -> Result<f32, CheckpointError> {
    let places = [Some((*settings, key)), inner.map(|inner| (inner, "rope_theta"))];
    let places: Vec<_> = places.into_iter().flatten().filter(|(settings, key)| settings.get(key).is_some()).collect();
    if places.is_empty() { Ok(absent as f32) } else { Ok(agreed_number(&places)?.0 as f32) }
}

/// Refuses a rotation of a part of each head.
fn whole_head(settings: &Settings<'_>, d_head: usize) -> Result<(), CheckpointError> {
    let whole = |settings: &Settings<'_>| match settings.get("partial_rotary_factor") {
        None => Ok(()),
        Some(share) if share.as_f64() == Some(1.0) => Ok(()),
        Some(_) => Err(settings.unexpected("partial_rotary_factor", "1")),
    };
    whole(settings)?;
    parameters(settings)?.iter().try_for_each(whole)?;
    if !d_head.is_multiple_of(2) {
        let key = if settings.get("head_dim").is_some() { "head_dim" } else { "num_attention_heads" };
        return Err(settings.unexpected(key, &format!("such that heads have an even width, not {d_head}")));
    }
    Ok(())
}
