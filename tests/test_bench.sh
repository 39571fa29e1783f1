#!/usr/bin/env bash
# The program bench as a user runs it, on stories260K of $STOWKV_DATA: its table, JSON and chart, bytes a token against
# arithmetic of our own, interruption, and every kind of bad input.
. "$(dirname "$0")/program_test.sh" bench

# usual ARGUMENT…: stories260K with few tokens; arguments override the flags here.
usual() {
    run --checkpoint_path "$stories" --depths 0,200 --prompt_tokens 50 --generate_tokens 20 --repetitions 2 "$@"
}

# stderr_tells_figures N: N lines of figures and one of the first token, and nothing else.
stderr_tells_figures() {
    local figure='^depth [0-9]+, [a-z]+: [0-9.]+ tokens/s generated, [0-9.]+ of the prompt \(repetition '
    [ "$(grep -cE "$figure" "$work/stderr")" -eq "$1" ] && [ "$(wc -l <"$work/stderr")" -eq $(($1 + 1)) ] &&
        head -n 1 "$work/stderr" | grep -q '^first token '
}

stdout_has() { grep -qE -e "$1" "$work/stdout"; }

# json FILE EXPRESSION: whether the Python expression of r, the file's object, holds. kv_bytes() is what a generated
# token reads of an int8 cache of stories260K: 5 layers, 4 KV heads of 8, groups of 64, sink 16, window 32, the mean over
# 20 tokens from a depth on.
json() {
    python3 - "$1" "$2" "$stories" <<'PYTHON'
import json, struct, sys
r = json.load(open(sys.argv[1], encoding="utf-8"))
dim, hidden, n_layers, n_heads, n_kv_heads, n_vocab, n_ctx = struct.unpack("<7i", open(sys.argv[3], "rb").read(28))
head_dim = dim // n_heads
kv_dim = n_kv_heads * head_dim
weights = 4 * (n_layers * (2 * dim * dim + 2 * dim * kv_dim + 3 * dim * hidden + 2 * dim) + dim + n_vocab * dim + dim)

def kv_bytes(depth, n_tokens, quantized):
    total = 0
    for seen in range(depth + 1, depth + n_tokens + 1):
        groups = max(0, seen - 16 - 32) // 64 if quantized else 0
        keys = 64 * head_dim + 2 * head_dim   # a code each, FP16 scales for each channel
        values = 64 * head_dim + 2 * 64       # … for each token
        total += n_layers * n_kv_heads * ((seen - 64 * groups) * head_dim * 2 * 2 + groups * (keys + values))
    return total / n_tokens

near = lambda a, b: abs(a - b) <= 1e-6 * abs(b)
of = {(x["mode"], x["depth"]): x for x in r["results"]}
if not eval(f"({sys.argv[2]})"):
    sys.exit("in " + sys.argv[1] + " this does not hold: " + sys.argv[2])
PYTHON
}

svg_is_whole() {
    python3 - "$1" "$2" <<'PYTHON'
import sys
import xml.etree.ElementTree as xml
root = xml.parse(sys.argv[1]).getroot()
space = "{http://www.w3.org/2000/svg}"
assert root.tag == space + "svg"
assert len(root.findall(f".//{space}polyline")) == int(sys.argv[2]), "a line for each policy"
texts = [t.text for t in root.findall(f".//{space}text")]
assert "tokens a second" in texts and "tokens in the cache" in texts and "full: f16:*" in texts, texts
assert all("nan" not in str(v) and "inf" not in str(v) for e in root.iter() for v in e.attrib.values())
PYTHON
}

# ---- Results

