# shellcheck shell=bash
# For the SLURM scripts, which source it. Tested by tests/deploy/test_slurm.py.

# run_and_requeue COMMAND...: runs it, hands SIGTERM on to it, waits for its own end, and puts the job back into the queue
# when it says that it was stopped and can go on (143). Its exit code is left in $code.
run_and_requeue() {
    local pid
    "$@" &
    pid=$!
    # shellcheck disable=SC2064  # this pid, now
    trap "kill -TERM $pid 2>/dev/null || true" TERM
    code=0
    wait "$pid" || code=$?
    trap '' TERM # `wait` ends when a signal comes: the command is still finishing
    while kill -0 "$pid" 2>/dev/null; do
        code=0
        wait "$pid" || code=$?
    done
    echo "ended with code $code"
    if [ "$code" = 143 ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
}
