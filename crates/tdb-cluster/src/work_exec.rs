//! The operator that does the work of a task. It gives back the rows that it was given.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{TryStreamExt, stream};

use crate::job::{Job, Step};
use crate::rows;
use crate::workshop::Workshop;

/// Does a step of a job with the rows of each partition.
#[derive(Debug)]
pub struct WorkExec {
    step: Step,
    job: Arc<Job>,
    input: Arc<dyn ExecutionPlan>,
    /// Only a worker has one.
    workshop: Option<Arc<Workshop>>,
    properties: Arc<PlanProperties>,
}

impl WorkExec {
    pub fn new(step: Step, job: Arc<Job>, input: Arc<dyn ExecutionPlan>, workshop: Option<Arc<Workshop>>) -> Self {
        let partitions = input.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(rows::schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { step, job, input, workshop, properties: Arc::new(properties) }
    }

    pub fn step(&self) -> Step {
        self.step
    }

    pub fn job(&self) -> &Job {
        &self.job
    }
}

impl DisplayAs for WorkExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkExec: {:?} of plan {}", self.step, self.job.plan.hash())
    }
}

impl ExecutionPlan for WorkExec {
    fn name(&self) -> &str {
        "WorkExec"
    }

    fn schema(&self) -> SchemaRef {
        rows::schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// A partition is a work unit: nothing is gained by dividing rows otherwise.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = children.as_slice() else {
            return Err(DataFusionError::Internal("WorkExec has one input".to_owned()));
        };
        Ok(Arc::new(Self::new(self.step, self.job.clone(), input.clone(), self.workshop.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let workshop = self.workshop.clone();
        let workshop = workshop.ok_or_else(|| DataFusionError::Internal("only workers work".to_owned()))?;
        let (step, job) = (self.step, self.job.clone());
        let work = async move {
            let given: Vec<_> = input.try_collect().await?;
            let given = given.iter().map(rows::read).collect::<Result<Vec<_>>>()?.concat();
            rows::batch(&workshop.work(step, job, given).await?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(rows::schema(), stream::once(work))))
    }
}
