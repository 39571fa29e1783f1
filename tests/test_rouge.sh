#!/usr/bin/env bash
# The program rouge as a user runs it: scores of pairs, and texts of stories260K ($STOWKV_DATA) under cache policies:
# what it prints, its JSON, how a run goes on after an interruption, and every kind of bad input.
. "$(dirname "$0")/program_test.sh" rouge
generate=$STOWKV_BUILD/generate

usual() { run "$@"; }

# tell ARGUMENT…: texts of stories260K from our own data; arguments override the flags here.
tell() {
    run --checkpoint_path "$stories" --data "$work/data.jsonl" --max_new_tokens 30 --prompt_template '{}' "$@"
}

stdout_has() { grep -qE -e "$1" "$work/stdout"; }
# A failure behind notes, with nothing on stdout.
failed_behind_notes() { [ ! -s "$work/stdout" ] && failed_late "$@"; }

# expect_tell_error STATUS TEXT ARGUMENT…: with the model and data, whose notes may stand before the error.
expect_tell_error() {
    local expected=$1 text=$2
    shift 2
    tell "$@" </dev/null
    check "status $expected: $*" failed_behind_notes "$expected" "$text"
}

# json FILE EXPRESSION: whether the Python expression of r, the file's object, holds.
json() {
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[1], encoding="utf-8"))
near = lambda a, b: abs(a - b) < 1e-6
if not eval(f"({sys.argv[2]})"):
    sys.exit("in " + sys.argv[1] + " this does not hold: " + sys.argv[2])
PYTHON
}

# ---- Pairs

test_pairs() {
    cat >"$work/pairs.jsonl" <<'END'
{"reference": "The quick brown fox jumps over the lazy dog", "prediction": "The quick brown dog jumps on the log."}
{"reference": ["nothing", "testing one two"], "prediction": "testing two", "id": 7}
END
    run --pairs "$work/pairs.jsonl"
    expect_status 'pairs' 0
    check 'the means are a table' stdout_has '^ *2 +0\.812500 +0\.611111 +0\.694118$'
    check 'it says what was computed' stdout_has '^rougeL as in rouge-score 0.1.2, not stemmed$'
    check 'nothing on stderr' [ ! -s "$work/stderr" ]
    run --pairs - --variant rouge1 --stem --json "$work/result.json" <"$work/pairs.jsonl"
    expect_status 'pairs from stdin' 0
    check 'the table is there too' stdout_has '^rouge1 as in rouge-score 0.1.2, stemmed$'
    check 'JSON of pairs' json "$work/result.json" \
        'r["variant"] == "rouge1" and r["stem"] is True and r["n"] == 2 and r["per_sample"][1] == [1, 2/3, 0.8]'
    run --pairs "$work/pairs.jsonl" --json -
    check '--json - is nothing but JSON' json "$work/stdout" \
        'near(r["precision"], 0.8125) and near(r["recall"], 0.611111) and near(r["f"], 0.694118) and len(r["per_sample"]) == 2'
    printf '\xef\xbb\xbf{"reference":"a","prediction":"a"}\r\n\r\n{"reference":"b","prediction":"b"}' >"$work/dos.jsonl"
    run --pairs "$work/dos.jsonl"
    check 'byte order mark, CRLF, empty lines, no last newline' stdout_has '^ *2 +1\.000000'
    printf '{"reference":"%s","prediction":"東京 !"}\n' a b '...' >"$work/blank.jsonl"
    run --pairs "$work/blank.jsonl"
    expect_status 'texts without Latin letters' 0
    check 'are told with their lines' stderr_has '3 of 3 have a text without Latin letters or digits and score 0: lines 1, 2, 3'
    { printf '{"reference":"'; head -c 3000000 /dev/zero | tr '\0' 'x'; printf ' y","prediction":"y"}\n'; } >"$work/huge.jsonl"
    run --pairs "$work/huge.jsonl" --variant rougeLsum
    check 'a line of 3 MB' stdout_has '1\.000000 +0\.500000'
}

bad_pairs() { # STATUS TEXT LINES: the lines as a file
    printf %b "$3" >"$work/bad.jsonl"
    expect_error "$1" "$2" --pairs "$work/bad.jsonl"
}

