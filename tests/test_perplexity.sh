#!/usr/bin/env bash
# The program as a user runs it: figures, files, exit statuses, and refusals. It runs $STOWKV_BUILD/perplexity on
# stories260K and the start of WikiText-2, both of $STOWKV_DATA, and, where $STOWKV_SMOLLM2 names it and $STOWKV_SANITIZE
# is not 1, compares SmolLM2's perplexity with llama.cpp's.
# shellcheck source=tests/program_test.sh
. "$(dirname "$0")/program_test.sh" perplexity

wiki=$STOWKV_DATA/wiki.test.raw
: "${STOWKV_FIXTURES:=}"
if [ ! -r "$wiki" ] || ! command -v python3 >/dev/null; then
    skip_loudly "test_perplexity; it needs STOWKV_DATA's wiki.test.raw, and python3"
    exit 77
fi
head -n 40 "$wiki" >"$work/text" # 4,918 tokens with BOS

# measure ARGUMENT…: on stories260K; a later --text_file overrides the one here.
measure() {
    run --checkpoint_path "$stories" --text_file "$work/text" "$@"
}

usual() { measure "$@"; }

# measured ARGUMENT…: measure with its result in $work/result.json, which must succeed.
measured() {
    measure --json "$work/result.json" "$@"
    expect_status "$*" 0
}

# holds EXPRESSION [FILE]: in Python, of the result r.
holds() {
    python3 - "$1" "${2:-$work/result.json}" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[2], encoding="utf-8"))
if not eval(sys.argv[1]):
    sys.exit(f"{sys.argv[1]} is false")
PYTHON
}

number() { # EXPRESSION [FILE]
    python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(repr(eval(sys.argv[2])))' "${2:-$work/result.json}" "$1"
}

# ---- Figures and files

json_is_complete() {
    python3 - "$work/result.json" <<'PYTHON'
import json, sys
result = json.load(open(sys.argv[1], encoding="utf-8"))
keys = """definition mode policy context stride bos tokens_scored ppl ppl_stderr tiers kernels tokens_per_second model device
threads simd text_file n_text_tokens chunks chunks_of_text ppl_by_chunk kv_bytes kv_bytes_full
bits_per_old_element""".split()
kld_keys = "mean stderr median p90 p95 p99 p999 max same_top1".split()
tier_keys = "codec_k codec_v tokens bytes_held bytes_read tokens_encoded".split()
modes = result["modes"]
for mode in modes:
    missing = [key for key in keys if key not in mode] + [key for key in tier_keys if key not in mode["tiers"][0]]
    assert not missing, missing
    assert mode["tokens_scored"] == mode["chunks"] * 127 and mode["chunks"] == mode["chunks_of_text"] == 19
    assert len(mode["ppl_by_chunk"]) == 19 and mode["ppl_by_chunk"][-1] == mode["ppl"] > 1
    assert mode["ppl_stderr"] > 0 and mode["kernels"] and mode["tokens_per_second"] > 0
    assert mode["definition"] == "llamacpp" and mode["bos"] == "replaced" and mode["context"] == mode["stride"] == 256
assert [mode["mode"] for mode in modes] == ["full", "compressed", "quantized"]
full, *others = modes
assert "kld" not in full and "ln_ratio" not in full and "attribution" not in full
for mode in others:
    kld = mode["kld"]
    assert not [key for key in kld_keys if key not in kld]
    assert 0 < kld["median"] < kld["p90"] < kld["p95"] < kld["p99"] < kld["p999"] <= kld["max"]
    assert 0 < kld["stderr"] < kld["mean"] < kld["max"] and 0.5 < kld["same_top1"] < 1
    assert abs(2.718281828459045 ** mode["ln_ratio"] * full["ppl"] / mode["ppl"] - 1) < 1e-12
    assert mode["ln_ratio_stderr"] > 0
    rows = mode["attribution"]
    assert [(row["layer"], row["kv_head"]) for row in rows] == [(i, j) for i in range(5) for j in range(4)]
    assert all(row["output"] > 0 and (row["k"] > 0) == (row["v"] > 0) == (mode["mode"] == "quantized") for row in rows)
quantized = modes[2]
assert all(result[key] == quantized[key] for key in quantized), "the report's head is its last mode"
# heads of 8 elements: what is known of the queries is as large as the cache of so few tokens
assert quantized["kv_bytes"] - quantized["moments_bytes"] < full["kv_bytes"] == full["kv_bytes_full"]
tier = next(tier for tier in quantized["tiers"] if tier["codec_k"] == "int8")
# 19 windows, 3 groups of 64 tokens in each; int8 keys of 8 channels take 16 + 512 bytes, values 128 + 512; 5 layers of
# 4 heads; after 112, 176 and 240 tokens there is a group more to read.
assert tier["tokens_encoded"] == 19 * 192
assert tier["bytes_read"] == 19 * 5 * 4 * 1168 * ((256 - 111) + (256 - 175) + (256 - 239)), tier["bytes_read"]
PYTHON
}

