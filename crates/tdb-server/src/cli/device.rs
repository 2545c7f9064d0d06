//! Where a model runs: `--device`.

use anyhow::{Context, bail};
use std::fmt;
use std::str::FromStr;
use tdb_model::Device;

/// What `--device` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The first GPU that this program was built for and that is there; else the processor.
    #[default]
    Auto,
    Cpu,
    /// An NVIDIA GPU, by number.
    Cuda(usize),
    /// An Apple GPU, by number.
    Metal(usize),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = match text.split_once(':') {
            None => (text, None),
            Some((kind, number)) => (kind, Some(number.parse().map_err(|_| format!("{number:?} is no number"))?)),
        };
        match (kind, number) {
            ("auto", None) => Ok(Wanted::Auto),
            ("cpu", None) => Ok(Wanted::Cpu),
            ("cuda", number) => Ok(Wanted::Cuda(number.unwrap_or(0))),
            ("metal", number) => Ok(Wanted::Metal(number.unwrap_or(0))),
            _ => Err("say auto, cpu, cuda, cuda:NUMBER or metal".to_owned()),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Auto => f.write_str("auto"),
            Wanted::Cpu => f.write_str("cpu"),
            Wanted::Cuda(number) => write!(f, "cuda:{number}"),
            Wanted::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

/// Which kinds of devices this program was built for, as `--device` names them.
const BUILT_FOR: &[&str] = &[
    "cpu",
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "metal")]
    "metal",
];

impl Wanted {
    /// The device.
    ///
    /// # Errors
    /// If it is not there, or this program was built without what it needs.
    pub fn open(self) -> anyhow::Result<Device> {
        let (name, opened) = match self {
            Wanted::Cpu => return Ok(Device::Cpu),
            Wanted::Auto => return Ok(first_gpu().unwrap_or(Device::Cpu)),
            Wanted::Cuda(number) => ("cuda", built_for("cuda").map(|()| Device::new_cuda(number))?),
            Wanted::Metal(number) => ("metal", built_for("metal").map(|()| Device::new_metal(number))?),
        };
        opened.with_context(|| format!("--device {self}: there is no such {name} device here that answers"))
    }
}

fn built_for(kind: &str) -> anyhow::Result<()> {
    if !BUILT_FOR.contains(&kind) {
        let built = BUILT_FOR.join(", ");
        bail!("--device {kind}: this program was built for {built} only; docs/gpu.md says how to build it for {kind}");
    }
    Ok(())
}

fn first_gpu() -> Option<Device> {
    let gpus = [Wanted::Cuda(0), Wanted::Metal(0)];
    gpus.into_iter().find_map(|gpu| match gpu.open() {
        Ok(device) => Some(device),
        Err(error) => {
            tracing::debug!("{error:#}");
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_kind_and_number() {
        let parsed = ["auto", "cpu", "cuda", "cuda:2", "metal"].map(|text| text.parse::<Wanted>().unwrap());
        assert_eq!(parsed, [Wanted::Auto, Wanted::Cpu, Wanted::Cuda(0), Wanted::Cuda(2), Wanted::Metal(0)]);
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "auto:1"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_was_not_built_for_is_refused_with_what_there_is() {
        let refused = format!("{:#}", Wanted::Cuda(0).open().unwrap_err());
        assert!(refused.contains("built for cpu") && refused.contains("docs/gpu.md"), "{refused}");
        assert!(Wanted::Auto.open().unwrap().is_cpu());
    }
}
