#!/usr/bin/env bash
# Trains as a Slurm job.
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
launch "$1" "$2" train.py "${@:3}"
