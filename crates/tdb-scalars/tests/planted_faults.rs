//! A wrong engine turns a check red: one test for each mistake that can be planted.

#[path = "common/embedded.rs"]
mod embedded;

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use embedded::embedded;
use tdb_api::CheckName;
use tdb_model::fault::{Fault, plant};

/// Planted mistakes are the process's: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

struct Planted(#[allow(dead_code, reason = "held until the mistake is gone")] MutexGuard<'static, ()>);

impl Planted {
    fn new(fault: Fault) -> Self {
        let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        plant(fault);
        Planted(guard)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(Fault::None);
    }
}

/// What `tdb verify` asks of the embedded model. One is not enough: where the two most likely tokens come close to each
/// other, which another model or mistake may do, little can be missing from their difference.
const PROMPTS: [&str; 2] = ["When Mary and John went to the store, John gave a drink to", "Paris, France. Ottawa,"];

/// The checks of the embedded model that fail with a mistake.
fn failed(fault: Fault) -> Result<Vec<CheckName>> {
    let engine = embedded(true)?;
    let _planted = Planted::new(fault);
    let mut checks = Vec::new();
    for prompt in PROMPTS {
        checks.extend(engine.verify(prompt)?);
    }
    for check in &checks {
        println!("{fault:?}: {} {} {}", check.name, check.passed, check.sentence);
    }
    Ok(checks.into_iter().filter(|check| !check.passed).map(|check| check.name).collect())
}

macro_rules! faults {
    ($($name:ident: $fault:ident => $check:ident;)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                let failed = failed(Fault::$fault)?;
                assert!(failed.contains(&CheckName::$check), "{failed:?}");
                Ok(())
            }
        )*

        #[test]
        fn every_mistake_has_its_test() {
            assert_eq!(Fault::ALL, [$(Fault::$fault),*]);
        }
    };
}

faults! {
    a_dropped_bias_is_found: DroppedBias => Writes;
    a_doubled_write_is_found: DoubledWrite => Sum;
    another_epsilon_is_found: OtherEpsilon => Sum;
    permuted_heads_are_found: PermutedHeads => Writes;
    a_missing_slope_of_the_activation_is_found: LinearActivation => Gradient;
    a_wrong_gradient_of_the_softmax_is_found: SoftmaxWithoutMean => Gradient;
    a_stale_cache_is_found: StaleCache => Identity;
    runs_that_begin_late_are_found: LateStart => Whole;
    mixed_runs_are_found: MixedRuns => Sharing;
    ignored_patches_are_found: IgnoredPatch => Difference;
    shifted_patches_are_found: ShiftedPatch => Identity;
    a_doubled_dictionary_is_found: DoubledDictionary => Dictionary;
}

#[test]
fn without_a_mistake_every_check_passes() -> Result<()> {
    assert_eq!(failed(Fault::None)?, []);
    Ok(())
}