test_results() {
    local rows='len(r["results"]) == 6 and set(of) == {(m, d) for m in ("full", "compressed", "quantized") for d in (0, 200)}'
    local elapsed=$SECONDS
    usual --compare --json "$work/result.json" --svg "$work/chart.svg"
    elapsed=$((SECONDS - elapsed + 1))
    expect_status '--compare' 0
    check 'the table has a row for each policy and depth' [ "$(grep -cE '^ +(0|200)  (full|compressed|quantized) ' "$work/stdout")" -eq 6 ]
    check 'nothing is encoded at depth 0' stdout_has '^ +0  quantized .*nothing encoded yet$'
    check 'nor dropped' stdout_has '^ +0  compressed .*nothing dropped yet$'
    check 'but at depth 200' [ "$(grep -c 'yet$' "$work/stdout")" -eq 2 ]
    check 'break-even of both' [ "$(grep -c ' faster than the full cache ' "$work/stdout")" -eq 2 ]
    check 'a line for each figure as it comes, and no progress where stderr is no terminal' stderr_tells_figures 12
    if ! command -v python3 >/dev/null; then
        skip_loudly 'the JSON result; there is no python3'
        return
    fi
    check 'rows' json "$work/result.json" "$rows"
    check 'the keys of the contract' json "$work/result.json" \
        'set("read_bandwidth threads simd results break_even".split()) <= set(r) and all(
         set("policy mode depth prefill_tokens_per_second decode_tokens_per_second bytes_per_token bandwidth_share spread"
             .split()) <= set(x) for x in r["results"])'
    check 'what else is told' json "$work/result.json" \
        'r["model"].endswith("stories260K.bin") and r["device"] == "cpu" and r["prompt_tokens"] == 50 and
         r["generate_tokens"] == 20 and r["repetitions"] == 2 and r["first_token_prompt_tokens"] == 20 and
         0 < r["first_token_seconds"] <= '$elapsed' and
         1e7 < r["read_bandwidth_min"] <= r["read_bandwidth"] <= r["read_bandwidth_max"]
         and r["readings"] == 12 and all(r["read_bandwidth_min"] <= x["read_bandwidth"] <= r["read_bandwidth_max"]
         for x in r["results"])'
    check 'bytes of a full cache' json "$work/result.json" \
        'all(x["bytes_per_token"] == weights + kv_bytes(x["depth"], 20, False) for x in r["results"] if x["mode"] == "full")'
    check 'bytes of an int8 cache' json "$work/result.json" \
        'all(near(x["bytes_per_token"], weights + kv_bytes(x["depth"], 20, True)) for x in r["results"]
             if x["mode"] == "quantized") and of["quantized", 200]["bytes_per_token"] < of["full", 200]["bytes_per_token"]'
    check 'speeds and shares fit each other' json "$work/result.json" \
        'all(near(x["bandwidth_share"], x["bytes_per_token"] * x["decode_tokens_per_second"] / r["read_bandwidth"]) and
             x["prefill_tokens_per_second"] > 0 and x["spread"] >= 0 and x["prefill_depth"] == x["depth"] + 20 and
             0 < x["decode_ms_min"] <= 1000 / x["decode_tokens_per_second"] * (1 + x["spread"]) and
             x["decode_ms_max"] >= x["decode_ms_min"] and x["repetitions"] == 2 for x in r["results"])'
    check 'break-even by policy' json "$work/result.json" \
        'set(r["break_even"]) == {"sink=16,f16:32", "sink=16,f16:32,int8:*"} and
         all(d is None or 0 <= d <= 200 for d in r["break_even"].values())'
    check 'notes' json "$work/result.json" \
        'of["quantized", 0]["note"] == "nothing encoded yet" and "note" not in of["quantized", 200] and
         "note" not in of["full", 0] and "attention_int8_" in " ".join(of["quantized", 0]["kernels"])'
    check 'the chart' svg_is_whole "$work/chart.svg" 3
}

# The result against itself with one speed halved, one within its spread, one point gone, and one file of one repetition.
test_comparison() {
    usual --compare --repetitions 2 --json "$work/before.json"
    python3 - "$work/before.json" "$work/after.json" "$work/single.json" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[1]))
for row in r["results"]:
    row["spread"] = row["prefill_spread"] = 0.1
json.dump(r, open(sys.argv[1], "w"))
r["results"][0]["decode_tokens_per_second"] /= 2
r["results"][1]["decode_tokens_per_second"] *= 1.09
r["results"][2]["prefill_tokens_per_second"] *= 1.11
del r["results"][3]
json.dump(r, open(sys.argv[2], "w"))
for row in r["results"]:
    row["repetitions"] = 1
json.dump(r, open(sys.argv[3], "w"))
PYTHON
    run --from_log "$work/before.json" "$work/after.json"
    expect_status '--from_log' 0
    check 'one is slower' stdout_has '^slower beyond the spread of their repetitions: 1 of 10 speeds$'
    check 'a point is missing' stdout_has '^note: 1 points are in one of the files only$'
    run --from_log "$work/before.json" "$work/after.json" --json -
    cp "$work/stdout" "$work/compared.json"
    check 'as JSON' json "$work/compared.json" '[[x[k]["verdict"] for k in ("decode", "prefill")] for x in r["results"]]
        == [["slower", "same"], ["same", "same"], ["same", "faster"], ["same", "same"], ["same", "same"]]
        and near(r["results"][0]["decode"]["ratio"], 0.5) and near(r["results"][1]["decode"]["noise"], 0.1)'
    run --from_log "$work/before.json" "$work/single.json"
    check 'one repetition says nothing' stdout_has '^slower beyond the spread of their repetitions: 0 of 10 speeds$'
    run --from_log "$work/before.json" "$stories"
    check 'no result' failed_cleanly 1 'is no result of bench --json'
    run --from_log "$work/before.json"
    check 'one file' failed_cleanly 2 'needs two values'
    run --from_log "$work/before.json" "$work/after.json" --json "$work/after.json"
    check 'over its input' failed_cleanly 2 'the file of --from_log'
    run --from_log "$work/before.json" "$work/after.json" --checkpoint_path "$stories"
    check 'with a checkpoint' failed_cleanly 2 'takes no --checkpoint_path'
}

