//! Where a file lives, as one line of text: `https://…`, `az://account/container/…`, `s3://…`, `gs://…`, `file://…`, a
//! folder's path, `hf:owner/name[@revision][/…]`, or `embedded:…` for what the program itself carries.
//!
//! A [`Location`] comes from the registry or the command line, never from a request. What requests contribute, layer and
//! index, is joined as numbers; [`Location::join`] refuses anything that could lead elsewhere.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// The store a location is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Root {
    /// A web server: scheme, host and port, such as `https://example.org:8080`.
    Http(String),
    /// Azure Blob Storage.
    Azure { account: String, container: String },
    /// A bucket of an S3-compatible store.
    S3(String),
    /// A bucket of Google Cloud Storage.
    Gcs(String),
    /// A Hugging Face repository.
    HuggingFace { repository: String, revision: String },
    /// What the hub says of a repository, such as the names of its files.
    HuggingFaceInfo { repository: String, revision: String },
    /// This machine.
    Local,
    /// This program.
    Embedded,
}

impl Root {
    /// What answers for it: the hub is one for all repositories, every other store is by itself.
    pub(crate) fn host(&self) -> Self {
        match self {
            Self::HuggingFace { .. } | Self::HuggingFaceInfo { .. } => {
                Self::HuggingFace { repository: String::new(), revision: String::new() }
            }
            other => other.clone(),
        }
    }
}

/// A file or folder in a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    root: Root,
    /// Path inside the store without a leading slash, segments separated by `/`; for [`Root::Local`] a path of the system.
    path: String,
}