csv_agrees_with_json() {
    python3 - "$work/result.json" "$work/result.csv" <<'PYTHON'
import csv, json, sys
result = json.load(open(sys.argv[1], encoding="utf-8"))
lines = list(csv.reader(open(sys.argv[2], encoding="utf-8", newline="")))
head, rows = lines[0], lines[1:]
assert all(len(row) == len(head) == 26 for row in rows), [len(row) for row in lines]
modes = result.get("modes", [result])
assert len(rows) == len(modes)
for mode, row in zip(modes, rows):
    flat = mode | {("same_top1" if key == "same_top1" else key if key.startswith("delta") else f"kld_{key}"): value
                   for key, value in mode.get("kld", {}).items()}
    for key, text in zip(head, row):
        if key not in flat:
            assert text == "" and mode["mode"] == "full", key
        elif isinstance(flat[key], str):
            assert text == flat[key], key
        else:
            assert abs(float(text) - flat[key]) <= 1e-8 * abs(flat[key]), (key, text, flat[key])
PYTHON
}

table_agrees_with_json() {
    python3 - "$work/result.json" "$work/stdout" <<'PYTHON'
import json, sys
modes = json.load(open(sys.argv[1], encoding="utf-8"))["modes"]
table = open(sys.argv[2], encoding="utf-8").read()
for mode in modes:
    line = next(line for line in table.splitlines() if line.startswith(mode["mode"] + " "))
    fields = line.split()
    assert fields[1] == f'{mode["ppl"]:.4f}' and fields[-1] == mode["policy"], line
    if "kld" in mode:
        assert fields[3:6:2] == [f'{mode["ln_ratio"]:.6f}', f'{mode["kld"]["mean"]:.6f}'], line
        assert any(line.split()[:1] == [f'{mode["kld"]["median"]:.6f}'] and line.endswith(mode["policy"])
                   for line in table.splitlines()), mode["policy"]
assert "context 256, stride 256, 19 of 19 windows, BOS replaced" in table
PYTHON
}

test_reports() {
    measured --context 256 --compare --attribution --csv "$work/result.csv"
    check 'the JSON is complete' json_is_complete
    check 'the CSV says the same' csv_agrees_with_json
    check 'the table says the same' table_agrees_with_json
    cp "$work/result.json" "$work/compared.json"
    measured --context 256 --csv "$work/result.csv"
    check 'full alone is the same full' holds "r['ppl'] == json.load(open('$work/compared.json'))['modes'][0]['ppl'] and 'modes' not in r"
    check 'the CSV says the same' csv_agrees_with_json
    measure --context 256 --quantize_kv --json -
    check '--json - is nothing but JSON' holds "r['mode'] == 'quantized' and 'kld' not in r" "$work/stdout"
    check 'quantized alone is the same quantized' holds "r['ppl'] == json.load(open('$work/compared.json'))['ppl']" "$work/stdout"
    measure --context 256 --csv -
    check '--csv - is nothing but CSV' [ "$(wc -l <"$work/stdout")" -eq 2 ]
}

test_definitions() {
    measured --context 100 --ppl_mode gptq
    check 'gptq' holds "r['bos'] == 'once' and r['tokens_scored'] == 99 * r['chunks'] and r['chunks'] == r['n_text_tokens'] // 100"
    check 'gptq joins rows' holds "r['n_text_tokens'] > 4918"
    measured --context 100 --ppl_mode hf --stride 60 --chunks 11
    check 'hf' holds "r['stride'] == 60 and r['tokens_scored'] == 99 + 10 * 60 and r['chunks'] == r['chunks_of_text'] == 11"
    measured --ppl_mode hf --n_ctx 300
    check 'hf without --stride, --n_ctx for --context' holds "r['context'] == r['stride'] == 300"
    check 'all of the text' holds "r['tokens_scored'] == r['n_text_tokens'] - r['chunks']"
    measured --context 100 --chunks 3
    check 'llamacpp takes bytes as they are' holds "r['n_text_tokens'] == 4918 and r['tokens_scored'] == 3 * 49 and len(r['ppl_by_chunk']) == 3"
    head -c 500 "$work/text" >"$work/short"
    measured --ppl_mode hf --text_file "$work/short" --context 512 --stride 64
    check 'hf takes a text below the context' holds "r['chunks'] == 1 and r['tokens_scored'] == r['n_text_tokens'] - 1 < 511"
    measured --context 256 --chunks 2 --batch 1
    cp "$work/result.json" "$work/single.json"
    measured --context 256 --chunks 2 --batch 64 --threads 3
    check 'batch and threads change nothing' holds "r['ppl'] == json.load(open('$work/single.json'))['ppl']"
    measured --context 256 --chunks 2 --simd scalar
    check 'nor do instruction sets, but for roundings to FP16' holds "abs(r['ppl'] / json.load(open('$work/single.json'))['ppl'] - 1) < 3e-4"
}

