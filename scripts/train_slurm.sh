#!/bin/bash
# Example of a Slurm job: one worker a node, each with all GPUs of its node. Submit it from the root of the checkout:
#   sbatch scripts/train_slurm.sh --config configs/default.yml --out saved_models/large
# What follows the script's name goes to train.py. --out and the cache have to be on a file system that all nodes see.
# A job that was requeued, or submitted again after it lost a node or ran out of time, goes on from its checkpoint.
#SBATCH --job-name=deepbedmap
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=deepbedmap-%j.log
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
out=
arguments=("$@")
for index in "${!arguments[@]}"; do
    [[ ${arguments[index]} == --out ]] && out=${arguments[index + 1]:-}
done
[[ -n $out ]] || { echo "error: say --out, by which the job finds its checkpoint again" >&2; exit 2; }
resume=()
[[ -f $out/training/run.json ]] && resume=(--resume)

# The same order on all nodes; the first is the chief. A port that other jobs of this node hardly use.
port=$((20000 + SLURM_JOB_ID % 20000))
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$port\"/" | paste -sd, -)
export DEEPBEDMAP_WORKERS=$workers

# A worker that is gone ends the others within seconds; --kill-on-bad-exit ends what is left of the step.
srun --kill-on-bad-exit=1 bash -c '
    export TF_CONFIG="{\"cluster\": {\"worker\": [$DEEPBEDMAP_WORKERS]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
    exec .venv/bin/python train.py --strategy multiworker "$@"
' train "$@" "${resume[@]}"
