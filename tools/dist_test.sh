#!/usr/bin/env bash
# Tests a checkpoint on the GPUs of one or more nodes, or on CPU processes where there is no GPU.
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGS of tools/test.py]
# Set NNODES, NODE_RANK and MASTER_ADDR for several nodes; PORT is then 29500 unless set, on one node a free one.
set -euo pipefail

if (($# < 3)); then
    echo "usage: [NNODES=1] [NODE_RANK=0] [MASTER_ADDR=127.0.0.1] [PORT=...] $0 CONFIG CHECKPOINT GPUS [ARGS of tools/test.py]" >&2
    exit 2
fi
# shellcheck source=tools/dist_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/dist_common.sh"
launch "$3" test.py "$1" "$2" "${@:4}"