impl Location {
    /// Reads a location; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::Config(format!("{text:?} is not a location: {why}"));
        if text.chars().any(char::is_control) {
            return Err(bad("it contains a control character"));
        }
        let (root, path) = if let Some(rest) = text.strip_prefix("file://") {
            (Root::Local, rest.to_string())
        } else if let Some(rest) = text.strip_prefix("hf:") {
            hugging_face(rest).ok_or_else(|| bad("expected hf:owner/name[@revision][/path]"))?
        } else if let Some(rest) = text.strip_prefix("embedded:") {
            (Root::Embedded, rest.to_string())
        } else if let Some((scheme, rest)) = text.split_once("://") {
            if rest.contains(['?', '#']) {
                return Err(bad("a query or fragment is not supported; give credentials through the environment"));
            }
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            if host.is_empty() || host.contains('@') {
                return Err(bad("expected a host or bucket without user name after ://"));
            }
            match scheme {
                "http" | "https" => (Root::Http(format!("{scheme}://{}", host.to_lowercase())), path.to_string()),
                "s3" | "s3a" => (Root::S3(host.to_string()), path.to_string()),
                "gs" | "gcs" => (Root::Gcs(host.to_string()), path.to_string()),
                "az" | "azure" => {
                    let (container, path) = path.split_once('/').unwrap_or((path, ""));
                    if container.is_empty() {
                        return Err(bad("expected az://account/container/path"));
                    }
                    let root = Root::Azure { account: host.to_string(), container: container.to_string() };
                    (root, path.to_string())
                }
                other => {
                    return Err(bad(&format!("unknown scheme {other:?}; known are https, az, s3, gs, file and hf:")));
                }
            }
        } else {
            (Root::Local, text.to_string())
        };
        if root == Root::Local && path.is_empty() {
            return Err(bad("the path is empty"));
        }
        if root != Root::Local {
            for segment in path.trim_end_matches('/').split('/').filter(|_| !path.is_empty()) {
                check_segment(segment).map_err(|why| bad(&why))?;
            }
        }
        Ok(Self { root, path })
    }

    /// The store it is in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Path inside the store, without leading or trailing slash (a path of the system for [`Root::Local`]).
    pub fn path(&self) -> &str {
        if self.root == Root::Local { &self.path } else { self.path.trim_end_matches('/') }
    }

    /// The path on this machine, if it is on this machine.
    pub fn local(&self) -> Option<&Path> {
        (self.root == Root::Local).then(|| Path::new(&self.path))
    }

    /// `relative` (segments separated by `/`) below this location. Refuses empty segments, `.`, `..`, backslashes.
    pub fn join(&self, relative: &str) -> Result<Self> {
        for segment in relative.split('/') {
            check_segment(segment).map_err(|why| Error::Bad(format!("{relative:?} is not a name: {why}")))?;
        }
        let path = if self.root == Root::Local {
            let mut path = PathBuf::from(&self.path);
            path.extend(relative.split('/'));
            path.to_string_lossy().into_owned()
        } else if self.path().is_empty() {
            relative.to_string()
        } else {
            format!("{}/{relative}", self.path())
        };
        Ok(Self { root: self.root.clone(), path })
    }

    /// For a file or folder of a Hugging Face repository, what the hub says of the repository; `None` for any other.
    pub(crate) fn repository_info(&self) -> Option<Self> {
        let Root::HuggingFace { repository, revision } = &self.root else { return None };
        let root = Root::HuggingFaceInfo { repository: repository.clone(), revision: revision.clone() };
        Some(Self { root, path: "info.json".to_owned() })
    }

    /// Path in the cache: one safe name for each part, so that a folder of a store is a folder of the cache.
    pub(crate) fn cache_path(&self) -> PathBuf {
        let first: Vec<String> = match &self.root {
            Root::Http(origin) => {
                let (scheme, host) = origin.split_once("://").unwrap_or(("https", origin));
                vec![scheme.into(), host.into()]
            }
            Root::Azure { account, container } => vec!["az".into(), account.clone(), container.clone()],
            Root::S3(bucket) => vec!["s3".into(), bucket.clone()],
            Root::Gcs(bucket) => vec!["gs".into(), bucket.clone()],
            Root::HuggingFace { repository, revision } => vec!["hf".into(), repository.clone(), revision.clone()],
            Root::HuggingFaceInfo { repository, revision } => {
                vec!["hf-info".into(), repository.clone(), revision.clone()]
            }
            Root::Local => vec!["local".into()],
            Root::Embedded => vec!["embedded".into()],
        };
        let rest = self.path().split('/').filter(|s| !s.is_empty());
        first.iter().map(String::as_str).chain(rest).map(safe_name).collect()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Http(origin) => write!(f, "{origin}/{}", self.path),
            Root::Azure { account, container } => write!(f, "az://{account}/{container}/{}", self.path),
            Root::S3(bucket) => write!(f, "s3://{bucket}/{}", self.path),
            Root::Gcs(bucket) => write!(f, "gs://{bucket}/{}", self.path),
            Root::HuggingFace { repository, revision } => {
                let revision = if revision == "main" { String::new() } else { format!("@{revision}") };
                let slash = if self.path.is_empty() { "" } else { "/" };
                write!(f, "hf:{repository}{revision}{slash}{}", self.path)
            }
            Root::HuggingFaceInfo { repository, revision } => match revision.as_str() {
                "main" => write!(f, "hf:{repository}"),
                other => write!(f, "hf:{repository}@{other}"),
            },
            Root::Local => f.write_str(&self.path),
            Root::Embedded => write!(f, "embedded:{}", self.path),
        }
    }
}

fn hugging_face(rest: &str) -> Option<(Root, String)> {
    let (owner, rest) = rest.split_once('/')?;
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let plain = |s: &str| {
        !s.is_empty() && !s.starts_with('.') && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    (plain(owner) && plain(name) && plain(revision)).then(|| {
        let root = Root::HuggingFace { repository: format!("{owner}/{name}"), revision: revision.to_string() };
        (root, path.to_string())
    })
}

fn check_segment(segment: &str) -> Result<(), String> {
    match segment {
        "" => Err("it has an empty segment".into()),
        "." | ".." => Err(format!("it contains the segment {segment:?}")),
        s if s.contains(['\\', '/']) || s.chars().any(char::is_control) => {
            Err(format!("it contains the segment {s:?}"))
        }
        _ => Ok(()),
    }
}

/// A file name for any text: letters, digits and `._-` stay, all else becomes `%XX`, a long one its hash.
fn safe_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte as char),
            b'.' if !name.is_empty() => name.push('.'),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    if name.len() > 180 {
        let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, text.as_bytes());
        name.truncate(140);
        name = format!("{name}%%{hash:016x}");
    }
    name
}