test_bad_pairs() {
    local good='{"reference":"a","prediction":"a"}\n'
    expect_error 1 'missing.jsonl' --pairs "$work/missing.jsonl"
    expect_error 1 'directory' --pairs "$work"
    expect_error 1 'no pair' --pairs /dev/null
    expect_error 1 'stdin' --pairs -
    expect_error 1 "$stories:1: " --pairs "$stories"
    bad_pairs 1 'no pair' '\n\r\n \n'
    bad_pairs 1 'bad.jsonl:2: the line is not JSON' "$good"'{"reference":'
    bad_pairs 1 'bad.jsonl:2: expected a JSON object' "$good"'"text"\n'
    bad_pairs 1 'bad.jsonl:1: the line is not UTF-8' '{"reference":"\0377","prediction":"a"}\n'
    bad_pairs 1 'bad.jsonl:1: the line holds a NUL byte' '{"reference":"\0000","prediction":"a"}\n'
    bad_pairs 1 'no field "prediction" (fields: reference)' '{"reference":"a"}\n'
    bad_pairs 1 'no field "reference"' '{"prediction":"a"}\n'
    bad_pairs 1 '"prediction" is a number' '{"reference":"a","prediction":1}\n'
    bad_pairs 1 '"reference" is an empty array' '{"reference":[],"prediction":"a"}\n'
    bad_pairs 1 'null among its texts' '{"reference":["a",null],"prediction":"a"}\n'
    bad_pairs 1 '--skip_bad_lines' '[]\n'
    printf '%s\n' '[' '{"reference":"a","prediction":"a"}' '{"reference":"a"}' >"$work/bad.jsonl"
    run --pairs "$work/bad.jsonl" --skip_bad_lines
    expect_status '--skip_bad_lines' 0
    check 'the good line is scored' stdout_has '^ *1 +1\.000000'
    check 'each bad line is told' [ "$(grep -c '^skipped: .*bad.jsonl:[13]: ' "$work/stderr")" -eq 2 ]
    check 'and counted' stderr_has '2 bad lines skipped'
    echo '[]' >"$work/bad.jsonl"
    run --pairs "$work/bad.jsonl" --skip_bad_lines
    check 'nothing but bad lines' failed_behind_notes 1 'no pair'
    { printf '\xef\xbb\xbf%s\r\n' '{"reference":"a","prediction":"a"}' '{"reference":"a","prediction":"a"}'; printf '\x1a'; } >"$work/dos.jsonl"
    run --pairs "$work/dos.jsonl"
    check 'files with byte order marks, one behind the other, and ^Z' stdout_has '^ *2 +1\.000000'
    iconv -f UTF-8 -t UTF-16 <"$work/dos.jsonl" >"$work/bad.utf16"
    expect_error 1 'is UTF-16' --pairs "$work/bad.utf16" --skip_bad_lines
    expect_error 1 'cannot be written' --pairs "$work/pairs.jsonl" --json "$work/missing/result.json"
    output=/dev/full run --pairs "$work/pairs.jsonl" --json "$work/kept.json"
    check 'stdout to a full disk' failed_cleanly 1 'stdout'
    check 'and the JSON is there all the same' [ -s "$work/kept.json" ]
}

# ---- Texts of a model

# 300 records: a story's beginning that grows, its reference, and some of what else a file may have.
make_data() {
    local i text
    for ((i = 1; i <= 300; i++)); do
        text='Once upon a time, there was a little girl named Lily. '
        printf '{"id":%d,"article":"%s%s","summary":%s}\n' "$i" "$text" \
            "$(printf 'She loved to play outside in the park with ball %d. ' $(seq 1 $((i % 7 + 3))))" \
            "$( ((i % 2)) && echo '"She went to the park and saw a ball."' || echo '["Lily was sad.","Her mom said no."]')"
    done >"$work/data.jsonl"
}

