//! The steps of a job as plans of Ballista, each with one stage whose partitions are tasks. Nothing goes from one task to
//! another: what a dead worker had made is in the object store, and those that live go on with what they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use tdb_collate::UnitName;

use crate::codec::Codec;
use crate::job::{Job, Step};
use crate::rows::{self, Row};
use crate::work_exec::WorkExec;

/// How many tasks check workers: each that is idle gets one, if there are no more than so many.
const CHECKS: usize = 32;

/// The plan that lets every worker compare what it has with what the job needs.
///
/// # Errors
/// If DataFusion refuses it.
pub fn check(job: &Arc<Job>) -> Result<Arc<dyn ExecutionPlan>> {
    let rows = (0..CHECKS).map(|i| vec![Row { name: i.to_string(), ..Row::default() }]);
    work(Step::Check, job, rows)
}

/// The plan that makes units, each in a task of its own.
///
/// # Errors
/// If DataFusion refuses it.
pub fn make(job: &Arc<Job>, units: &[UnitName]) -> Result<Arc<dyn ExecutionPlan>> {
    work(Step::Make, job, units.iter().map(|unit| vec![Row { name: unit.file(), ..Row::default() }]))
}

/// The plan that merges units, each with its summary's checksum, in a task for each range of layers.
///
/// # Errors
/// If DataFusion refuses it.
pub fn merge(job: &Arc<Job>, units: &[(UnitName, String)]) -> Result<Arc<dyn ExecutionPlan>> {
    let mut ranges: BTreeMap<(usize, usize), Vec<Row>> = BTreeMap::new();
    for (unit, checksum) in units {
        let row = Row { name: unit.file(), checksum: checksum.clone() };
        ranges.entry(unit.layers).or_default().push(row);
    }
    work(Step::Merge, job, ranges.into_values())
}

/// A plan as it is sent.
///
/// # Errors
/// If it cannot be written.
pub fn encode(plan: Arc<dyn ExecutionPlan>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PhysicalPlanNode::try_from_physical_plan(plan, &Codec::default())
        .and_then(|node| node.try_encode(&mut bytes))
        .context("the plan cannot be written")?;
    Ok(bytes)
}

/// Does a step with the rows of each task.
fn work(step: Step, job: &Arc<Job>, tasks: impl Iterator<Item = Vec<Row>>) -> Result<Arc<dyn ExecutionPlan>> {
    let partitions = tasks.map(|rows| Ok(vec![rows::batch(&rows)?])).collect::<Result<Vec<_>>>()?;
    let input = MemorySourceConfig::try_new_exec(&partitions, rows::schema(), None)?;
    Ok(Arc::new(WorkExec::new(step, job.clone(), input, None)))
}
