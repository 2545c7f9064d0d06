//! Replays folders of goldens, each against a server of its own, on weights computed here.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::checkpoint::{self, Parts};
use crate::golden::replay::{Options, Summary, replay};
use crate::golden::{Case, Folder, find_folders};
use crate::presets;
use crate::server::Server;

/// Where recorded answers lie and what answers anew.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// A folder of folders with goldens.
    pub goldens: PathBuf,
    /// The mirror of the public record files, if it is there.
    pub records: Option<PathBuf>,
    /// The `tdb` program.
    pub binary: PathBuf,
    /// Where to put weights and servers' logs; what is there already is used again.
    pub work: PathBuf,
}

/// The public address that `records` stands for.
const PUBLIC_RECORDS: &str = "https://openaipublic.blob.core.windows.net/";

impl Oracle {
    /// Replays the cases that `wanted` names, folder by folder, and hands lines for a person to `print`.
    ///
    /// # Errors
    /// When goldens cannot be read or weights not be written. A server that does not start fails its folder's cases.
    pub fn replay(
        &self,
        options: &Options,
        wanted: impl Fn(&Folder, &Case) -> bool,
        mut print: impl FnMut(&str),
    ) -> Result<Summary> {
        let mut total = Summary::default();
        for folder in find_folders(&self.goldens)? {
            let mut cases = folder.cases()?;
            cases.retain(|case| wanted(&folder, case));
            if cases.is_empty() {
                continue;
            }
            let args = self.server_args(&folder)?;
            let log = self.work.join(format!("{}.{}.log", folder.name, std::process::id()));
            let summary = match Server::start(&self.binary, &args, &log, Duration::from_secs(120)) {
                Ok(server) => replay(&cases, options, |case| server.send(case), &mut print),
                Err(error) => {
                    print(&format!("FAIL {}: {error:#}", folder.name));
                    let with_data = cases.iter().filter(|c| c.status == 200).count();
                    Summary { failed: cases.len(), with_data, ..Summary::default() }
                }
            };
            print(&format!("{}: {summary}", folder.name));
            total.add(&summary);
        }
        Ok(total)
    }

    /// The recorded arguments, and where the model of that name lies.
    fn server_args(&self, folder: &Folder) -> Result<Vec<String>> {
        let name = folder.server_arg("--model_name").with_context(|| format!("{}: no --model_name", folder.name))?;
        let preset = presets::preset(name)
            .with_context(|| format!("{}: model {name} is none of {}", folder.name, presets::NAMES.join(", ")))?;
        checkpoint::write(&preset, &self.work, Parts::ModelAndAutoencoders)?;
        let mut args = folder.server_args.clone();
        args.extend(["--models".into(), self.work.to_string_lossy().into_owned()]);
        if let Some(records) = &self.records {
            args.extend(["--mirror".into(), format!("{PUBLIC_RECORDS}={}/", records.display())]);
        }
        Ok(args)
    }
}
