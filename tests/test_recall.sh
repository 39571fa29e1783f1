#!/usr/bin/env bash
# The program as a user runs it: figures, files, exit statuses, and refusals. It runs $STOWKV_BUILD/recall on stories260K
# of $STOWKV_DATA, on the copying model of $STOWKV_FIXTURES, and on SmolLM2 where $STOWKV_SMOLLM2 names it and
# $STOWKV_SANITIZE is not 1.
# shellcheck source=tests/program_test.sh
. "$(dirname "$0")/program_test.sh" recall

if ! command -v python3 >/dev/null; then
    skip_loudly 'test_recall; there is no python3'
    exit 77
fi
: "${STOWKV_FIXTURES:=}"

usual() { run --checkpoint_path "$stories" --samples 2 "$@"; }

# holds EXPRESSION [FILE]: in Python, of the result r.
holds() {
    python3 - "$1" "${2:-$work/result.json}" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[2], encoding="utf-8"))
if not eval(f"({sys.argv[1]})"):
    sys.exit(f"{sys.argv[1]} is false")
PYTHON
}

# ---- At a distance

csv_agrees_with_json() {
    python3 - "$work/result.json" "$work/result.csv" <<'PYTHON'
import csv, json, sys
result = json.load(open(sys.argv[1], encoding="utf-8"))
rows = list(csv.DictReader(open(sys.argv[2], encoding="utf-8", newline="")))
points = [mode | point for mode in result["modes"] for point in mode["points"]]
assert len(rows) == len(points), (len(rows), len(points))
for row, point in zip(rows, points):
    for key, text in row.items():
        value = point.get(key, result.get(key, ""))
        assert text == value if isinstance(value, str) else abs(float(text) - value) <= 1e-8 * abs(value), (key, text, value)
PYTHON
}

# A group of 64 tokens of int8: keys of 8 channels take 16 + 512 bytes, values 128 + 512; 5 layers of 4 heads.
proof_is_there() {
    holds 'all(t["bytes_read"] > 0 and t["tokens_encoded"] > 0 for m in r["modes"] for t in m["tiers"])
        and [t["name"] for t in r["modes"][2]["tiers"]] == ["sink", "f16", "int8"]
        and r["modes"][2]["tiers"][2]["bytes_read"] % (5 * 4 * 1168) == 0
        and r["modes"][2]["tiers"][2]["bytes_held"] == 5 * 4 * 1168 * r["modes"][2]["tiers"][2]["tokens"] / 64'
}

table_agrees_with_json() {
    python3 - "$work/result.json" "$work/stdout" <<'PYTHON'
import json, sys
result, table = json.load(open(sys.argv[1], encoding="utf-8")), open(sys.argv[2], encoding="utf-8").read()
for mode in result["modes"]:
    lines = [line.split() for line in table.splitlines() if line.startswith(mode["mode"] + " ")]
    assert [[line[1], line[2], line[3], line[4], line[-3]] for line in lines] == [
        [str(p["distance"]), str(p["n"]), f'{p["log_likelihood"]:.4f}', f'{p["stderr"]:.4f}', f'{p["right"]:.4f}']
        for p in mode["points"]], lines
PYTHON
}

test_distances() {
    usual --distances 40,256 --segment 16 --compare --seed 5 --json "$work/result.json" --csv "$work/result.csv"
    expect_status 'two distances, three modes' 0
    check 'the JSON' holds '(r["task"], r["segment"], r["scored"], r["samples"], r["seed"], r["bos"]) == ("distance", 16, 12, 2, 5, True)
        and [m["mode"] for m in r["modes"]] == ["full", "compressed", "quantized"]
        and all([p["distance"] for p in m["points"]] == [40, 256] and m["kernels"] for m in r["modes"])
        and all(p["n"] == 2 and p["log_likelihood"] < 0 and p["stderr"] > 0 and 0 <= p["right"] <= 1 and p["right_stderr"] >= 0
                for m in r["modes"] for p in m["points"])'
    check 'less full is the difference' holds 'all(abs(p["less_full"] - p["log_likelihood"] + f["log_likelihood"]) < 1e-12
        for m in r["modes"][1:] for p, f in zip(m["points"], r["modes"][0]["points"])) and "less_full" not in r["modes"][0]["points"][0]'
    check 'the proof of what was read' proof_is_there
    check 'the CSV says the same' csv_agrees_with_json
    check 'the table says the same' table_agrees_with_json
    cp "$work/result.json" "$work/first.json"
    usual --distances 256 --segment 16 --quantize_kv --seed 5 --batch 9 --threads 1 --json -
    check 'alone, with other batches and threads, the same figure' holds \
        "{k: v for k, v in json.load(open('$work/first.json'))['modes'][2]['points'][1].items() if not k.startswith('less')} == r['modes'][0]['points'][0]" "$work/stdout"
    usual --distances 256 --segment 16 --seed 6 --json -
    check 'another seed, other tokens' holds "json.load(open('$work/first.json'))['modes'][0]['points'][1] != r['modes'][0]['points'][0]" "$work/stdout"
    usual --segment 16 --json - --samples 1
    check 'the default distances that fit' holds '[p["distance"] for p in r["modes"][0]["points"]] == [64, 256]' "$work/stdout"
    usual --distances 353 --samples 1 --csv -
    check 'the largest that fits' [ "$(wc -l <"$work/stdout")" -eq 2 ]
}

