#!/usr/bin/env bash
# A long campaign of simulated worlds, in chunks, on all cores and at the lowest priority; it can be stopped and goes on where
# it stood.
#
#   tests/sim/campaign.sh FIRST SEEDS [FOLDER]     for example: tests/sim/campaign.sh 1000000 400000
#
# FOLDER (target/worlds/ and the commit) gets a file for each chunk of 2500 seeds, so SEEDS is rounded up: what ran on other code
# does not count. Prints what the finished chunks of the range come to; exits with 1 if a seed failed. Chunks that failed run again.
# SIM_BINARY is what runs instead of a build of this tree, such as one that was optimised for what a first chunk did
# (docs/testing.md); it may be of any code, so FOLDER says which.
set -euo pipefail
cd "$(dirname "$0")/../.."

first=${1:?the first seed} seeds=${2:?how many seeds}
if [ $# -lt 3 ] && [ -n "${SIM_BINARY:-}$(git status --porcelain)" ]; then
    echo "what runs is not the last commit: name a FOLDER for it" >&2
    exit 2
fi
folder=${3:-target/worlds/$(git rev-parse --short HEAD)}
chunk=2500
mkdir -p "$folder"
binary=${SIM_BINARY:-$(cargo test --release --test sim --no-run --message-format json 2>/dev/null |
    sed -n 's/.*"name":"sim".*"executable":"\([^"]*\)".*/\1/p')}

run() {
    local log="$folder/$1.log"
    if [ -e "$log" ]; then return; fi
    rm -f "$folder/$1.failed"
    # A chunk takes minutes: one that goes on for hours is a world that does not end.
    if SIM_FIRST=$1 SIM_SEEDS=$chunk SIM_THREADS=1 timeout 7200 nice -n 19 "$binary" storms_pass --nocapture >"$log.part" 2>&1; then
        mv "$log.part" "$log"
    else
        mv "$log.part" "$folder/$1.failed"
        echo "seeds $1 to $(($1 + chunk - 1)): failed, see $folder/$1.failed" >&2
    fi
}
export -f run
export folder binary chunk
seq "$first" "$chunk" $((first + seeds - 1)) | xargs -P "$(nproc)" -I{} bash -c 'run {}'

chunks=$(seq "$first" "$chunk" $((first + seeds - 1)))
for first in $chunks; do
    if [ -e "$folder/$first.log" ]; then cat "$folder/$first.log"; fi
done | awk '/ seeds from / {seeds += $1; events += $5} /processor time/ {seconds += $1}
    END {printf "%d seeds, %.0f events, %.0f events per second of processor time\n", seeds, events, events / seconds}'
for first in $chunks; do
    if [ -e "$folder/$first.failed" ]; then exit 1; fi
done
