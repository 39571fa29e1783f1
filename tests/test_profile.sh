#!/usr/bin/env bash
# generate --profile as a user runs it: its folder, what the files hold, what an interrupted or impossible profile leaves.
# It runs $STOWKV_BUILD/generate and perplexity on stories260K, both of $STOWKV_DATA.
# shellcheck source=tests/program_test.sh
. "$(dirname "$0")/program_test.sh" generate

if ! command -v python3 >/dev/null; then
    skip_loudly "test_profile; it needs python3"
    exit 77
fi
outputs=$work/here/outputs # the program runs in a folder of its own
mkdir "$work/here"
wiki=$STOWKV_DATA/wiki.test.raw

usual() {
    run --checkpoint_path "$stories" --prompt 'Once upon a time' --max_new_tokens 20 --temperature 0 --profile "$@"
}

# profile NAME ARGUMENT…: usual, there.
profile() {
    cd "$work/here" && usual "$@"
    cd - >/dev/null || exit
}

# holds EXPRESSION NAME [JSON]: in Python, of what outputs/NAME holds, and of perplexity's result.
holds() {
    python3 - "$1" "$outputs/$2" "${3:-}" <<'PYTHON'
import csv, json, re, sys
folder = sys.argv[2]
s = json.load(open(f"{folder}/summary.json", encoding="utf-8"))
trace = json.load(open(f"{folder}/trace.json", encoding="utf-8"))["traceEvents"]
steps = list(csv.DictReader(open(f"{folder}/steps.csv", encoding="utf-8")))
html = open(f"{folder}/report.html", encoding="utf-8").read()
ppl = json.load(open(sys.argv[3], encoding="utf-8")) if sys.argv[3] else None
if not eval(f"({sys.argv[1]})"):
    sys.exit(f"{sys.argv[1]} is false")
PYTHON
}

# The names that README and its readers rely on, their kinds, and sums that follow from each other.
schema_holds() {
    python3 - "$outputs/$1/summary.json" <<'PYTHON'
import json, sys
s = json.load(open(sys.argv[1], encoding="utf-8"))
NUMBER, TEXT, LIST = (int, float), str, list


def has(where, item, **fields):
    for name, kind in fields.items():
        assert isinstance(item.get(name), kind), f"{where}: {name} is {item.get(name)!r}"


has("summary", s, name=TEXT, complete=bool, bytes_per_second_peak=NUMBER, modes=LIST)
assert s["complete"] != ("missing" in s)
for mode in s["modes"]:
    has("mode", mode, mode=TEXT, policy=TEXT, model=TEXT, text=TEXT, kv_bytes=NUMBER, tiers=LIST, growth=LIST,
        profile=dict)
    p = mode["profile"]
    has("profile", p, wall_seconds=NUMBER, counted_seconds=NUMBER, complete=bool, phases=LIST)
    assert p["counted_seconds"] <= p["wall_seconds"]
    for phase in p["phases"]:
        has("phase", phase, phase=TEXT, steps=NUMBER, tokens=NUMBER, seconds=NUMBER, operations=LIST, tiers=LIST)
        spent = sum(o["seconds"] for o in phase["operations"])
        assert abs(spent + phase["unaccounted_seconds"] - phase["seconds"]) < 1e-9
        for o in phase["operations"]:
            has("operation", o, operation=TEXT, calls=NUMBER, seconds=NUMBER, share=NUMBER, bytes=NUMBER, flops=NUMBER)
    for tier, counted in zip(mode["tiers"], zip(*[ph["tiers"] for ph in p["phases"]])):
        assert tier["bytes_read"] == sum(t["bytes_read"] for t in counted), "the ledger's bytes, by phase"
for mode in s.get("quality", {}).get("modes", []):
    has("quality", mode, mode=TEXT, policy=TEXT, definition=TEXT, context=NUMBER, chunks=NUMBER, tokens_scored=NUMBER,
        ppl=NUMBER, ppl_stderr=NUMBER, tiers=LIST, kernels=LIST)
    if mode is s["quality"]["modes"][0]:
        continue
    has("quality", mode, ln_ratio=NUMBER, kld=dict, rouge=dict)
    has("kld", mode["kld"], mean=NUMBER, stderr=NUMBER, same_top1=NUMBER)
    has("rouge", mode["rouge"], variant=TEXT, n=NUMBER, n_prompt=NUMBER, max_new_tokens=NUMBER, f=NUMBER,
        f_stderr=NUMBER, n_same=NUMBER)
    assert 0 < mode["rouge"]["f"] <= 1 and (mode["rouge"]["f"] == 1 or mode["rouge"]["n_same"] < mode["rouge"]["n"])
PYTHON
}

test_files() {
    profile run
    expect_status '--profile' 0
    check 'three modes without a flag' eval 'grep -c "^--- \(full\|compressed\|quantized\) ---$" "$work/stdout" | grep -qx 3'
    check 'names, kinds and sums' schema_holds run
    check 'it is complete' holds 's["complete"] and "quality" not in s' run
    check 'a step for the prompt and 19 tokens, in each mode' holds 'len(steps) == 60' run
    check 'a trace with them' holds 'sum(e["ph"] == "X" and e["tid"] == 1 for e in trace) == 60' run
    check 'the report has the text' holds 's["modes"][0]["text"] in html and s["modes"][0]["model"] in html' run
    profile run --quantize_kv --n_ctx 64
    check 'nothing is overwritten' [ -s "$outputs/run-2/report.html" ]
    check 'the mode that was chosen, alone' holds 'len(s["modes"]) == 1' run-2
    profile small --n_ctx 64
    check 'a context without room for depths' holds 's["complete"] and len(s["depths"]["results"]) == 3' small
    profile ../run
    check 'a name that leaves the folder' failed_cleanly 2 'plain name'
    expect_error 2 'has many' run --interactive
}