test_copies() {
    local copies=$STOWKV_FIXTURES/recall/copies.gguf
    if [ ! -r "$copies" ]; then
        skip_loudly 'the copying model; STOWKV_FIXTURES has no recall/copies.gguf'
        return
    fi
    run --checkpoint_path "$copies" --distances 24,300 --segment 24 --samples 3 --compare --json "$work/result.json"
    check 'a model that copies repeats what is there, and nothing that was dropped' holds \
        '[[p["right"] for p in m["points"]] for m in r["modes"]] == [[1, 1], [1, 0], [1, 1]]
         and abs(r["modes"][0]["points"][1]["log_likelihood"] + 0.105) < 0.01
         and abs(r["modes"][1]["points"][1]["log_likelihood"] + 4.16) < 0.2'
    run --checkpoint_path "$copies" --segment 32
    check 'a segment of more than half of the vocabulary' failed_cleanly 1 'use a --segment of at most 28'
}

test_bad_distances() {
    local list
    for list in '' a '8,,5' '64,' '256,64' '64,64'; do
        expect_error 2 "--distances $list" --distances "$list"
    done
    expect_error 1 'use distances up to 353' --distances 64,354
    expect_error 1 'use distances up to 41' --n_ctx 200 --distances 64,100
    expect_error 1 'give --distances from 32 to 41' --n_ctx 200
    expect_error 1 'use a smaller --segment' --n_ctx 100 --distances 32
    expect_error 2 'distances from 32 on' --distances 31
    expect_error 2 'a multiple of 4' --segment 30
    expect_error 2 'expected' --segment 3
    expect_error 2 'expected' --samples 0
    expect_error 1 'a sink of at most 64' --compress_kv --sink_size 65
    expect_error 1 'use longer --distances or a smaller window' --distances 64 --quantize_kv --window_size 250
    expect_error 2 'twice' --kv_policy f16:64 --kv_policy f16:64
}

# ---- Needles

test_needles() {
    usual --needle --lengths 400,500 --positions 3 --max_new_tokens 4 --compare --seed 9 --json "$work/result.json" --csv "$work/result.csv"
    expect_status 'needles' 0
    check 'the JSON' holds '(r["task"], r["haystack"], r["positions"], r["samples"], r["seed"], r["max_new_tokens"], r["chat_template"])
        == ("needle", "noise", 3, 2, 9, 4, "none")
        and all([(p["length"], p["position"]) for p in m["points"]] == [(l, p) for l in (400, 500) for p in (0, 0.5, 1)]
                and all(p["n"] == 2 and 0 <= p["right"] <= 1 for p in m["points"]) and m["kernels"] for m in r["modes"])'
    check 'the proof of what was read' holds 'all(t["bytes_read"] > 0 for m in r["modes"] for t in m["tiers"])'
    check 'the CSV says the same' csv_agrees_with_json
    check 'the table' grep -q "^RULER's single needle in noise, .* 3 positions, 2 samples of each; seed 9" "$work/stdout"
    usual --needle --positions 1 --max_new_tokens 1 --samples 1 --json -
    check 'the default lengths that fit' holds '[(p["length"], p["position"]) for p in r["modes"][0]["points"]] == [(512, 0.5)]' "$work/stdout"
    echo 'It rains. It pours! Who is snoring?' >"$work/hay"
    usual --needle --haystack "$work/hay" --lengths 400 --positions 2 --max_new_tokens 1 --json -
    check '--haystack' holds "r['haystack'] == '$work/hay'" "$work/stdout"
    expect_error 1 'use lengths up to 512' --needle --lengths 400,513
    expect_error 1 'use lengths from' --needle --lengths 100
    expect_error 1 'use longer --lengths' --needle --lengths 400 --quantize_kv --window_size 380
    expect_error 1 'use longer --lengths' --needle --lengths 400 --quantize_kv --window_size 450
    expect_error 1 'missing' --needle --haystack "$work/missing"
    expect_error 2 '--lengths x' --needle --lengths x
    expect_error 2 'expected' --needle --positions 0
    expect_error 2 'chatml' --needle --chat_template other
}