# Each text in $1 is what generate writes, with the flags that follow, to the article on its line of the data.
same_as_generate() {
    python3 - "$work/data.jsonl" "$@" <<'PYTHON'
import json, os, subprocess, sys
data, results, mode, *flags = sys.argv[1:]
articles = [json.loads(line)["article"] for line in open(data, encoding="utf-8")]
records = [json.loads(line) for line in open(results, encoding="utf-8")][1:]
records = [record for record in records if record["mode"] == mode]
for record in records:
    text = subprocess.run([os.environ["STOWKV_BUILD"] + "/generate", "--checkpoint_path",
                           os.environ["STOWKV_DATA"] + "/stories260K.bin", "--temperature", "0", "--max_new_tokens",
                           "30", "--prompt", articles[record["line"] - 1], *flags], capture_output=True).stdout
    if text.decode() != record["text"]:
        sys.exit(f"line {record['line']}: {record['text']!r}, and generate writes {text.decode()!r}")
sys.exit(not records)
PYTHON
}

# The pairs of a mode's texts score as that mode does.
same_as_pairs() {
    python3 - "$1" "$2" >"$work/again.jsonl" <<'PYTHON'
import json, sys
for line in list(open(sys.argv[1], encoding="utf-8"))[1:]:
    record = json.loads(line)
    if record["mode"] == sys.argv[2]:
        print(json.dumps({"reference": record["reference"], "prediction": record["text"]}))
PYTHON
    "$program" --pairs "$work/again.jsonl" --json "$work/again.json" >/dev/null 2>&1
    python3 - "$work/again.json" "$3" "$2" <<'PYTHON'
import json, sys
again, result = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:3])
mode = next(mode for mode in result["modes"] if mode["mode"] == sys.argv[3])
sys.exit(again["per_sample"] != mode["per_sample"])
PYTHON
}

# Counters of a mode's tiers are the sums of its texts', what is held is that of the largest.
same_ledger() {
    python3 - "$1" "$3" "$2" <<'PYTHON'
import json, sys
mode = sys.argv[3]
texts = [json.loads(line) for line in list(open(sys.argv[1], encoding="utf-8"))[1:]]
texts = [text["tiers"] for text in texts if text["mode"] == mode]
tiers = next(m["tiers"] for m in json.load(open(sys.argv[2], encoding="utf-8"))["modes"] if m["mode"] == mode)
for i, tier in enumerate(tiers):
    for name, value in tier.items():
        all = [text[i][name] for text in texts]
        expected = (sum(all) if name in ("bytes_read", "tokens_encoded") else
                    max(all) if name in ("tokens", "bytes_held") else all[0])
        if value != expected:
            sys.exit(f"{tier['name']}: {name} is {value}, expected {expected}")
sys.exit(len(texts) < 2 or any(len(text) != len(tiers) for text in texts))
PYTHON
}

test_compare() {
    tell --samples 5 --compare --sink_size 4 --window_size 32 --json "$work/result.json" --output "$work/texts.jsonl"
    expect_status '--compare' 0
    check 'full, compressed, quantized' eval '[ "$(grep -cE "^(full|compressed|quantized) " "$work/stdout")" -eq 3 ]'
    check 'few samples are told' stderr_has '5 samples tell little'
    check 'the run in JSON' json "$work/result.json" \
        'r["n"] == 5 and r["variant"] == "rougeL" and r["stem"] is False and r["seed"] == 1 and r["resamples"] == 10000
         and r["model"].endswith("stories260K.bin") and r["data"].endswith("data.jsonl")
         and [m["mode"] for m in r["modes"]] == ["full", "compressed", "quantized"]'
    check 'each mode in JSON' json "$work/result.json" \
        'all(len(m["per_sample"]) == 5 and near(m["f"], sum(s[2] for s in m["per_sample"]) / 5) and m["kernels"]
         and m["tokens_per_second"] > 0 and m["n_cut"] == 0 for m in r["modes"])'
    check 'differences from full' json "$work/result.json" \
        '"difference" not in r["modes"][0] and all(near(m["difference"]["f"], m["f"] - r["modes"][0]["f"])
         and m["difference"]["low"] <= m["difference"]["f"] <= m["difference"]["high"] for m in r["modes"][1:])'
    check 'the proof that the cache did something' json "$work/result.json" \
        '[m["n_unaffected"] for m in r["modes"]] == [5, 0, 0] and r["modes"][2]["policy"] == "sink=4,f16:32,int8:*"
         and [t["bytes_read"] > 0 for t in r["modes"][2]["tiers"]] == [True] * 3
         and r["modes"][2]["tiers"][2]["tokens_encoded"] > 0'
    check 'full texts are those of generate' same_as_generate "$work/texts.jsonl" full
    check 'compressed texts too' same_as_generate "$work/texts.jsonl" compressed --compress_kv --sink_size 4 --window_size 32
    check 'quantized texts too' same_as_generate "$work/texts.jsonl" quantized --quantize_kv --sink_size 4 --window_size 32
    check 'their scores are those of the pairs' same_as_pairs "$work/texts.jsonl" quantized "$work/result.json"
    check 'their ledger is what the texts say together' same_ledger "$work/texts.jsonl" quantized "$work/result.json"
    mv "$work/result.json" "$work/first.json"
    tell --samples 5 --compare --sink_size 4 --window_size 32 --json "$work/result.json" --threads 1
    check 'the same scores and intervals again' same_result "$work/first.json" "$work/result.json"
    tell --samples 5 --compare --sink_size 4 --window_size 32 --json - --seed 2
    check 'another seed draws other samples' json "$work/stdout" 'r["seed"] == 2'
}

