#!/usr/bin/env bash
# Trains as a Slurm job, which goes on in another one where its time is over.
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGS]
set -euo pipefail

if (($# < 3)); then
    echo "usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] $0 PARTITION JOB_NAME CONFIG [ARGS of tools/train.py]" >&2
    exit 2
fi
# shellcheck source=tools/dist_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/dist_common.sh"
# shellcheck source=tools/slurm_common.sh
source "${ROOT}/tools/slurm_common.sh"
# Slurm warns the processes before the time is over; they save and leave with the code that asks to be started again.
SRUN_ARGS="--signal=USR1@${WARN_SECONDS:-120} ${SRUN_ARGS:-}"
code=0
launch "$1" "$2" train.py "${@:3}" || code=$?
if [[ "${code}" == 75 && -n "${SLURM_JOB_ID:-}" ]]; then
    # In a batch job: the same job again, in which SLURM_RESTART_COUNT makes the training go on.
    exec scontrol requeue "${SLURM_JOB_ID}"
fi
while [[ "${code}" == 75 ]]; do
    code=0
    launch "$1" "$2" train.py "${@:3}" --resume auto || code=$?
done
exit "${code}"
