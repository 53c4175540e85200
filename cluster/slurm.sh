#!/bin/bash
# A grid of runs on a Slurm allocation: Ray on every node, the command on the first.
#
#   sbatch --nodes 4 --gpus-per-node 8 cluster/slurm.sh lab clip --scale paper --methods all --out ...
#
# docs/slurm.md says more. What follows `#SBATCH` are defaults; options of sbatch itself count more.
#SBATCH --job-name=serial-lora
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.out
set -euo pipefail

if [ "$#" -eq 0 ]; then
    echo "Say what to run: sbatch cluster/slurm.sh lab clip --dataset nature" >&2
    exit 2
fi
command=(python -m serial_lora_course "$@")

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))

# On a cluster of many users: whoever reaches Ray's ports and has no token may run nothing.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
if [ "$RAY_AUTH_MODE" = token ]; then
    ray get-auth-token --generate > /dev/null
fi
export RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}

# symmetric-run ends without an error also where Ray did not start, so the command leaves its answer.
answer=$(mktemp)
# shellcheck disable=SC2016  # expanded there
leave='"${@:2}"; code=$?; echo "$code" > "$1"; exit "$code"'
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    ray symmetric-run --address "$first:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    -- bash -c "$leave" bash "$answer" "${command[@]}" --on ray || true

code=$(cat "$answer")
rm -f "$answer"
if [ -z "$code" ]; then
    echo "Ray did not start on every node, so nothing was run; its words are above. Submit again." >&2
    exit 1
fi
exit "$code"