same_result() {
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
a, b = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:])
for result in (a, b):
    for mode in result["modes"]:
        for name in ("tokens_per_second", "prefill_tokens_per_second"):
            del mode[name]
sys.exit(a != b)
PYTHON
}

test_policies() {
    tell --samples 2 --quantize_kv --kv_codec int4 --json "$work/result.json"
    expect_status 'one policy' 0
    check 'has nothing to differ from' json "$work/result.json" \
        'len(r["modes"]) == 1 and r["modes"][0]["mode"] == "quantized" and "difference" not in r["modes"][0]'
    tell --samples 2 --kv_policy sink=4,f16:32,int8:* --kv_policy sink=4,f16:32,int4/fp8:* --json "$work/result.json"
    check 'several are compared with full' json "$work/result.json" \
        '[m["policy"] for m in r["modes"]] == ["f16:*", "sink=4,f16:32,int8:*", "sink=4,f16:32,int4/fp8:*"]
         and ["difference" in m for m in r["modes"]] == [False, True, True]'
    expect_error 2 'twice' --checkpoint_path "$stories" --data "$work/data.jsonl" --kv_policy f16:64 --kv_policy f16:64
    expect_tell_error 1 'quantizes and drops nothing in any of 2 samples' --samples 2 --quantize_kv --window_size 400
    expect_tell_error 1 'quantizes and drops nothing' --samples 2 --compress_kv --window_size 400 --output "$work/none.jsonl"
    check 'before any text is made' [ ! -e "$work/none.jsonl" ]
    expect_tell_error 1 'quantizes and drops nothing' --samples 2 --kv_policy f16:8,f16:*
    expect_tell_error 1 '512' --samples 2 --quantize_kv --window_size 600
}

test_prompts() {
    tell --samples 3 --n_ctx 60 --json "$work/result.json" --output "$work/cut.jsonl"
    expect_status 'long articles are cut' 0
    check 'to what fits' json "$work/result.json" 'r["modes"][0]["n_cut"] == 3 and r["n_tokens_cut"] > 60
        and 28 * 3 <= r["modes"][0]["n_prompt"] <= 30 * 3'
    check 'and told' stderr_has '3 of 3 articles cut at the end'
    expect_tell_error 1 'no record to use (0 bad lines, 300 prompts too long)' --n_ctx 60 --long_prompts skip
    tell --n_ctx 150 --long_prompts skip --samples 10 --json "$work/result.json"
    check '--long_prompts skip' json "$work/result.json" 'r["n"] == 10 and r["n_too_long"] > 0 and r["modes"][0]["n_cut"] == 0'
    tell --samples 1 --prompt_template '{article} Then' --output "$work/named.jsonl"
    expect_status "the field's name in the template" 0
    expect_tell_error 1 'without its article' --n_ctx 60 --prompt_template "$(printf 'word %.0s' {1..80}){}"
    expect_tell_error 1 '--max_new_tokens 512' --max_new_tokens 512
    expect_error 2 '--prompt_template' --checkpoint_path "$stories" --data "$work/data.jsonl" --prompt_template 'no place'
    expect_error 2 'more than once' --checkpoint_path "$stories" --data "$work/data.jsonl" --prompt_template '{} {article}'
}