# The whole way from the text's bytes in Python and float64. Roundings to FP16 that fall otherwise move the mean of the
# likelihoods by 3e-4 (tests/test_evaluation.c has the argument).
test_float64() {
    local mode n_tokens context stride chunks expected n_scored cases=$STOWKV_FIXTURES/perplexity/stories260k.cases
    if [ ! -r "$cases" ]; then
        skip_loudly 'perplexities in float64; STOWKV_FIXTURES has no perplexity/stories260k.cases'
        return
    fi
    while read -r mode n_tokens context stride chunks expected n_scored; do
        measured --ppl_mode "$mode" --context "$context" --stride "$stride" --chunks "$chunks"
        check "$mode in float64: $expected, here $(number "r['ppl']")" \
            holds "r['n_text_tokens'] == $n_tokens and r['tokens_scored'] == $n_scored and abs(r['ppl'] / $expected - 1) < 3e-4"
    done <"$cases"
}

test_policies() {
    measured --context 256 --chunks 2 --kv_policy 'sink=4,f16:32,int8:*' --kv_policy 'sink=4,f16:32,int8:64,int4/fp8:*' --kv_policy 'f16:*'
    check 'several policies, the full one first' holds "[m['policy'] for m in r['modes']] == ['f16:*', 'sink=4,f16:32,int8:*', 'sink=4,f16:32,int8:64,int4/fp8:*', 'f16:*']"
    check 'full does not diverge from itself' holds "(m := r['modes'][3])['kld']['max'] == 0 and m['kld']['same_top1'] == 1 and m['ln_ratio'] == 0 and m['ppl'] == r['modes'][0]['ppl']"
    check 'fewer bits, more divergence' holds "0 < r['modes'][1]['kld']['mean'] < r['modes'][2]['kld']['mean']"
    measured --context 256 --chunks 2 --quantize_kv --kld --kv_codec k=int8,v=fp8
    check '--kld adds the full cache' holds "[m['mode'] for m in r['modes']] == ['full', 'quantized'] and r['kld']['mean'] > 0"
}

test_base_logits() {
    measured --context 256 --chunks 4 --quantize_kv --save_base_logits "$work/base"
    cp "$work/result.json" "$work/direct.json"
    check 'the file has 2 bytes for each of 512 logits of 508 tokens' [ "$(stat -c %s "$work/base")" -eq $((48 + 508 * 1048)) ]
    measured --context 256 --chunks 4 --quantize_kv --base_logits "$work/base"
    check 'no full cache runs' holds "'modes' not in r and r['mode'] == 'quantized'"
    check 'the same perplexities' holds "(d := json.load(open('$work/direct.json')))['ppl'] == r['ppl'] and d['modes'][0]['ppl'] == r['ppl_base'] and d['ln_ratio'] == r['ln_ratio']"
    check 'the same divergence to 1e-6' holds "abs(json.load(open('$work/direct.json'))['kld']['mean'] - r['kld']['mean']) < 1e-6"
    check 'the table names the base' grep -q "^full (from $work/base): PPL " "$work/stdout"
    measured --context 256 --chunks 4 --base_logits "$work/base"
    check 'full against its own base' holds "r['kld']['mean'] < 1e-6 and r['ln_ratio'] == 0"
    expect_error 1 'another text, --context' --context 128 --chunks 4 --quantize_kv --base_logits "$work/base"
    expect_error 1 'another text, --context' --context 256 --chunks 5 --quantize_kv --base_logits "$work/base"
    expect_error 1 'no base logits' --context 256 --quantize_kv --base_logits "$work/text"
    expect_error 1 'missing' --context 256 --quantize_kv --base_logits "$work/missing"
    expect_error 2 'exclude' --context 256 --save_base_logits "$work/base" --base_logits "$work/base"
    expect_error 1 '/dev/full: ' --context 256 --quantize_kv --save_base_logits /dev/full
    expect_error 1 'cannot be written' --context 256 --quantize_kv --save_base_logits "$work/missing/base"
    cp "$stories" "$work/other.bin"
    cp "$STOWKV_DATA/tok512.model" "$work/tokenizer.model"
    chmod u+w "$work/other.bin"
    printf '\x3f' | dd of="$work/other.bin" bs=1 seek=31 conv=notrunc status=none # the first weight
    run --checkpoint_path "$work/other.bin" --text_file "$work/text" --context 256 --chunks 4 --quantize_kv --base_logits "$work/base"
    check 'base logits of another model' failed_cleanly 1 'another model'
    printf '\xff' | dd of="$work/base" bs=1 seek=99999 conv=notrunc status=none
    measure --context 256 --chunks 4 --quantize_kv --base_logits "$work/base"
    check 'a damaged row' failed_cleanly 1 'position 95 is damaged'
    rm "$work/base"
}

