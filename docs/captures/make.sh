#!/usr/bin/env bash
# Makes the captures in this folder from the stack `local`, at 80 columns: `docs/captures/make.sh`. The report's
# screenshot needs chromium. A stack `local` that is up is used as it is, and left up.
set -euo pipefail
cd "$(dirname "$0")"
export FTM_STACK=local NO_COLOR=1

capture() { # NAME ARGUMENTS...: what `ftm ARGUMENTS` shows on a terminal
    local name=$1
    shift
    { echo "\$ ftm $*"; script -qec "stty cols 80; ftm $*" /dev/null || true; } |
        sed -e "s#${FTM_LOCAL_DIR:-.ftm}#.ftm#" -e 's/\x1b\[[0-9;?]*[A-Za-z]//g' -e 's/\r//g' -e 's/ *$//' >"$name.txt"
}

ftm local up
ftm prefetch sample 2023Q1 --firms 12 --force
ftm vllm scale 1 --wait
ftm run-quarter 2023Q1 --yes --batch-size 3 2>&1 | sed '1i $ ftm run-quarter 2023Q1 --yes --batch-size 3 2>&1 | cat' >run-quarter.txt
capture status status 2023Q1
capture cost cost 2023Q1 --firms 5000
capture doctor doctor
page=$(mktemp --suffix .html)
ftm report 2023Q1 --out "$page"
chromium --headless --no-sandbox --disable-gpu --window-size=1000,1500 --virtual-time-budget=4000 \
    --screenshot="$PWD/report.png" "file://$page" 2>/dev/null
rm "$page"
