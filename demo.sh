#!/usr/bin/env bash
# A tour: one quarter end to end on the embedded AWS. `make demo` puts ftm on the PATH and runs this.
set -euo pipefail

export FTM_STACK=local
QUARTER=2023Q1

main() {
    step "Start the embedded AWS on this machine, and deploy the Pulumi program to it"
    run ftm local up
    trap 'ftm local down' EXIT

    step "Upload a sample quarter: generated calls with known topics"
    run ftm prefetch sample $QUARTER --firms 12

    step "Switch the GPU on (here: a fake vLLM, which names topics from their keywords)"
    run ftm vllm scale 1 --wait

    step "Run the quarter: Step Functions starts Batch jobs, each finds topics and has the LLM name them"
    run ftm run-quarter $QUARTER --batch-size 4 --yes

    step "Show the named topics"
    run ftm topics $QUARTER

    step "Switch the GPU off again: it costs money while it runs"
    run ftm vllm scale 0

    step "Stop the embedded AWS"
    trap - EXIT
    run ftm local down
}

step() { printf '\n# %s\n' "$1"; }

run() {
    printf '$ %s\n' "$*"
    "$@"
}

main
