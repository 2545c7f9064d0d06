//! Programs of different versions do not work together: each says on every request which one it is.

use std::sync::Arc;

use ballista_core::extension::EndpointOverrideFn;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// This program's version.
pub const VERSION: &str = tdb_collate::summary::VERSION;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Worker,
    Client,
}

impl Sender {
    fn name(self) -> &'static str {
        match self {
            Self::Worker => "tdb-cluster-worker",
            Self::Client => "tdb-cluster-collate",
        }
    }

    /// Puts name and version on the requests of a connection.
    pub fn sign(self) -> EndpointOverrideFn {
        let agent = format!("{}/{VERSION}", self.name());
        Arc::new(move |endpoint| Ok(endpoint.user_agent(agent.clone())?))
    }
}

/// Who sends a request, if it is of this version.
///
/// # Errors
/// With the other version's number, for whoever reads it on the other side.
pub fn check(headers: &MetadataMap) -> Result<Sender, Status> {
    let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent = agent.split(' ').next().unwrap_or_default();
    let (name, version) = agent.split_once('/').unwrap_or((agent, "unknown"));
    let sender = [Sender::Worker, Sender::Client].into_iter().find(|sender| sender.name() == name);
    match sender {
        Some(sender) if version == VERSION => Ok(sender),
        Some(_) => Err(refusal(&format!(
            "the scheduler is of version {VERSION}, {name} of version {version}; all must be of the same"
        ))),
        None => Err(refusal(&format!("{agent:?} is no part of tdb-cluster {VERSION}"))),
    }
}

fn refusal(message: &str) -> Status {
    Status::new(Code::FailedPrecondition, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on says where

    use super::*;

    #[test]
    fn another_version_is_refused_with_its_number() {
        let of = |agent: &str| {
            let mut headers = MetadataMap::new();
            headers.insert("user-agent", agent.parse().unwrap());
            check(&headers).map_err(|status| status.message().to_owned())
        };
        assert_eq!(of(&format!("tdb-cluster-worker/{VERSION} tonic/0.14")), Ok(Sender::Worker));
        assert_eq!(of(&format!("tdb-cluster-collate/{VERSION}")), Ok(Sender::Client));
        let message = of("tdb-cluster-worker/0.0.7 tonic/0.14").unwrap_err();
        assert!(message.contains(VERSION) && message.contains("tdb-cluster-worker of version 0.0.7"), "{message}");
        assert!(of("curl/8").unwrap_err().contains("no part of tdb-cluster"));
    }
}
