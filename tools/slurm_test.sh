#!/usr/bin/env bash
# Tests a checkpoint as a Slurm job.
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGS]
set -euo pipefail

if (($# < 4)); then
    echo "usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] $0 PARTITION JOB_NAME CONFIG CHECKPOINT [ARGS of tools/test.py]" >&2
    exit 2
fi
# shellcheck source=tools/dist_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/dist_common.sh"
# shellcheck source=tools/slurm_common.sh
source "${ROOT}/tools/slurm_common.sh"
launch "$1" "$2" test.py "${@:3}"