# ---- What is refused

# Without what editors put around it, the text is the text; from wherever it comes.
test_editors() {
    { printf '\xef\xbb\xbf'; sed 's/$/\r/' "$work/text"; printf '\x1a'; } >"$work/dos"
    measured --context 256 --chunks 2
    cp "$work/result.json" "$work/plain.json"
    for file in "$work/dos" - <(cat "$work/text"); do
        measured --context 256 --chunks 2 --text_file "$file" <"$work/text"
        check 'as many tokens, and the same perplexity' \
            holds "all(r[k] == json.load(open('$work/plain.json'))[k] for k in ('n_text_tokens', 'ppl'))"
    done
    measured --context 256 --chunks 2 --text_file "$work/dos"
    check 'CRLF is told' stderr_has 'dos: 40 line ends are CRLF, and read as LF'
    expect_error 1 'stdin: is empty' --text_file -
    iconv -f UTF-8 -t UTF-16 <"$work/text" >"$work/utf16"
    expect_error 1 'utf16: is UTF-16' --text_file "$work/utf16"
}

test_bad_texts() {
    printf 'Once upon a time.' >"$work/short"
    : >"$work/empty"
    printf 'Once\0upon a time' >"$work/binary"
    printf 'Une fois, \xe0 la for\xeat' >"$work/latin1"
    expect_error 1 'needs 512' --context 256 --text_file "$work/short"
    expect_error 1 'needs 300' --context 300 --text_file "$work/short" --ppl_mode gptq
    expect_error 1 'is empty' --text_file "$work/empty"
    expect_error 1 'byte 4 is NUL' --text_file "$work/binary"
    expect_error 1 'byte 10 is not UTF-8' --text_file "$work/latin1"
    expect_error 1 'directory' --text_file "$work"
    expect_error 1 'No such file' --text_file "$work/missing"
    run --checkpoint_path "$stories"
    check 'no text' failed_cleanly 2 '--text_file'
    run --text_file "$work/text"
    check 'no checkpoint' failed_cleanly 2 '--checkpoint_path'
}

test_bad_settings() {
    expect_error 1 'trained for 512' --context 513
    expect_error 1 'trained for 512' --ppl_mode hf # whose default is 1024
    expect_error 1 'trained for 512' --n_ctx 513
    expect_error 2 'expected' --context 3
    expect_error 2 'move by 1 to 256' --ppl_mode hf --context 256 --stride 0
    expect_error 2 'move by 1 to 256' --ppl_mode hf --context 256 --stride 257
    expect_error 2 'do not overlap' --context 256 --stride 128
    expect_error 2 'expected' --chunks 0
    expect_error 2 'expected' --batch 0
    expect_error 2 'did you mean llamacpp' --ppl_mode llama.cpp
    expect_error 2 'choose one with --quantize_kv' --context 256 --kld
    expect_error 2 'a window fills the cache' --context 256 --n_ctx 512
    expect_error 2 '--compare' --context 256 --compare --quantize_kv
    expect_error 2 '--kld' --kdl
    expect_error 2 'both want stdout' --json - --csv -
    expect_error 2 'name one' --quantize_kv --save_base_logits -
    ln -sf text "$work/link"
    expect_error 2 'the file of --text_file' --json "$work/link"
    expect_error 2 'the file of --text_file' --context 256 --quantize_kv --save_base_logits "$work/../${work##*/}/text"
    : >"$work/logits"
    expect_error 2 'the file of --base_logits' --quantize_kv --base_logits "$work/logits" --csv "$work/logits"
    expect_error 2 'is the file of --json too' --json "$work/new" --csv "$work/./new"
    ln -sf new "$work/dangling"
    expect_error 2 'is the file of --json too' --json "$work/new" --csv "$work/dangling"
    expect_error 1 'a query sees at most 111 tokens' --context 112 --quantize_kv
    expect_error 1 'a query sees at most 111 tokens' --context 112 --compress_kv
    expect_error 1 'a query sees at most 111 tokens' --context 112 --compare
    measure --context 113 --chunks 1 --compare
    expect_status 'a context one token longer' 0
}

