#!/usr/bin/env bash
# The program prefix_bench on stories260K: it runs, and its figures are those that they must be whatever the machine.
# shellcheck source=tests/program_test.sh
. "$(dirname "$0")/program_test.sh" prefix_bench

usual() { run --checkpoint_path "$work/long.bin" --text_file "$readme" --n_ctx 1024 --prefix_cache "$work/prefixes" "$@"; }

make_long_stories
test_help
run --checkpoint_path "$stories"
check "what is required" failed_cleanly 2 "are required"
usual --prompt_tokens 64 --json "$work/json" --quantize_kv
expect_status 'a run' 0
check 'five tables and more' grep -q '^50 requests, 5 prompts of 64 tokens: 45 hits, 5 misses, hit rate 90 %' "$work/stdout"
if command -v python3 >/dev/null; then
    check 'figures' python3 - "$work/json" <<'PYTHON'
import json
import sys
report = json.load(open(sys.argv[1]))
assert len(report["quality"]) == 40 and all(row["cosine"] > 0.8 for row in report["quality"])
memory = {row["codec"]: row["bytes"] for row in report["memory"]}
assert memory["f32"] == 2 * 80 * 64 * 128 * 2048 * 4 and memory["f16"] * 2 == memory["f32"]
assert memory["nf4"] / memory["f32"] < 4.2 / 32
assert report["requests"]["hits"] == 45 and report["requests"]["tokens_restored"] == 45 * 64
rounds = report["agents"]
assert len(rounds) == 10 and rounds[0]["tokens_restored"] == 0
assert all(row["tokens"] - row["tokens_restored"] <= 5 * 50 for row in rounds[1:])
restored = report["restored"]
assert restored["memory_same"] and restored["disk_same"] and restored["tensors"][0]["max"] < 0.01
PYTHON
fi
finish
