#!/usr/bin/env bash
# Runs the README's usage examples: every line of its sh blocks that calls a program of this project.
set -euo pipefail

if [[ -z ${STOWKV_SMOLLM2:-} ]]; then
    echo "*** SKIPPED: the README's examples need SmolLM2; fetch it with checkpoints/fetch.sh ***" >&2
    exit 77
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export model=$STOWKV_SMOLLM2
n_examples=0
while IFS= read -r line; do
    echo "+ $line"
    bash -c "set -o pipefail; ${line//build\//$STOWKV_BUILD/}" </dev/null
    n_examples=$((n_examples + 1))
done < <(sed -n '/^```sh$/,/^```$/p' README.md | grep -E '(^|\| )build/')
((n_examples >= 4)) || { echo "only $n_examples examples found in README.md" >&2; exit 1; }