test_output_errors() {
    expect_error 1 'cannot be written' --context 256 --json "$work/missing/result.json"
    expect_error 1 'cannot be written' --context 256 --csv "$work/missing/result.csv"
    expect_error 1 'cannot be written' --context 256 --json "$work"
    mkdir "$work/none"
    expect_error 1 'needs 512' --context 256 --text_file "$work/short" --json "$work/none/a" --csv "$work/none/b"
    check 'a failed run leaves no files' rmdir "$work/none"
    measure --context 256 --chunks 1 --json /dev/full
    check '--json to a full disk' failed_late 1 '/dev/full: cannot be written'
    measure --context 256 --chunks 1 --csv /dev/full
    check '--csv to a full disk' failed_late 1 '/dev/full: cannot be written'
    check 'and the table is there all the same' grep -q '^full ' "$work/stdout"
    output=/dev/full run --checkpoint_path "$stories" --text_file "$work/text" --context 256 --chunks 1 --json "$work/kept.json"
    check 'stdout to a full disk' failed_cleanly 1 'stdout'
    check 'and the JSON is there all the same' holds "r['ppl'] > 1" "$work/kept.json"
}

# ---- Ctrl-C: 4,400 windows that move by a token take minutes

# Whether the run has a file of its own in $work/ends that is as large: while it is written it may have no name.
writes_as_much() { # AS FILE
    local descriptor
    for descriptor in "/proc/$pid/fd/"*; do
        [[ $(readlink "$descriptor") == "$work/ends/"* ]] && [ "$(stat -Lc %s "$descriptor")" -ge "$(stat -c %s "$1")" ] && return
    done 2>/dev/null
    return 1
}

# What is written of the base logits tells how far a run is: two windows' are there.
test_interrupts() {
    local flags=(--checkpoint_path "$stories" --text_file "$work/text" --ppl_mode hf --context 512 --stride 1 --kld --quantize_kv)
    run "${flags[@]}" --chunks 2 --save_base_logits "$work/two"
    expect_status 'two windows' 0
    flags+=(--save_base_logits "$work/ends/base")
    mkdir "$work/ends"
    interrupt 'writes_as_much "$work/two"' "${flags[@]}" --json "$work/result.json" --csv "$work/result.csv"
    expect_status 'Ctrl-C' 130
    check 'it is told' stderr_has 'interrupted: the figures are those of the first'
    check 'it is no error' [ "$(grep -c error "$work/stderr")" -eq 0 ]
    check 'the table is there' grep -q '^quantized ' "$work/stdout"
    check 'the JSON of what is through' holds "0 < r['chunks'] < r['chunks_of_text'] and r['tokens_scored'] == 510 + r['chunks'] and len(r['ppl_by_chunk']) == r['chunks'] and r['kld']['mean'] > 0"
    check 'the CSV of what is through' csv_agrees_with_json
    check 'no half a file of base logits' left_nothing
    ended_by_signals 'writes_as_much "$work/two"' "${flags[@]}" --json "$work/ends/a.json" --csv "$work/ends/a.csv"
}

# ---- The real model, against llama.cpp (weights expanded to F32, FP16 cache): cumulative perplexities by chunk

test_smollm2() {
    if [ ! -r "${STOWKV_SMOLLM2:-}" ] || [ "${STOWKV_SANITIZE:-0}" = 1 ]; then
        skip_loudly 'the perplexity of SmolLM2; STOWKV_SMOLLM2 names no checkpoint, or a sanitizer would take minutes'
        return
    fi
    run --checkpoint_path "$STOWKV_SMOLLM2" --text_file "$wiki" --context 512 --chunks 5 --json "$work/result.json"
    expect_status 'SmolLM2' 0
    check "SmolLM2's perplexities: $(number '[round(x, 4) for x in r["ppl_by_chunk"]]')" \
        holds "all(abs(a / b - 1) < 5e-4 for a, b in zip(r['ppl_by_chunk'], [12.9560, 21.3753, 22.5255, 22.7458, 22.2583], strict=True))"
}

test_reports
test_definitions
test_float64
test_policies
test_base_logits
test_editors
test_bad_texts
test_bad_settings
test_output_errors
test_interrupts
test_smollm2
test_help
finish
