#!/usr/bin/env bash
# The program kv_quant_bench as a user runs it: its table, JSON and CSV on small shapes, against arithmetic of our own; the
# codecs, also on what stories260K of $STOWKV_DATA makes of a text; and every kind of bad input.
. "$(dirname "$0")/program_test.sh" kv_quant_bench

usual() { run --device cpu --threads 2 --repetitions 1 "$@"; }

stdout_has() { grep -qE -e "$1" "$work/stdout"; }

# json FILE EXPRESSION: whether the Python expression of r, the file's object, holds.
json() {
    python3 - "$1" "$2" <<'PYTHON'
import json, math, sys
r = json.load(open(sys.argv[1], encoding="utf-8"))
near = lambda a, b, share=1e-6: abs(a - b) <= share * abs(b)
rows = {(x["variant"], x["n_tokens"], x["n_channels"]): x for x in r.get("results", [])}
codecs = {(x["data"], x["side"], x["codec"], x["rotated"]): x for x in r.get("codecs", [])}
if not eval(f"({sys.argv[2]})"):
    sys.exit("in " + sys.argv[1] + " this does not hold: " + sys.argv[2])
PYTHON
}

# Of uniform numbers in [-1, 1) the scale is nearly 1 / 127 and errors are uniform within half of it: their root mean square
# is scale / sqrt(12).
test_variants() {
    usual --shape 1000x64 --shape 300x63 --json "$work/a.json" --csv "$work/a.csv"
    expect_status 'two shapes' 0
    check 'the table has both' eval 'stdout_has "^1000x64 +row_major " && stdout_has "^300x63 +column_walk "'
    check 'the published kind is marked' stdout_has '^column_walk .*the published kind'
    check 'what fits the caches says so' stdout_has '^300x63 +row_major .*from cache$'
    check 'progress' stderr_has '1000x64, simd_scalar: '
    check 'CSV has a row for each, and a heading' \
        [ "$(wc -l <"$work/a.csv")" -eq "$(($(grep -cE '^(1000x64|300x63) ' "$work/stdout") + 1))" ]
    command -v python3 >/dev/null || return
    json_says() { check "$1" json "$work/a.json" "$2"; }
    json_says 'nothing is wrong' 'all(x["n_wrong"] == 0 for x in r["results"])'
    json_says 'errors are the same in all variants' \
        'len({(x["n_tokens"], x["l2"], x["max_abs"], x["score_error"]) for x in r["results"]}) == 2'
    json_says 'the largest is half a scale' '0.9 / 254 < rows["row_major", 1000, 64]["max_abs"] <= 1.0001 / 254'
    json_says 'L2' 'near(rows["row_major", 1000, 64]["l2"], math.sqrt(64000 / 12) / 127, 0.02)'
    json_says 'bytes' 'rows["row_major", 300, 63]["bytes"] == 14 * 300 * 63'
    json_says 'rates and shares' 'all(near(x["bytes_per_second"], x["bytes"] / x["total_ms"] * 1e3) and
        near(x["copy_share"], x["bytes_per_second"] / x["copy_bandwidth"]) for x in r["results"])'
    json_says 'plain loops for each step and for all' 'all(near(x["plain_share"] * x["total_ms"], sum(
        x[f"{step}_plain_share"] * x[f"{step}_ms"] for step in ("scales", "codes", "dequantize"))) for x in r["results"])'
    json_says 'quantize is scales and codes' 'all(near(x["quantize_ms"], x["scales_ms"] + x["codes_ms"]) for x in r["results"])'
    json_says 'speed-ups' 'all(near(x["times_as_fast_as"]["row_major"],
        rows["row_major", x["n_tokens"], x["n_channels"]]["total_ms"] / x["total_ms"]) for x in r["results"])'
    usual --shape 1000x64 --variants row_major --json "$work/b.json"
    check 'the same numbers again' json "$work/b.json" "r['results'][0]['l2'] == $(python3 -c 'import json, sys
print(repr(json.load(open(sys.argv[1]))["results"][0]["l2"]))' "$work/a.json") and len(r['results']) == 1"
    usual --shape 1000x64 --variants row_major --seed 2 --json "$work/c.json"
    check 'others with another seed' json "$work/c.json" "r['results'][0]['l2'] != json.load(open('$work/b.json'))['results'][0]['l2']"
}