# ---- The command line

test_usage() {
    local flag
    run
    check 'no checkpoint' failed_cleanly 2 '--checkpoint_path'
    for flag in --lengths=9 --positions=1 --haystack=a --max_new_tokens=1 --chat_template=none; do
        expect_error 2 "${flag%%=*} is for --needle" "$flag"
    done
    for flag in --distances=64 --segment=8 --batch=1; do
        expect_error 2 "${flag%%=*} is not for --needle" --needle "$flag"
    done
    expect_error 2 'both want stdout' --json - --csv -
    expect_error 1 'missing' --json "$work/missing/a.json"
    expect_error 2 'did you mean --distances' --distanses 64
}

# Ctrl-C before the first sample is through, and after it.
test_interrupted() {
    make_long_stories
    interrupt is_reading --checkpoint_path "$work/long.bin" --distances 50000 --threads 1 --json "$work/early.json"
    expect_status 'Ctrl-C' 130
    check 'before a sample is through there is no result' [ ! -s "$work/stdout" -a ! -e "$work/early.json" ]
    check 'and no error' [ ! -s "$work/stderr" ]
    interrupt is_computing --checkpoint_path "$stories" --distances 64 --samples 20000 --threads 1 --json "$work/part.json"
    expect_status 'Ctrl-C later' 130
    check 'the samples that are through are reported' stderr_has 'interrupted: the figures are those of the first'
    check 'in the JSON too' holds '0 < r["modes"][0]["points"][0]["n"] < 20000 and r["samples"] == 20000' "$work/part.json"
    interrupt is_computing --checkpoint_path "$stories" --needle --lengths 400 --max_new_tokens 1 --samples 20000 --threads 1 \
        --json "$work/part.json"
    expect_status 'Ctrl-C between needles' 130
    check 'the answers that are through are reported' holds '0 < r["modes"][0]["points"][0]["n"] < 20000' "$work/part.json"
}

# Whether it has computed for two seconds, by the kernel's count of hundredths: on the slowest machine that is a sample.
is_computing() {
    [ "$(awk '{print $14}' "/proc/$pid/stat" 2>/dev/null || echo 0)" -ge 200 ]
}

# Whether the model is open, and so Ctrl-C is caught: the result's file is, before that.
is_reading() {
    grep -qs 'long.bin' "/proc/$pid/maps" && [ "$(awk '/SigCgt/ {print $2}' "/proc/$pid/status" 2>/dev/null)" != 0000000000000000 ]
}

# ---- A model that can answer

test_smollm2() {
    if [ ! -r "${STOWKV_SMOLLM2:-}" ] || [ "${STOWKV_SANITIZE:-0}" = 1 ]; then
        skip_loudly 'needles for SmolLM2; STOWKV_SMOLLM2 names no checkpoint, or this runs under sanitizers'
        return
    fi
    run --checkpoint_path "$STOWKV_SMOLLM2" --needle --lengths 320 --positions 2 --samples 1 --max_new_tokens 12 --kv_policy 'f16:*' \
        --kv_policy sink=0,f16:96 --json "$work/result.json"
    check 'SmolLM2 finds the needle, and not one that was dropped' holds 'r["chat_template"] == "checkpoint"
        and [[p["right"] for p in m["points"]] for m in r["modes"]] == [[1, 1], [0, 1]]'
}

test_distances
test_copies
test_bad_distances
test_needles
test_usage
test_interrupted
test_help
test_smollm2
finish
