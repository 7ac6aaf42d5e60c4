# shellcheck shell=bash
# What slurm_train.sh and slurm_test.sh share; sourced, never run.

# launch PARTITION JOB_NAME TOOL [ARGS]
launch() {
    local partition="$1" job="$2" tool="$3"
    shift 3
    local gpus="${GPUS:-8}"
    require_positive GPUS "${gpus}"
    local per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
    require_positive GPUS_PER_NODE "${per_node}"
    # Like a shell's command line, SRUN_ARGS holds words.
    local -a extra=()
    read -r -a extra <<<"${SRUN_ARGS:-}"
    srun -p "${partition}" --job-name="${job}" --gres="gpu:${per_node}" --ntasks="${gpus}" \
        --ntasks-per-node="${per_node}" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
        ${extra[@]+"${extra[@]}"} "${PYTHON}" -u "${ROOT}/tools/${tool}" "$@" --launcher slurm
}
