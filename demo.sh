#!/usr/bin/env bash
# A tour: one quarter end to end on the embedded AWS. `make demo` puts ftm on the PATH and runs this.
set -euo pipefail

export FTM_STACK=local
QUARTER=2023Q1

main() {
    step "Start an AWS of our own on this machine, and deploy the Pulumi program to it"
    run ftm local up
    trap 'ftm local down' EXIT

    step "Put a sample quarter into its bucket: calls that ftm writes itself, with known topics"
    run ftm prefetch sample $QUARTER --firms 12

    step "Switch the GPU on (here: a fake vLLM, which names topics from their keywords)"
    run ftm vllm scale 1 --wait

    step "Run the quarter: Step Functions starts Batch jobs, each finds topics and has the LLM name them"
    run ftm run-quarter $QUARTER --batch-size 4 --yes

    step "Look at what came out"
    run ftm topics $QUARTER

    step "Switch the GPU off again: it costs money while it runs"
    run ftm vllm scale 0

    step "Stop the AWS of our own"
    trap - EXIT
    run ftm local down
}

step() { printf '\n# %s\n' "$1"; }

run() {
    printf '$ %s\n' "$*"
    "$@"
}

main
