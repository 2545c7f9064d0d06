#!/bin/bash
# A collation as a Slurm array: each task makes one shard.
#
#   sbatch --array=0-63 --export=ALL,TDB_TEXT=s3://bucket/text.jsonl,TDB_OUT=s3://bucket/collated docs/cluster/slurm.sh
#   sbatch --dependency=afterok:JOB --export=ALL,TDB_MERGE=64,... docs/cluster/slurm.sh
#
# TDB_SETTINGS holds what else `tdb collate` is given; it must be the same in all tasks and in the merge. A task that ran
# out of time or lost its machine is queued again and makes only what is missing.
#SBATCH --job-name=tdb-collate
#SBATCH --cpus-per-task=64
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail

if [[ -n ${TDB_MERGE:-} ]]; then
    part=(--merge --shards "$TDB_MERGE")
else
    part=(--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi
# shellcheck disable=SC2086 # settings are several words
exec tdb collate "$TDB_TEXT" --out "$TDB_OUT" "${part[@]}" ${TDB_SETTINGS:-}
