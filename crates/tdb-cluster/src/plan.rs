//! A job as a plan of stages: each work unit is a partition of the first, each range of layers one of the second.

use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use tdb_collate::UnitName;

use crate::codec::Codec;
use crate::job::{Job, Step};
use crate::rows::{self, LAYERS, Row};
use crate::work_exec::WorkExec;

/// How many tasks check workers: each that is idle gets one, if there are no more than so many.
const CHECKS: usize = 64;

/// The plan that lets every worker compare what it has with what the job needs.
///
/// # Errors
/// If DataFusion refuses it.
pub fn check(job: &Arc<Job>) -> Result<Arc<dyn ExecutionPlan>> {
    let rows = (0..CHECKS).map(|i| Row { name: i.to_string(), ..Row::default() }).collect();
    work(Step::Check, job, partitions(rows)?)
}

/// The plan that makes `units` and merges them.
///
/// # Errors
/// If DataFusion refuses it.
pub fn collate(job: &Arc<Job>, units: &[UnitName]) -> Result<Arc<dyn ExecutionPlan>> {
    let row = |unit: &UnitName| Row { layers: layers(unit), name: unit.file(), ..Row::default() };
    let made = work(Step::Make, job, partitions(units.iter().map(row).collect())?)?;
    let mut ranges: Vec<String> = units.iter().map(layers).collect();
    ranges.sort();
    ranges.dedup();
    let column = rows::schema().index_of(LAYERS)?;
    let by_layers = Partitioning::Hash(vec![Arc::new(Column::new(LAYERS, column))], ranges.len());
    work(Step::Merge, job, Arc::new(RepartitionExec::try_new(made, by_layers)?))
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

fn layers(unit: &UnitName) -> String {
    format!("{}-{}", unit.layers.0, unit.layers.1)
}

/// Each row in a partition of its own.
fn partitions(rows: Vec<Row>) -> Result<Arc<dyn ExecutionPlan>> {
    let batches =
        rows.iter().map(|row| Ok(vec![rows::batch(std::slice::from_ref(row))?])).collect::<Result<Vec<_>>>()?;
    Ok(MemorySourceConfig::try_new_exec(&batches, rows::schema(), None)?)
}

fn work(step: Step, job: &Arc<Job>, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(Arc::new(WorkExec::new(step, job.clone(), input, None)))
}
