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
    # Threads that spin for long while they wait take the core from those that they wait for, where other programs run;
    # those that sleep at once wake up late, thousands of times in a step. docs/benchmarks.md has what it costs.
    if [[ -z "${OMP_WAIT_POLICY:-}" ]]; then export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-3000}"; fi
    # mmengine would set 1, with a warning.
    export MKL_NUM_THREADS="${MKL_NUM_THREADS:-${OMP_NUM_THREADS}}"
    local -a meeting=(--node_rank="${rank}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${port}")
    if [[ "${MAX_RESTARTS:-0}" != 0 ]]; then
        require_positive MAX_RESTARTS "${MAX_RESTARTS}"
        # The store of the rendezvous above keeps what dead processes wrote, and those that restart would wait for them.
        export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
        meeting=(--max-restarts="${MAX_RESTARTS}" --rdzv-backend=c10d --rdzv-id="${RDZV_ID:-coc}"
            --rdzv-endpoint="${MASTER_ADDR:-127.0.0.1}:${port}")
        if [[ "${nodes}" == 1 ]]; then meeting+=(--local-addr=127.0.0.1); fi
    fi
    exec "${PYTHON}" "${ROOT}/tools/torchrun.py" --nnodes="${nodes}" "${meeting[@]}" \
        --nproc_per_node="${processes}" "${ROOT}/tools/${tool}" "$@" --launcher pytorch
}