test_policies() {
    usual --quantize_kv --depths 100 --repetitions 1
    expect_status 'one policy' 0
    check 'has no break-even' stdout_has '^no break-even: '
    check 'has no spread' stdout_has '^ +100  quantized +[0-9.]+ +- '
    # one repetition more than policies, which take turns in being the first
    usual --kv_policy 'sink=4,f16:32,int8:64,int4/fp8:*' --kv_policy 'f16:64' --repetitions 4 --json - --threads 1
    expect_status 'several policies' 0
    if command -v python3 >/dev/null; then
        check '--json - is nothing but JSON, with the full cache first' json "$work/stdout" \
            '[x["mode"] for x in r["results"]] == ["full", "full", "cascade", "cascade", "compressed", "compressed"] and
             r["threads"] == 1 and len(r["break_even"]) == 2 and all(x["repetitions"] == 4 for x in r["results"])'
        usual --depths 0 --svg - --kv_policy 'f16:*'
        check '--svg - is nothing but SVG, of one depth too' svg_is_whole "$work/stdout" 1
    fi
    usual --depths 0,600 --compress_kv
    expect_status 'a policy that streams has no deepest depth' 0
}

# ---- Ctrl-C

test_interrupts() {
    make_long_stories
    interrupt '[ "$(grep -c "^depth 0, " "$work/stderr")" -eq 3 ]' --checkpoint_path "$work/long.bin" --depths 0,50000 \
        --prompt_tokens 50 --generate_tokens 20 --compare --json "$work/interrupted.json" --svg "$work/interrupted.svg"
    expect_status 'Ctrl-C' 130
    check 'is told' stderr_has 'interrupted'
    check 'is no error' [ "$(grep -c error "$work/stderr")" -eq 0 ]
    check 'what is complete is in the table' stdout_has '^ +0  quantized .*\(1 of 3 repetitions\)$'
    check 'what is not is not' eval '! stdout_has "^ +50000"'
    if command -v python3 >/dev/null; then
        check 'and in the JSON' json "$work/interrupted.json" \
            'len(r["results"]) == 3 and all(x["depth"] == 0 and x["repetitions"] == 1 for x in r["results"])'
        check 'and in the chart' svg_is_whole "$work/interrupted.svg" 3
    fi
    ended_by_signals 'stderr_has "first token "' --checkpoint_path "$work/long.bin" --depths 50000 \
        --json "$work/ends/a.json" --svg "$work/ends/a.svg"
    interrupt 'stderr_has "first token "' --checkpoint_path "$work/long.bin" --depths 50000 --json "$work/early.json"
    expect_status 'Ctrl-C before the first figure' 130
    check 'prints no table and no error' [ ! -s "$work/stdout" -a "$(grep -c error "$work/stderr")" -eq 0 ]
    check 'and writes no JSON' [ ! -e "$work/early.json" ]
}

# ---- Bad input

test_errors() {
    local list
    for list in '' a '0,,5' '0,' ',0' '0;200' '-1' '200,0' '0,0' 99999999999999999999; do
        expect_error 2 "--depths $list" --depths "$list"
    done
    expect_error 2 'or 70 for the next depth' --depths 0,69
    expect_error 2 'expected' --repetitions 0
    expect_error 2 'expected' --repetitions 1001
    expect_error 2 'expected' --generate_tokens 0
    expect_error 2 'expected' --prompt_tokens=-5
    expect_error 1 'use depths up to 442' --depths 443
    expect_error 1 'use depths up to 130' --n_ctx 200
    expect_error 1 'context of 512 tokens' --prompt_tokens 512 --depths 0
    expect_error 1 'context of 512 tokens' --depths 0 --generate_tokens 600
    expect_error 1 '512' --n_ctx 513
    expect_error 1 '512' --kv_policy 'f16:513'
    expect_error 2 'exclude' --compress_kv --quantize_kv
    expect_error 2 '--compare' --compare --quantize_kv
    expect_error 2 'is there twice' --compare --kv_policy 'f16:*'
    expect_error 2 'character' --kv_policy 'f16:32,itn8:*'
    expect_error 2 'did you mean --depths' --dephts 5
    expect_error 2 'stray' stray
    expect_error 2 'stdout' --json - --svg -
    expect_error 2 'is the file of --json too' --json "$work/x" --svg "$work/x"
    expect_error 2 'the file of --checkpoint_path' --json "$stories"
    ln -s "$stories" "$work/link"
    expect_error 2 'the file of --checkpoint_path' --svg "$work/link"
    expect_error 1 'cannot be written' --json "$work/missing/result.json"
    expect_error 1 'cannot be written' --svg "$work"
    expect_error 1 'missing.gguf' --checkpoint_path "$work/missing.gguf" --json "$work/none.json"
    check 'a failed run leaves no JSON' [ ! -e "$work/none.json" ]
    run --depths 0
    check 'no checkpoint' failed_cleanly 2 '--checkpoint_path'
    run --checkpoint_path "$stories"
    check 'the default tokens do not fit 512' failed_cleanly 1 '--prompt_tokens 512'
    output=/dev/full run --checkpoint_path "$stories" --depths 0 --prompt_tokens 5 --generate_tokens 5 --svg "$work/kept.svg"
    check 'the chart is there all the same' [ -s "$work/kept.svg" ]
    check 'stdout to a full disk' failed_late 1 'stdout'
}

test_results
test_comparison
test_policies
test_interrupts
test_errors
test_help
finish
