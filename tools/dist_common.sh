# shellcheck shell=bash
# What dist_train.sh and dist_test.sh share; sourced, never run.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-python}"
export PYTHONPATH="${ROOT}${PYTHONPATH:+:${PYTHONPATH}}"

require_positive() {
    if ! [[ "$2" =~ ^[1-9][0-9]*$ ]]; then
        echo "error: $1 must be a positive number, not '$2'." >&2
        exit 2
    fi
}

free_port() {
    "${PYTHON}" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

# launch PROCESSES TOOL [ARGS]
launch() {
    local processes="$1" tool="$2" cores threads
    shift 2
    require_positive GPUS "${processes}"
    local nodes="${NNODES:-1}" rank="${NODE_RANK:-0}" port="${PORT:-}"
    if [[ -z "${port}" ]]; then
        # Several nodes must agree on the port before they have met.
        if [[ "${nodes}" == 1 ]]; then port="$(free_port)"; else port=29500; fi
    fi
    if [[ -z "${OMP_NUM_THREADS:-}" ]]; then
        cores="$(getconf _NPROCESSORS_ONLN)"
        threads=$((cores / processes))
        export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
    fi
    exec "${PYTHON}" "${ROOT}/tools/torchrun.py" \
        --nnodes="${nodes}" --node_rank="${rank}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${port}" \
        --nproc_per_node="${processes}" "${ROOT}/tools/${tool}" "$@" --launcher pytorch
}
