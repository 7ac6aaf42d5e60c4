#!/usr/bin/env bash
# Trains on the GPUs of one or more nodes, or on CPU processes where there is no GPU.
#   tools/dist_train.sh CONFIG GPUS [ARGS of tools/train.py]
# Set NNODES, NODE_RANK and MASTER_ADDR for several nodes; PORT is then 29500 unless set, on one node a free one.
# MAX_RESTARTS=N starts a training whose process died again, at its last checkpoint, up to N times.
set -euo pipefail

if (($# < 2)); then
    echo "usage: [NNODES=1] [NODE_RANK=0] [MASTER_ADDR=127.0.0.1] [PORT=...] [MAX_RESTARTS=0] $0 CONFIG GPUS [ARGS of tools/train.py]" >&2
    exit 2
fi
# shellcheck source=tools/dist_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/dist_common.sh"
launch "$2" train.py "$1" "${@:3}"