test_left_out() {
    usual --shape 4000000000x1000 --variants row_major --json "$work/a.json"
    expect_status 'more than any memory' 0
    check 'is left out, with the reason' stdout_has 'skipped: keys and reference take [0-9.]+ GiB, of which the host has'
    usual --shape 3000x64 --shape 30000x64 --variants row_major --time_limit 1e-9
    check 'so is what would take too long' stdout_has '^30000x64 +row_major +skipped: a run would take about'
    check 'but not the first' stdout_has '^3000x64 +row_major +[0-9.]+ '
}

test_codecs() {
    printf 'Once upon a time there was a dog. %.0s' {1..40} >"$work/text"
    usual --codec int4,q4_0 --capture "$stories" --text_file "$work/text" --json "$work/a.json" --csv "$work/a.csv"
    expect_status 'codecs' 0
    check 'captured keys' stdout_has '^captured keys: [0-9]+ groups of head dimension 8$'
    check 'what a codec cannot do is said' stdout_has '^q4_0 +skipped: codec q4_0 needs a head_dim that is a multiple of 32'
    check 'as many rows of CSV' [ "$(wc -l <"$work/a.csv")" -eq 33 ]
    command -v python3 >/dev/null || return
    json_says() { check "$1" json "$work/a.json" "$2"; }
    json_says '4.5 bits' 'codecs["normal", "keys", "q4_0", False]["bytes_per_element"] == 18 / 32'
    json_says 'rotation spreads outliers' 'codecs["outlier channels", "values", "q4_0", True]["relative_error"] <
        codecs["outlier channels", "values", "q4_0", False]["relative_error"] / 2'
    json_says 'keys by channel do not need that' 'codecs["outlier channels", "keys", "int4", False]["relative_error"] < 0.1'
    json_says 'keys of the model are encoded' '0 < codecs["captured keys", "keys", "int4", False]["relative_error"] < 0.2'
}

# Each codec takes a while with so many repetitions; those that were through are told, in order.
test_interrupts() {
    interrupt 'stderr_has "normal, as keys: "' --codec int4,nf4,q4_0 --repetitions 100 --json "$work/interrupted.json"
    expect_status 'Ctrl-C between codecs' 130
    check 'is told' stderr_has 'interrupted: the figures are those of the codecs that were through'
    check 'what was through is printed' stdout_has '^int4 rotated +0.5625 '
    command -v python3 >/dev/null || return
    check 'and in the JSON' json "$work/interrupted.json" \
        'all(x["data"] == "normal" for x in r["codecs"]) and codecs["normal", "keys", "int4", True]["bytes_per_element"] == 4.5 / 8'
}

test_errors() {
    local shape
    for shape in '' 5 x5 5x 0x5 5x0 -1x5 5x5x5 5.5x5 99999999999x5 4294967295x4294967295 'a b'; do
        expect_error 2 "--shape $shape" --shape "$shape"
    done
    expect_error 2 'there are column_walk, row_major' --variants nothing
    expect_error 2 'no name' --variants ,
    expect_error 2 'did you mean cuda' --device cuba
    expect_error 2 'did you mean q4_1' --codec q4_9
    expect_error 2 'q4_0 is named twice' --codec q4_0,int4,q4_0
    expect_error 2 'a name is missing' --codec q4_0,
    expect_error 2 'give that, too' --codec q4_0 --tokenizer_path "$stories"
    expect_error 2 'timed on the CPU' --codec q4_0 --device cuda
    expect_error 2 '--codec' --capture "$stories"
    expect_error 2 '--text_file' --codec all --capture "$stories"
    expect_error 2 '--capture' --codec all --text_file "$stories"
    expect_error 2 'leave out --shape' --codec all --shape 5x5
    expect_error 2 '--json' --plot "$work/picture"
    expect_error 2 'expected' --repetitions 0
    expect_error 2 'stdout' --json - --csv -
    expect_error 1 'missing.gguf' --codec all --capture "$work/missing.gguf" --text_file "$stories"
    printf 'Too short.' >"$work/short"
    expect_error 1 'longer text' --codec all --capture "$stories" --text_file "$work/short"
}

test_variants
test_left_out
test_codecs
test_interrupts
test_errors
finish