test_bad_data() {
    echo '{"article":"a"}' >"$work/bad.jsonl"
    expect_error 1 'bad.jsonl:1: there is no field "summary" (fields: article)' --checkpoint_path "$stories" --data "$work/bad.jsonl"
    expect_error 1 'missing.jsonl' --checkpoint_path "$stories" --data "$work/missing.jsonl"
    expect_error 1 'missing.bin' --checkpoint_path "$work/missing.bin" --data "$work/data.jsonl"
    expect_error 1 'no record to use' --checkpoint_path "$stories" --data /dev/null
    expect_error 1 'directory' --checkpoint_path "$stories" --data "$work"
    cat "$work/bad.jsonl" "$work/data.jsonl" >"$work/mixed.jsonl"
    tell --data "$work/mixed.jsonl" --samples 2 --skip_bad_lines --json "$work/result.json"
    check '--skip_bad_lines with a model' json "$work/result.json" 'r["n"] == 2 and r["n_bad_lines"] == 1'
    expect_tell_error 1 '"summary" is an array, expected a text' --prompt_field summary --reference_field article --samples 2
}

# ---- Going on after an interruption

without_times() { # the lines of a file of texts without what differs from run to run
    python3 - "$1" <<'PYTHON'
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    record = json.loads(line)
    for name in ("prefill_seconds", "decode_seconds"):
        record.pop(name, None)
    print(json.dumps(record, sort_keys=True))
PYTHON
}

same_texts() {
    cmp -s <(without_times "$1" | sort) <(without_times "$2" | sort)
}

# interrupt_texts SIGNAL FILE ARGUMENT…: sends it once the file has 4 lines.
interrupt_texts() {
    local signal=$1 file=$2
    shift 2
    interrupt 'has_lines "$file" 4' "$@" --output "$file"
}

has_lines() { [ -e "$1" ] && [ "$(wc -l <"$1")" -ge "$2" ]; }

test_resume() {
    local flags=(--checkpoint_path "$stories" --data "$work/data.jsonl" --prompt_template '{}' --max_new_tokens 60
        --compare --sink_size 4 --samples 40) n_lines
    run "${flags[@]}" --output "$work/whole.jsonl" --json "$work/whole.json"
    expect_status 'a run that is not interrupted' 0
    interrupt_texts INT "$work/part.jsonl" "${flags[@]}"
    expect_status 'Ctrl-C' 130
    check 'Ctrl-C prints no table' [ ! -s "$work/stdout" ]
    check 'and no error' [ "$(grep -c error "$work/stderr")" -eq 0 ]
    check 'and says how to go on' stderr_has 'the same command goes on from'
    n_lines=$(wc -l <"$work/part.jsonl")
    check "some of the texts are saved ($n_lines lines)" [ "$n_lines" -lt 121 ]
    run "${flags[@]}" --output "$work/part.jsonl" --json "$work/part.json"
    expect_status 'going on' 0
    check 'says what is there' stderr_has "$((n_lines - 1)) of 120 texts"
    check 'the result is that of an uninterrupted run' same_result "$work/whole.json" "$work/part.json"
    check 'and so are the texts' same_texts "$work/whole.jsonl" "$work/part.jsonl"
    interrupt_texts KILL "$work/killed.jsonl" "${flags[@]}"
    interrupt_texts TERM "$work/ended.jsonl" "${flags[@]}"
    check 'SIGTERM ends the program, and leaves whole lines' [ "$status" -eq 143 -a -z "$(tail -c 1 "$work/ended.jsonl")" ]
    truncate -s -7 "$work/killed.jsonl"
    run "${flags[@]}" --output "$work/killed.jsonl" --json "$work/part.json"
    check 'after kill -9 in the middle of a line' same_result "$work/whole.json" "$work/part.json"
    check 'the torn text is made again' same_texts "$work/whole.jsonl" "$work/killed.jsonl"
    cp "$work/whole.jsonl" "$work/copy.jsonl"
    run "${flags[@]}" --output "$work/copy.jsonl" --json "$work/part.json"
    check 'nothing left to do' same_result "$work/whole.json" "$work/part.json"
    check 'leaves the file as it is' cmp -s "$work/whole.jsonl" "$work/copy.jsonl"
    head -c 100 "$work/whole.jsonl" >"$work/torn.jsonl"
    run "${flags[@]}" --output "$work/torn.jsonl" --samples 2
    expect_status 'a torn first line' 0
    check 'more samples, another variant' eval 'run "${flags[@]}" --output "$work/copy.jsonl" --samples 41 --variant rouge2;
        [ $status -eq 0 ] && stderr_has "120 of 123 texts"'
}

