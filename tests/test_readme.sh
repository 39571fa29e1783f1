#!/usr/bin/env bash
# Runs the usage examples of the README and of the pages that it leaves the rest to: every line of their sh blocks that
# calls a program of this project. Of all pages of docs/, links must lead somewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PAGES=(README.md docs/generate.md docs/measuring.md docs/prefix_cache.md docs/kv_quant.md)

# anchors PAGE: the names that headings have in links, as GitHub makes them.
anchors() {
    sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed "s/[^a-z0-9 _-]//g; s/ /-/g"
}

n_broken=0
n_links=0
while IFS=: read -r page link; do
    target=${link%%#*}
    file=$page
    [[ -z $target ]] || file=$(dirname "$page")/$target
    n_links=$((n_links + 1))
    if [[ ! -e $file ]] || { [[ $link == *#* ]] && ! anchors "$file" | grep -qxF -e "${link#*#}"; }; then
        echo "$page: $link leads nowhere" >&2
        n_broken=$((n_broken + 1))
    fi
done < <(grep -oE '\]\([^)]*\)' README.md docs/*.md | sed -E 's/\]\(([^)]*)\)/\1/' | grep -v ':https\?:')
((n_links >= 30)) || { echo "only $n_links links found" >&2; exit 1; }
((n_broken == 0)) || exit 1

if [[ -z ${STOWKV_SMOLLM2:-} ]]; then
    echo "*** SKIPPED: the README's examples need SmolLM2; fetch it with checkpoints/fetch.sh ***" >&2
    exit 77
fi
export model=$STOWKV_SMOLLM2
for page in "${PAGES[@]}"; do
    n_examples=0
    while IFS= read -r line; do
        echo "+ $line"
        bash -c "set -o pipefail; ${line//build\//$STOWKV_BUILD/}" </dev/null
        n_examples=$((n_examples + 1))
    done < <(sed -n '/^```sh$/,/^```$/p' "$page" | grep -E '(^|\| )build/')
    ((n_examples >= 2)) || { echo "only $n_examples examples found in $page" >&2; exit 1; }
done
