//! How [`WorkExec`] travels between the processes; all else travels as Ballista sends it.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use serde::{Deserialize, Serialize};

use crate::job::{Job, Step};
use crate::work_exec::WorkExec;
use crate::workshop::Workshop;

/// What such a node begins with.
const MAGIC: &[u8] = b"tdb-work\n";

/// Writes and reads nodes; those that it reads do their work in `workshop`, if there is one.
#[derive(Debug, Default)]
pub struct Codec {
    others: BallistaPhysicalExtensionCodec,
    workshop: Option<Arc<Workshop>>,
}

impl Codec {
    /// A worker's.
    pub fn new(workshop: Arc<Workshop>) -> Self {
        Self { workshop: Some(workshop), ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct Node<J> {
    step: Step,
    job: J,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(json) = bytes.strip_prefix(MAGIC) else {
            return self.others.try_decode(bytes, inputs, context, converter);
        };
        let bad = |what: String| DataFusionError::Execution(format!("a task cannot be read: {what}"));
        let node: Node<Job> = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
        let [input] = inputs else { return Err(bad(format!("it has {} inputs", inputs.len()))) };
        Ok(Arc::new(WorkExec::new(node.step, Arc::new(node.job), input.clone(), self.workshop.clone())))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(work) = node.downcast_ref::<WorkExec>() else {
            return self.others.try_encode(node, bytes, converter);
        };
        let json = serde_json::to_vec(&Node { step: work.step(), job: work.job() });
        let json = json.map_err(|e| DataFusionError::Execution(format!("a task cannot be written: {e}")))?;
        bytes.extend_from_slice(MAGIC);
        bytes.extend(json);
        Ok(())
    }
}