test_interrupted_reading() {
    mkfifo "$work/silence"
    interrupt is_blocked --pairs - <>"$work/silence"
    expect_status 'Ctrl-C while pairs are read' 130
    check 'is no error' [ ! -s "$work/stderr" ]
}

# bad_output TEXT ARGUMENT…: an error that leaves $work/copy.jsonl as it is.
bad_output() {
    local text=$1
    shift
    cp "$work/copy.jsonl" "$work/before"
    tell --samples 2 --output "$work/copy.jsonl" "$@"
    check "$text" failed_behind_notes 1 "$text"
    check 'the file stays as it is' cmp -s "$work/before" "$work/copy.jsonl"
}

test_bad_output() {
    tell --samples 2 --output "$work/fresh.jsonl"
    cp "$work/fresh.jsonl" "$work/copy.jsonl"
    bad_output 'max_new_tokens 30, and this run has 31' --max_new_tokens 31
    bad_output 'prompt_template "{}", and this run has "x {}"' --prompt_template 'x {}'
    bad_output 'n_ctx 512, and this run has 400' --n_ctx 400
    head -n 250 "$work/data.jsonl" >"$work/other.jsonl"
    bad_output 'data "data.jsonl", and this run has "other.jsonl"' --data "$work/other.jsonl"
    sed '2s/"prompt_xxh3":"./"prompt_xxh3":"x/' "$work/fresh.jsonl" >"$work/copy.jsonl"
    bad_output 'made from another prompt'
    sed '2s/"n_prompt":[0-9]*/"n_prompt":"many"/' "$work/fresh.jsonl" >"$work/copy.jsonl"
    bad_output 'copy.jsonl:2: the record'"'"'s "n_prompt" is missing or of another kind'
    sed '2s/"tokens_encoded":[0-9]*/"tokens_encoded":-1/' "$work/fresh.jsonl" >"$work/copy.jsonl"
    bad_output 'copy.jsonl:2: the record'"'"'s "tiers" is missing or of another kind, or out of range'
    sed '2s/"codec_v":"f16"/"codec_v":"int8"/' "$work/fresh.jsonl" >"$work/copy.jsonl"
    bad_output 'copy.jsonl: the tiers of its text for line 1 are not those of f16:*'
    sed '3s/{/[/' "$work/fresh.jsonl" >"$work/copy.jsonl"
    bad_output 'copy.jsonl:3: the line is not JSON'
    cp "$work/data.jsonl" "$work/copy.jsonl"
    bad_output 'was not written by this program'
    printf 'precious, and no newline' >"$work/copy.jsonl"
    bad_output 'was not written by this program'
    cp "$stories" "$work/copy.jsonl"
    chmod u+w "$work/copy.jsonl"
    bad_output 'was not written by this program'
    expect_tell_error 1 'cannot be written' --samples 1 --output "$work/missing/texts.jsonl"
    expect_tell_error 1 'cannot be written' --samples 1 --output "$work"
    expect_tell_error 1 'no regular file' --samples 1 --output /dev/null
    cp "$work/fresh.jsonl" "$work/copy.jsonl"
    exec 7<"$work/copy.jsonl"
    flock 7
    bad_output 'another program is writing it'
    exec 7<&-
}

# ---- The command line