# The same figures as perplexity's, to the last bit, and pieces of the text for ROUGE.
test_quality() {
    head -n 12 "$wiki" >"$work/text"
    profile text --profile_quality --profile_text "$work/text"
    expect_status '--profile_quality of a text' 0
    "${emulator[@]}" "$program_folder/perplexity" --checkpoint_path "$stories" --text_file "$work/text" --compare \
        --context 512 --json "$work/ppl.json" >/dev/null
    check 'names, kinds and sums, with quality' schema_holds text
    check 'full mode, with the others behind it' holds '[m["mode"] for m in s["quality"]["modes"]] == ["full", "compressed", "quantized"]' text
    check "perplexity's figures" holds 'all(a[k] == b[k] for a, b in zip(s["quality"]["modes"], ppl["modes"])
        for k in ("ppl", "ppl_stderr", "tokens_scored", "chunks", "kld", "ln_ratio") if k in b)' text "$work/ppl.json"
    check 'which the report has' holds 'f"""{s["quality"]["modes"][2]["kld"]["mean"]:.6f}""" in html' text
    "${emulator[@]}" "$program_folder/recall" --checkpoint_path "$stories" --compare --distances 64,256 --samples 6 \
        --json "$work/recall.json" >/dev/null
    check "recall's figures" holds '[m["points"] for m in s["recall"]["modes"]] == [m["points"] for m in ppl["modes"]] and
        f"""{100 * s["recall"]["modes"][2]["points"][1]["right"]:.1f} &plusmn;""" in html' text "$work/recall.json"
    check 'and rounding is nearer than dropping' holds 's["quality"]["modes"][1]["rouge"]["f"] < s["quality"]["modes"][2]["rouge"]["f"]' text
    profile own --profile_quality --quantize_kv --sink_size 70
    check "the model's own text" holds 's["quality"]["own"] and s["complete"] and len(s["modes"]) == 1' own
    check 'the full cache is what it is compared with' holds '[m["mode"] for m in s["quality"]["modes"]] == ["full", "quantized"]' own
    check 'no recall of what a sink may hold, and why' holds 'list(s["recall"]) == ["left_out"] and "sink of 70" in html' own
    check 'how much of it, in the report' holds '"drawn that text itself" in html and "pieces of the text" in html' own
}

# Where quality cannot be told there is an error, the text, and all the rest.
test_no_quality() {
    profile none --profile_quality --quantize_kv --window_size 300
    check 'no token leaves the window' failed_late 1 'in its sink and window'
    check 'the text is there' grep -q '^--- quantized ---$' "$work/stdout"
    check 'so is the profile, which says so' holds 's["depths"] and "quality could not be measured" in s["missing"] and
        "This profile is not complete: quality" in html' none
    profile empty --profile_quality --profile_text /dev/null
    check 'an empty text' failed_cleanly 1 'is empty'
    expect_error 1 'No such file' run --profile_quality --profile_text "$work/nowhere"
    expect_error 2 'give both' run --profile_text "$work/text"
    run --checkpoint_path "$stories" --prompt a --profile_quality
    check 'without --profile' failed_cleanly 2 'give --profile NAME'
}

# ---- What cannot be written, or is cut off

test_no_place() {
    mv "$outputs" "$work/outputs"
    : >"$outputs"
    profile run --n_ctx 64
    check 'no place for it' failed_late 1 'outputs: File exists'
    check 'and the text all the same' grep -q '^--- quantized ---$' "$work/stdout"
    rm "$outputs"
    mkdir "$outputs"
    # A limit on files stands for a full disk: it holds for who runs tests as root too.
    (trap '' XFSZ && ulimit -f 8 && profile run --n_ctx 64 && exit "$status")
    status=$?
    check 'a disk that is full' failed_late 1 'outputs/run/summary.json: cannot be written: File too large'
    check 'the text is there too' grep -q '^--- quantized ---$' "$work/stdout"
    check 'the small files too, and no half of a large one' [ "$(ls -A "$outputs/run")" = steps.csv ]
    rm -r "$outputs"
    mv "$work/outputs" "$outputs"
}

interrupted() { # CONDITION NAME ARGUMENT…
    local condition=$1
    shift
    cd "$work/here" && interrupt "$condition" --checkpoint_path "$work/long.bin" --prompt 'Once upon a time' \
        --temperature 0 --ignore_eos --profile "$@" <<<''
    cd - >/dev/null || exit
}

test_interrupts() {
    make_long_stories
    interrupted 'grep -q . "$work/stdout"' cut --max_new_tokens 50000
    expect_status 'Ctrl-C in the first run' 130
    check 'what it has come to' schema_holds cut
    check 'and why it is no more' holds 'not s["complete"] and "interrupted in run 1 of 3" in s["missing"] and s["missing"] in html and
        steps and trace[-1]["ph"] == "M"' cut
    interrupted 'grep -q "depth .*, quantized" "$work/stderr"' cut-quality --max_new_tokens 10 --n_ctx 128 \
        --profile_quality --profile_text "$wiki"
    expect_status 'Ctrl-C in the measurement of quality' 130
    check 'the runs and depths are there' holds 'len(s["modes"]) == 3 and "depths" in s' cut-quality
    check 'and what is missing is told' holds '"while quality was measured" in s["missing"]' cut-quality
}

program_folder=$(dirname "$program")
test_files
if [ -r "$wiki" ]; then
    test_quality
fi
test_no_quality
test_no_place
if [ -z "${STOWKV_EMULATOR:-}" ] && [ -r "$wiki" ]; then
    test_interrupts
fi
finish