/// `PREFIX=DIR-or-URL`: locations that begin with the prefix are read from the other place instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    prefix: String,
    target: Location,
}

impl Mirror {
    /// Reads a rule as it stands on the command line.
    pub fn parse(text: &str) -> Result<Self> {
        let (prefix, target) = text
            .split_once('=')
            .ok_or_else(|| Error::Config(format!("{text:?} is not a mirror rule: expected PREFIX=DIR-or-URL")))?;
        Self::new(prefix, target)
    }

    /// A rule from its two sides.
    pub fn new(prefix: &str, target: &str) -> Result<Self> {
        let prefix = Location::parse(prefix)?.to_string();
        Ok(Self { prefix: prefix.trim_end_matches('/').to_string(), target: Location::parse(target)? })
    }

    /// Where to read `location` by this rule, or `None` if the rule does not concern it.
    pub fn apply(&self, location: &Location) -> Result<Option<Location>> {
        let text = location.to_string();
        match text.strip_prefix(&self.prefix).map(|rest| rest.trim_end_matches('/')) {
            Some("") => Ok(Some(self.target.clone())),
            Some(rest) => rest.strip_prefix('/').map(|rest| self.target.join(rest)).transpose(),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_read_and_printed_back() {
        for text in [
            "https://example.org/a/b/",
            "http://127.0.0.1:8000/a",
            "az://account/container/a/b",
            "s3://bucket/a",
            "gs://bucket/a/b c",
            "hf:owner/name",
            "hf:owner/name@v1/a/b.json",
            "embedded:records/0",
            "/some/folder",
            "relative/folder",
        ] {
            assert_eq!(Location::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Location::parse("file:///a").unwrap().local().unwrap(), Path::new("/a"));
    }

    #[test]
    fn nothing_leads_elsewhere() {
        for text in [
            "https://example.org/a/../b",
            "https://user@example.org/a",
            "https:///a",
            "https://example.org/a?b=c",
            "ftp://example.org/a",
            "hf:owner",
            "hf:owner/na me",
            "hf:owner/../x",
            "az://account",
            "s3://bucket/a//b",
            "https://example.org/a\\b\u{7}",
            "",
        ] {
            assert!(Location::parse(text).is_err(), "{text:?}");
        }
        let base = Location::parse("https://example.org/a/").unwrap();
        assert_eq!(base.join("3/7.json").unwrap().to_string(), "https://example.org/a/3/7.json");
        for name in ["..", "a/../b", "", "/etc/passwd", "a//b", "a\\b", "."] {
            assert!(base.join(name).is_err(), "{name:?}");
            assert!(Location::parse("/data").unwrap().join(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn cache_paths_are_plain_names() {
        let path = |t: &str| Location::parse(t).unwrap().cache_path().to_string_lossy().into_owned();
        assert_eq!(path("https://example.org:8080/a/b.json"), "https/example.org%3A8080/a/b.json");
        assert_eq!(path("hf:o/n/.hidden x"), "hf/o%2Fn/main/%2Ehidden%20x");
        let long = path(&format!("s3://b/{}", "x".repeat(300)));
        assert!(long.len() < 200 && long != path(&format!("s3://b/{}", "x".repeat(301))));
    }

    #[test]
    fn mirrors_map_whole_segments_only() {
        let rule = Mirror::parse("https://example.org/data=/mirror").unwrap();
        let map = |t: &str| rule.apply(&Location::parse(t).unwrap()).unwrap().map(|l| l.to_string());
        assert_eq!(map("https://example.org/data/a/b.json").as_deref(), Some("/mirror/a/b.json"));
        assert_eq!(map("https://example.org/data/").as_deref(), Some("/mirror"));
        assert_eq!(map("https://example.org/database/a"), None);
        assert_eq!(map("https://other.org/data/a"), None);
        assert!(Mirror::parse("https://example.org/data").is_err());
    }
}