test_usage_errors() {
    local model=(--checkpoint_path "$stories" --data "$work/data.jsonl") flag
    expect_error 2 '--pairs'
    expect_error 2 '--checkpoint_path' --data "$work/data.jsonl"
    expect_error 2 '--data' --checkpoint_path "$stories"
    expect_error 2 'did you mean rougeL' --pairs a --variant rougel
    expect_error 2 'rougeLsum' "${model[@]}" --variant rouge3
    expect_error 2 'cut or skip' "${model[@]}" --long_prompts drop
    expect_error 2 '--seed' "${model[@]}" --seed 4
    expect_error 2 '--compare' "${model[@]}" --compare --quantize_kv
    expect_error 2 '--kv_codec' "${model[@]}" --kv_codec int8
    expect_error 2 'character' "${model[@]}" --kv_policy 'f16:32,itn8:*'
    expect_error 2 'chatml' "${model[@]}" --chat_template other
    expect_error 2 '--output' "${model[@]}" --output -
    expect_error 2 '--json' "${model[@]}" --json "$work/data.jsonl"
    expect_error 2 '--json' --pairs a --json a
    ln -s data.jsonl "$work/link"
    expect_error 2 'the file of --data' "${model[@]}" --output "$work/link"
    expect_error 2 'is the file of --output too' "${model[@]}" --output "$work/new" --json "$work/./new"
    expect_error 2 'the file of --checkpoint_path' "${model[@]}" --output "$stories"
    expect_error 2 'expected' "${model[@]}" --samples=-1
    expect_error 2 'expected' "${model[@]}" --max_new_tokens 0
    expect_error 2 'did you mean --pairs' --pair_file a
    expect_error 2 'stray' --pairs a stray
    for flag in --checkpoint_path=a --tokenizer_path=a --device=cpu --simd=auto --n_ctx=9 --threads=1 --compress_kv \
        --quantize_kv --kv_policy=f16:1 --sink_size=1 --window_size=1 --kv_codec=int8 --kv_block_size=32 --kv_rotate=auto \
        --data=a --prompt_field=a --reference_field=a --prompt_template={} --chat_template=none --long_prompts=cut \
        --samples=1 --max_new_tokens=1 --compare --seed=1 --output=a; do
        expect_error 2 "${flag%%=*}" --pairs "$work/pairs.jsonl" "$flag"
    done
}

# ---- A checkpoint with a chat template

test_chat() {
    if [ ! -r "${STOWKV_SMOLLM2:-}" ]; then
        skip_loudly 'the chat template; STOWKV_SMOLLM2 names no checkpoint'
        return
    fi
    echo '{"article":"Lily has a red ball.","summary":"A ball."}' >"$work/short.jsonl"
    local flags=(--checkpoint_path "$STOWKV_SMOLLM2" --data "$work/short.jsonl" --prompt_template 'What has Lily? {}'
        --max_new_tokens 6 --n_ctx 128) text
    run "${flags[@]}" --json "$work/result.json" --output "$work/chat.jsonl"
    check "the checkpoint's chat template" json "$work/result.json" 'r["chat_template"] == "checkpoint"'
    text=$("$generate" --checkpoint_path "$STOWKV_SMOLLM2" --chat --prompt 'What has Lily? Lily has a red ball.' \
        --temperature 0 --max_new_tokens 6 --n_ctx 128 2>/dev/null)
    check 'its text is that of generate --chat' grep -qF "\"text\":\"$text\"" "$work/chat.jsonl"
    run "${flags[@]}" --chat_template none --json -
    check '--chat_template none' json "$work/stdout" 'r["chat_template"] == "none"'
    run "${flags[@]}" --chat_template none --output "$work/chat.jsonl"
    check 'texts of another chat template' failed_behind_notes 1 'chat_template "checkpoint", and this run has "none"'
}

if ! command -v python3 >/dev/null; then
    skip_loudly 'test_rouge; there is no python3'
    exit 77
fi
make_data
test_pairs
test_bad_pairs
test_compare
test_policies
test_prompts
test_bad_data
test_resume
test_interrupted_reading
test_bad_output
test_usage_errors
test_help
test_chat
finish
