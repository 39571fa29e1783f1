#!/usr/bin/env bash
# The program as a user runs it: its text, its exit statuses, and what goes to stdout, stderr and the JSON file. It runs
# $STOWKV_BUILD/generate on stories260K of $STOWKV_DATA and, where $STOWKV_SMOLLM2 names it, on SmolLM2. Arguments name
# the tests to run; none: all.
# shellcheck source=tests/program_test.sh
. "$(dirname "$0")/program_test.sh" generate

# The greedy continuation of "Once upon a time" that llama2.c publishes in its test_all.py: 200 positions.
golden=', there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily'\''s mom said, "Lily, let'\''s go to the park." Lily was sad and didn'\''t know what to do. She said, "I want to play with your ball, but I can'\''t find it."
Lily was sad and didn'\''t know what to do. She said, "I'\''m sorry, Lily. I didn'\''t know what to do."
Lily didn'\''t want to help her mom, so she'
golden_tokens=196

# tell STORY_ARGUMENT…: greedily, on stories260K; a later --temperature overrides that.
tell() {
    run --checkpoint_path "$stories" --temperature 0 "$@"
}

usual() { tell "$@"; }

once='Once upon a time'

stdout_begins_golden() { [ -s "$work/stdout" ] && [ "${golden#"$(cat "$work/stdout")"}" != "$golden" ]; }

prompt_ids() { # ARGUMENT…: as the JSON has them
    "$program" --checkpoint_path "$stories" --max_new_tokens 0 --json - "$@" 2>"$work/stderr" | grep '"prompt_tokens"'
}

# ---- The text

test_golden_story() {
    local level n_threads
    run --simd none --list_kernels
    check '--simd none names the levels' failed_cleanly 2 'auto, scalar'
    for level in $(sed 's/.*auto, //; s/,//g' "$work/stderr"); do
        for n_threads in 1 2 7; do
            tell --prompt "$once" --max_new_tokens $golden_tokens --simd "$level" --threads $n_threads
            expect_stdout "llama2.c's story, $level, $n_threads threads" "$golden"
        done
    done
}

# As folders of other programs, which have the tokenizer beside them: one file, shards, a configuration's name.
test_golden_story_of_folders() {
    local folder
    [ -d "$STOWKV_FIXTURES/stories" ] || { skip_loudly 'folders of other programs; there are no fixtures'; return; }
    for folder in "$STOWKV_FIXTURES"/stories/*/; do
        run --checkpoint_path "$folder" --prompt "$once" --temperature 0 --max_new_tokens $golden_tokens
        expect_stdout "llama2.c's story, ${folder#"$STOWKV_FIXTURES"/}" "$golden"
    done
    run --checkpoint_path "$STOWKV_FIXTURES/stories/stories_hf" --plan_memory
    check 'their memory is planned' grep -q '^weights  *1040128$' "$work/stdout"
}

# The story's tokenizer as a tokenizer.json, with what lies beside it; and a folder whose own tokenizer is refused.
test_tokenizer_json() {
    local json=$STOWKV_FIXTURES/tokenizer/files/llama2.json tokens=$work/tokens folder=$work/refused
    [ -r "$json" ] || { skip_loudly 'tokenizer.json; there are no fixtures'; return; }
    mkdir "$tokens" "$folder"
    cp "$json" "$tokens/tokenizer.json"
    tell --prompt "$once" --max_new_tokens $golden_tokens --tokenizer_path "$tokens/tokenizer.json"
    expect_stdout "llama2.c's story, tokenizer.json" "$golden"
    echo '{"chat_template": "{{ bos_token ~ messages[0].content }}"}' >"$tokens/tokenizer_config.json"
    tell --chat --prompt "$once" --max_new_tokens $golden_tokens --tokenizer_path "$tokens/tokenizer.json"
    expect_stdout 'and by the chat template beside it' "$golden"
    expect_error 2 'brings along' --prompt a --tokenizer_path "$tokens/tokenizer.json" --json "$tokens/tokenizer_config.json"
    cp "$STOWKV_FIXTURES"/stories/stories_hf/*.safetensors "$STOWKV_FIXTURES"/stories/stories_hf/config.json "$folder"
    cp "$json" "$folder/tokenizer.json"
    run --checkpoint_path "$folder" --prompt "$once" --temperature 0 --max_new_tokens $golden_tokens
    expect_stdout "llama2.c's story, a folder with tokenizer.json" "$golden"
    echo '{"model": {"type": "Unigram"}}' >"$folder/tokenizer.json"
    run --checkpoint_path "$folder" --prompt "$once"
    check 'a folder whose tokenizer is refused' failed_cleanly 1 'Unigram'
    run --checkpoint_path "$folder" --prompt "$once" --temperature 0 --max_new_tokens $golden_tokens \
        --tokenizer_path "$STOWKV_DATA/tok512.model"
    expect_stdout 'reads with another' "$golden"
}

test_inspect() {
    run --inspect "$stories"
    check '--inspect of a .bin' grep -q '^attention     8 query heads, 4 KV heads of 8$' "$work/stdout"
    check 'with the tokenizer beside it' grep -q '^tokenizer     SentencePiece, 512 tokens, BOS first, 2 of them end' "$work/stdout"
    check 'and its weights' grep -q '^weights       1040128 bytes in 47 tensors: 47 F32$' "$work/stdout"
    run --inspect "$stories" --tokenizer_path "$work/missing.model"
    check 'what is known is told where something is wrong' grep -q '^context       512 tokens$' "$work/stdout"
    check 'and the error' failed_late 1 'missing.model'
    expect_error 2 'leave --checkpoint_path out' --inspect "$stories"
    run --inspect "$stories" --json "$work/inspected.json"
    check '--json leaves the text' grep -q '^context       512 tokens$' "$work/stdout"
    check 'and has the same' inspected_json 'null' "$work/inspected.json"
    run --inspect "$stories" --json -
    check 'alone on stdout' inspected_json 'null' "$work/stdout"
    run --inspect "$stories" --tokenizer_path "$work/missing.model" --json "$work/inspected.json"
    check 'also what is wrong' inspected_json 'missing.model' "$work/inspected.json"
    check 'which stays an error' failed_late 1 'missing.model'
    run --inspect "$work/missing.gguf" --json "$work/none.json"
    check 'no JSON of what cannot be opened' [ ! -e "$work/none.json" ]
}

inspected_json() { # ERROR FILE: null, or what the error mentions
    command -v python3 >/dev/null || { skip_loudly 'the JSON of --inspect; there is no python3'; return; }
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
said = json.load(open(sys.argv[2]))
shape = {"family": "llama", "n_layers": 5, "n_embd": 64, "n_ffn": 172, "n_heads": 8, "n_kv_heads": 4, "head_dim": 8, "n_vocab": 512,
         "n_ctx_train": 512, "rope_theta": 10000, "rope_pairs": "interleaved", "lookback": 0, "local_layers": 0}
tokenizer = {"kind": "SentencePiece", "n_tokens": 512, "adds_bos": True, "n_ends": 2, "chat_template": False}
wrong = sys.argv[1] != "null"
assert shape.items() <= said.items(), said
assert (said["weights_bytes"], said["n_tensors"], said["types"]) == (1040128, 47, {"F32": 47}), said
assert said["tokenizer"] == (None if wrong else tokenizer), said
assert sys.argv[1] in said["error"] if wrong else said["error"] is None, said
PYTHON
}

test_seeds() {
    local first second
    tell --prompt "$once" --temperature 1 --seed 1 --max_new_tokens 60
    first=$(cat "$work/stdout")
    tell --prompt "$once" --temperature 1 --seed 1 --max_new_tokens 60
    expect_stdout 'the same seed, the same text' "$first"
    tell --prompt "$once" --temperature 1 --seed 1 --max_new_tokens 60 --threads 1 --simd scalar
    second=$(cat "$work/stdout")
    check 'the same seed, the same text on another instruction set' [ "$first" = "$second" ]
    tell --prompt "$once" --temperature 1 --seed 2 --max_new_tokens 60
    check 'another seed, another text' [ "$first" != "$(cat "$work/stdout")" ]
    tell --prompt "$once" --temperature 1 --max_new_tokens 1
    check 'a drawn seed is told' stderr_has 'seed: '
    first=$(sed -n 's/^seed: //p' "$work/stderr")
    tell --prompt "$once" --temperature 1 --max_new_tokens 1
    check 'and is another the next time' [ "$first" != "$(sed -n 's/^seed: //p' "$work/stderr")" ]
    tell --prompt "$once" --temperature 1 --max_new_tokens 60
    first=$(cat "$work/stdout")
    tell --prompt "$once" --temperature 1 --max_new_tokens 60 --seed "$(sed -n 's/^seed: //p' "$work/stderr")"
    expect_stdout 'the told seed repeats the text' "$first"
    tell --prompt "$once" --temperature 1 --max_new_tokens 5 --compare
    check '--compare tells it too' stderr_has 'seed: '
    tell --prompt "$once" --temperature 1 --seed 18446744073709551615 --max_new_tokens 1
    check 'the largest seed is one like another' stderr_has 'seed: 18446744073709551615'
}

test_penalties() {
    local plain
    tell --prompt "$once" --max_new_tokens $golden_tokens --repetition_penalty 1 --frequency_penalty 0 --presence_penalty 0
    expect_stdout 'penalties of nothing' "$golden"
    tell --prompt "$once" --max_new_tokens $golden_tokens --repetition_penalty 1.3 --penalty_window 0
    expect_stdout 'penalties on no token' "$golden"
    for plain in '--repetition_penalty=1.3' '--frequency_penalty=0.5' '--presence_penalty=1'; do
        tell --prompt "$once" --max_new_tokens $golden_tokens "$plain"
        check "$plain: what is said again is something else" eval 'status_is 0 && [ "$(cat "$work/stdout")" != "$golden" ]'
    done
    tell --prompt "$once" --max_new_tokens $golden_tokens --presence_penalty 1000 --penalty_window=-1 --compare
    check 'out of range' failed_cleanly 2 'expected a number from -100 to 100'
    tell --prompt "$once" --max_new_tokens 30 --presence_penalty 100 --penalty_window=-1 --ignore_eos --json "$work/result.json"
    expect_status '--penalty_window -1' 0
    if command -v python3 >/dev/null; then
        check 'no token twice' python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
said = r["prompt_tokens"] + r["tokens"]
assert len(set(said)) == len(said) == 35 and r["presence_penalty"] == 100 and r["penalty_window"] == -1, r' "$work/result.json"
    fi
}

test_stops() {
    tell --prompt "$once" --stop 'red ball'
    expect_stdout '--stop across tokens' "${golden%%red ball*}"
    tell --prompt "$once" --stop 'l named Lil'
    expect_stdout '--stop inside tokens' "${golden%%l named Lil*}"
    tell --prompt "$once" --stop 'high' --stop 'park' --stop 'mom'
    expect_stdout 'of several --stop, the first in the text' "${golden%%park*}"
    tell --prompt "$once" --stop=', there'
    expect_stdout '--stop at once' ''
    tell --prompt "$once" --stop 'so sheep' --max_new_tokens $golden_tokens
    expect_stdout 'a --stop that only begins to match is text' "$golden"
}

test_prompts() {
    printf %s "$once" >"$work/prompt"
    tell --prompt_file "$work/prompt" --max_new_tokens $golden_tokens
    expect_stdout '--prompt_file FILE' "$golden"
    tell --prompt_file - --max_new_tokens $golden_tokens <"$work/prompt"
    expect_stdout '--prompt_file -' "$golden"
    tell --prompt="$once" --max_new_tokens=0
    expect_stdout '--max_new_tokens 0' ''
    check 'the prompt was read' stderr_has 'prompt: 5 tokens'
    tell --prompt $'\xff\xfe caf\xc3' --max_new_tokens 5
    expect_status 'a prompt that is not UTF-8' 0
    check 'is told' stderr_has 'note: --prompt: byte 0 is not UTF-8'
    tell --prompt '' --max_new_tokens 200
    expect_stdout "an empty prompt starts from BOS, as llama2.c's story does" "$once$golden"
    tell --prompt_file /dev/null --max_new_tokens 200
    expect_stdout 'an empty file too' "$once$golden"
    expect_error 1 "$work/missing" --prompt_file "$work/missing"
    expect_error 1 'directory' --prompt_file "$work"
    expect_error 2 '--prompt' --max_new_tokens 5
    expect_error 2 '--prompt_file' --prompt a --prompt_file "$work/prompt"
}

# What editors put around a text is no token, in any way in; what is text stays.
test_editors() {
    local plain
    printf 'a\nb\n' >"$work/plain"
    printf '\xef\xbb\xbfa\r\nb\r\n\x1a' >"$work/dos"
    plain=$(prompt_ids --prompt_file "$work/plain")
    check 'a final newline is kept' eval '[[ $plain == *", 13]," ]]' # <0x0A>
    check 'byte order mark, CRLF and ^Z in a file' [ "$(prompt_ids --prompt_file "$work/dos")" = "$plain" ]
    check 'on stdin' [ "$(prompt_ids --prompt_file - <"$work/dos")" = "$plain" ]
    check 'in a pipe' [ "$(prompt_ids --prompt_file <(cat "$work/dos"))" = "$plain" ]
    check 'in an argument' [ "$(prompt_ids --prompt "$(head -c -1 "$work/dos")")" = "$(prompt_ids --prompt $'a\nb')" ]
    check 'a lone carriage return stays' [ "$(prompt_ids --prompt $'a\rb')" != "$(prompt_ids --prompt 'ab')" ]
    iconv -f UTF-8 -t UTF-16 <"$work/plain" >"$work/utf16"
    expect_error 1 "utf16: is UTF-16 by its first bytes; save it as UTF-8" --prompt_file "$work/utf16"
}

test_context() {
    tell --prompt "$once" --n_ctx 64 --max_new_tokens 500 --ignore_eos
    expect_status 'the context fills up' 0
    check 'text as far as the context goes' stdout_begins_golden
    check 'a full context is told' stderr_has 'context is full'
    expect_error 1 '8' --prompt 'Once upon a time there was a very long prompt about Lily and Tom.' --n_ctx 8
    expect_error 1 '512' --prompt "$once" --n_ctx 513
}

# ---- The cache

tier_of_json() { # TIER KEY: a number of $work/result.json
    python3 -c 'import json, sys; print(next(t for t in json.load(open(sys.argv[1]))["tiers"] if t["name"] == sys.argv[2])[sys.argv[3]])' \
        "$work/result.json" "$1" "$2"
}

test_modes() {
    tell --prompt "$once" --quantize_kv --window_size 512 --max_new_tokens $golden_tokens
    expect_stdout 'a window of the whole context changes nothing' "$golden"
    tell --prompt "$once" --quantize_kv --sink_size 16 --window_size 32 --max_new_tokens 300 --ignore_eos --json "$work/result.json"
    expect_status '--quantize_kv' 0
    check 'the policy is told' stderr_has 'sink=16,f16:32,int8:*'
    if command -v python3 >/dev/null; then
        check 'tokens were encoded' [ "$(tier_of_json int8 tokens_encoded)" -eq 256 ]
        check 'encoded tokens were read' [ "$(tier_of_json int8 bytes_read)" -gt 0 ]
    fi
    tell --prompt "$once" --kv_policy 'sink=4,f16:32,int8:64,int4/fp8:*' --kv_block_size 32 --max_new_tokens 300 --ignore_eos
    expect_status '--kv_policy' 0
    tell --prompt "$once" --compare --max_new_tokens 20
    expect_status '--compare' 0
    check 'the comparison is a table' grep -q '^quantized  *sink=16,f16:32,int8:\*' "$work/stdout"
    check 'with the texts above it' grep -q '^--- compressed ---' "$work/stdout"
}

# Far past the trained context of 512, in constant memory; and the text stays text.
test_streaming() {
    local words
    tell --prompt "$once" --compress_kv --sink_size 4 --window_size 256 --max_new_tokens 20000 --ignore_eos --json "$work/result.json"
    expect_status '20,000 tokens in compressed mode' 0
    check 'all of them' stderr_has 'at depth 5 to 20004'
    words=$(tail -c 4000 "$work/stdout" | grep -oE "\\b(the|and|was|to|She|He|Lily|Tom|Tim|mom|play|happy)\\b" | wc -l)
    check "the last 4,000 bytes still tell a story ($words known words)" [ "$words" -ge 150 ]
    tell --prompt "$once" --kv_policy 'sink=4,f16:32,int8:192' --max_new_tokens 2000 --ignore_eos
    expect_status 'a bounded quantized tier streams' 0
    check 'past the context' stderr_has 'to 2004'
    tell --prompt "$once" --quantize_kv --max_new_tokens 2000 --ignore_eos
    expect_status 'an unbounded policy ends at the context' 0
    check 'and says so' stderr_has 'context is full'
}

test_memory_plan() {
    run --plan_memory --shape layers=80,kv_heads=8,head_dim=128,n_ctx=131072
    expect_status '--plan_memory --shape' 0
    check 'full: 2 * 2 bytes for each of 80 * 8 * 128 * 131072' grep -q 42949672960 "$work/stdout"
    run --plan_memory --checkpoint_path "$stories" --quantize_kv --json -
    check '--plan_memory --json has the kv_bytes' grep -q '"kv_bytes_full":' "$work/stdout"
    run --plan_memory --shape layers=80,kv_head=8
    check 'a wrong shape' failed_cleanly 2 'character 11'
    run --plan_memory --shape layers=2,kv_heads=2,head_dim=80,n_ctx=1024 --quantize_kv --kv_codec nf4
    check 'a head_dim that nf4 pads' grep -q '^note: rows of 80 are padded to 128' "$work/stdout"
    run --plan_memory --shape layers=2,kv_heads=2,head_dim=96,n_ctx=1024 --quantize_kv --kv_codec q4_0 --kv_rotate on
    check 'a head_dim that cannot be rotated' failed_cleanly 1 'leaves it unrotated'
    run --plan_memory --shape layers=2,kv_heads=2,head_dim=96,n_ctx=1024 --quantize_kv --kv_codec q4_0
    check 'auto says that it is not' grep -q '^note: rows of 96 ' "$work/stdout"
    run --plan_memory --shape layers=2,kv_heads=2,head_dim=64,n_ctx=1024 --quantize_kv --kv_codec k=int8,v=q4_0
    check 'auto rotates, and rounds keys with queries' grep -q '^int8/q4_0 .*  rotated  K rounded aware$' "$work/stdout"
}

test_cache_errors() {
    expect_error 2 'expected' --prompt a --quantize_kv --sink_size=-1
    expect_error 1 '512' --prompt a --quantize_kv --window_size 513
    expect_error 1 '512' --prompt a --compress_kv --sink_size 513
    expect_error 2 'did you mean int8' --prompt a --quantize_kv --kv_codec int9
    expect_error 2 'character 8' --prompt a --kv_policy 'f16:32,itn8:*'
    expect_error 1 'layer 5' --prompt a --kv_policy '@5:f16:*;@*:f16:*'
    run --checkpoint_path "$stories" --prompt a --max_new_tokens 1 --quantize_kv --kv_codec nf4
    check 'rows that nf4 pads are told' stderr_has 'rows of 8 are padded to 64'
    expect_error 2 'exclude' --prompt a --quantize_kv --compress_kv
    expect_error 2 '--sink_size' --prompt a --sink_size 4
    expect_error 2 '--kv_codec' --prompt a --compress_kv --kv_codec int8
    expect_error 2 '32 or 64' --prompt a --quantize_kv --kv_block_size 48
    expect_error 2 'auto' --prompt a --quantize_kv --kv_rotate maybe
    expect_error 2 '--compare' --prompt a --compare --quantize_kv
    expect_error 2 'add --compare' --prompt a --kv_policy 'f16:*' --kv_policy 'f16:32'
    expect_error 2 '--plan_memory' --prompt a --shape layers=1
}

# ---- Output

json_is_complete() {
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
result = json.load(open(sys.argv[1], encoding="utf-8"))
keys = """model device threads simd mode policy n_prompt prompt_tokens n_generated text tokens prefill_tokens_per_second
decode_tokens_per_second kv_bytes kv_bytes_full moments_bytes weights_bytes activations_bytes tiers kernels seed temperature top_k top_p min_p
repetition_penalty frequency_penalty presence_penalty penalty_window""".split()
tier_keys = "codec_k codec_v tokens bytes_held bytes_read tokens_encoded".split()
missing = [key for key in keys if key not in result] + [key for key in tier_keys if key not in result["tiers"][0]]
assert not missing, missing
assert result["text"] == open(sys.argv[2], encoding="utf-8", newline="").read(), "text is not what stdout has"
assert result["n_prompt"] == len(result["prompt_tokens"]) > 0
assert result["n_generated"] == len(result["tokens"]) > 0
assert result["kernels"] and result["decode_tokens_per_second"] > 0
PYTHON
}

test_json() {
    if command -v python3 >/dev/null; then
        tell --prompt "$once" --max_new_tokens 50 --json "$work/result.json"
        check '--json FILE is complete, its text is what stdout has' json_is_complete "$work/result.json" "$work/stdout"
        tell --prompt "$once" --max_new_tokens 50
        cp "$work/stdout" "$work/text"
        tell --prompt "$once" --max_new_tokens 50 --json -
        check '--json - is nothing but JSON' json_is_complete "$work/stdout" "$work/text"
    else
        skip_loudly 'the JSON result; there is no python3'
    fi
    expect_error 1 'cannot be written' --prompt "$once" --json "$work/missing/result.json"
    expect_error 1 'cannot be written' --prompt "$once" --json "$work"
    mkdir "$work/empty"
    expect_error 1 'context' --prompt "$once" --n_ctx 2 --json "$work/empty/result.json"
    check 'a failed run leaves no JSON' rmdir "$work/empty"
    tell --prompt "$once" --max_new_tokens 5 --json /dev/full
    check '--json to a full disk' failed_late 1 '/dev/full: cannot be written'
}

test_full_disk() {
    output=/dev/full run --checkpoint_path "$stories" --prompt "$once" --temperature 0
    check 'stdout to a full disk' failed_cleanly 1 'stdout'
    output=/dev/full run --help
    check '--help to a full disk' failed_cleanly 1 'stdout'
}

# A result never takes the place of what the run reads, of another result, or of a stream, by whatever name.
test_overwriting() {
    local name
    cp "$stories" "$work/model.bin"
    cp "$STOWKV_DATA/tok512.model" "$work/tokenizer.model"
    ln -s model.bin "$work/symbolic"
    ln "$work/model.bin" "$work/hard"
    ln -s . "$work/same"
    printf 'Once' >"$work/prompt"
    for name in model.bin same/model.bin symbolic hard; do
        run --checkpoint_path "$work/model.bin" --prompt a --json "$work/$name"
        check "--json of the checkpoint, as $name" failed_cleanly 2 'would overwrite the file of --checkpoint_path'
    done
    mkdir "$work/folder"
    cp "$STOWKV_FIXTURES"/stories/stories_sharded/* "$work/folder"
    for name in config.json model-00002-of-00002.safetensors tokenizer.model; do
        run --checkpoint_path "$work/folder" --prompt a --json "$work/folder/$name"
        check "$name of the checkpoint's folder" failed_cleanly 2 'brings along'
    done
    run --checkpoint_path "$work/model.bin" --prompt a --json "$work/same/tokenizer.model"
    check 'of the tokenizer beside it' failed_cleanly 2 'a file that the checkpoint brings along'
    : >"$work/split-00001-of-00002.gguf"
    : >"$work/split-00002-of-00002.gguf"
    run --checkpoint_path "$work/split-00001-of-00002.gguf" --prompt a --json "$work/split-00002-of-00002.gguf"
    check 'of its second part' failed_cleanly 2 'a file that the checkpoint brings along'
    expect_error 2 'the file of --prompt_file' --prompt_file "$work/prompt" --json "$work/same/prompt"
    tell --prompt_file - --json "$work/prompt" <"$work/prompt"
    check 'of what stdin reads' failed_cleanly 2 'would overwrite what stdin reads'
    cp "$work/prompt" "$work/stdout.json"
    output=$work/stdout.json tell --prompt a --json "$work/stdout.json"
    check 'of what stdout writes' failed_cleanly 2 'is what stdout writes to'
    output=$work/both tell --prompt "$once" --max_new_tokens 5 --json /dev/stdout
    sed -n '1s/{$//p' "$work/both" >"$work/stdout"
    check 'but /dev/stdout is behind the text' eval '[ $status -eq 0 ] && stdout_begins_golden && tail -n 1 "$work/both" | grep -qx "}"'
    cp "$work/prompt" "$work/lost"
    output=$work/lost tell --prompt_file "$work/lost"
    check 'stdout over the prompt' failed_cleanly 2 'stdout overwrites it'
    printf %s "$once" >"$work/lost"
    "$program" --checkpoint_path "$stories" --temperature 0 --prompt_file "$work/lost" --max_new_tokens 5 >>"$work/lost" 2>"$work/stderr"
    cp "$work/lost" "$work/stdout"
    check 'but behind it' eval '[[ "$once$golden" == "$(cat "$work/lost")"* ]] && [ "$(wc -c <"$work/lost")" -gt 20 ]'
    check 'and nothing has changed' cmp -s "$stories" "$work/model.bin"
    "$program" --checkpoint_path "$stories" --prompt a --json "$work/none" 2>"$work/stderr" >&-
    status=$?
    check 'stdout that is closed is no place for text' failed_late 1 'stdout'
    check 'and no file takes its place' [ ! -e "$work/none" ]
}

# ---- Ctrl-C

test_interrupts() {
    mkfifo "$work/silence"
    make_long_stories
    interrupt '[ -s "$work/stdout" ]' --checkpoint_path "$work/long.bin" --prompt "$once" --temperature 0 --ignore_eos \
        --max_new_tokens 59000 --json "$work/interrupted.json"
    expect_status 'Ctrl-C' 130
    check 'the text so far is printed' [ -s "$work/stdout" ]
    check 'an interruption is no error' [ "$(grep -c error "$work/stderr")" -eq 0 ]
    check 'an interruption is told' stderr_has 'interrupted'
    if command -v python3 >/dev/null; then
        check 'the JSON of the text so far' json_is_complete "$work/interrupted.json" "$work/stdout"
    fi
    interrupt is_blocked --checkpoint_path "$stories" --threads 1 --prompt_file - <>"$work/silence"
    expect_status 'Ctrl-C while the prompt is read' 130
    check 'that is no error either' [ "$(grep -c error "$work/stderr")" -eq 0 ]
}

test_signals() {
    local flags=(--checkpoint_path "$work/long.bin" --prompt "$once" --temperature 0 --ignore_eos --json "$work/ends/a.json")
    ended_by_signals '[ -s "$work/stdout" ]' "${flags[@]}" --max_new_tokens 59000
    mkfifo "$work/reader"
    env --default-signal "$program" "${flags[@]}" --max_new_tokens 59000 >"$work/reader" 2>"$work/stderr" &
    pid=$!
    head -c 1 "$work/reader" >"$work/stdout"
    interrupt_end
    check 'a reader that goes ends the program' status_is 141
    check 'and leaves nothing' left_nothing
    (trap '' PIPE; "$program" "${flags[@]}" --max_new_tokens 59000 2>"$work/stderr"; echo $? >"$work/status") |
        head -c 1 >/dev/null
    status=$(cat "$work/status")
    check 'where SIGPIPE is ignored, with an error' failed_late 1 'stdout: Broken pipe'
    check 'that leaves nothing' left_nothing
}

# A pipe whose reader is busy: the program waits in a write when the signal comes, and then goes on writing.
test_interrupted_write() {
    mkfifo "$work/full"
    exec 5<>"$work/full"
    head -c 65536 /dev/zero >&5
    output=$work/full interrupt_begin is_blocked --checkpoint_path "$work/long.bin" --threads 1 --prompt "$once" \
        --temperature 0 --ignore_eos --json "$work/waiting.json"
    exec 6<"$work/full" 5>&-
    tail -c +65537 <&6 >"$work/stdout"
    exec 6<&-
    interrupt_end
    expect_status 'Ctrl-C while the reader of the text is busy' 130
    check 'the text reaches the reader' stdout_begins_golden
    if command -v python3 >/dev/null; then
        check 'all of it' json_is_complete "$work/waiting.json" "$work/stdout"
    fi
}

# ---- The command line

test_usage_errors() {
    local value
    expect_error 2 '--temperature' --prompt a --temprature 0
    expect_error 2 '--max_new_tokens' --prompt a --max_tokens 5
    expect_error 2 'stray' --prompt a stray
    expect_error 2 'needs a value' --prompt
    for value in '--temperature=-1' '--temperature=nan' '--top_p=2' '--min_p=-0.1' '--n_ctx=0' '--n_ctx=abc' \
        '--n_ctx=4x' '--n_ctx=-4' '--n_ctx=' '--threads=0' '--max_new_tokens=99999999999999999999' '--top_k=1.5' \
        '--seed=-1' '--seed=18446744073709551616' '--repetition_penalty=0' '--repetition_penalty=nan' '--repetition_penalty=-1' \
        '--frequency_penalty=x' '--presence_penalty=101' '--penalty_window=-2' '--penalty_window=1.5'; do
        expect_error 2 'expected' --prompt a "$value"
    done
    expect_error 2 'takes no value' --prompt a --ignore_eos=1
    expect_error 2 'scalar' --prompt a --simd sclar
    expect_error 2 'cpu' --prompt a --device gpu
    expect_error 2 '--chat' --prompt a --system b
    expect_error 2 'chatml' --prompt a --chat --chat_template other
    expect_error 2 '--stop' --prompt a --stop ''
    expect_error 2 '--stop: is not UTF-8' --prompt a --stop $'caf\xe9'
    expect_error 2 'stdin' --interactive --prompt_file -
    expect_error 2 'stdin' --interactive --chat_template -
    expect_error 2 'both want stdin' --prompt_file - --chat --chat_template -
    expect_error 1 '--chat_template' --prompt a --chat
    expect_error 1 '--device cpu' --prompt a --device cuda
    run --prompt a
    check 'no checkpoint' failed_cleanly 2 '--checkpoint_path'
    run --prompt a --checkpoint_path "$work/missing.gguf"
    check 'a missing checkpoint' failed_cleanly 1 'missing.gguf'
    run --prompt a --checkpoint_path "$stories" --tokenizer_path "$stories"
    check 'a checkpoint as a tokenizer' failed_cleanly 1 'stories260K.bin'
}

# Flags in the README and in docs/ are those of some program of this build; lines about other programs do not count.
test_readme() {
    local flag program
    for program in generate perplexity rouge recall bench kv_quant_bench prefix_bench; do
        [ -x "$STOWKV_BUILD/$program" ] && "$STOWKV_BUILD/$program" --help
    done >"$work/helps"
    for flag in $(grep -hEv 'cmake|ctest|\.sh|\.py|apt|git |pip|curl|docker|perf ' "$readme" "${readme%/*}"/docs/*.md |
        grep -Eo -e '--[a-z][a-z_]+' | sort -u); do
        check "$flag of README.md or docs/ is in --help" grep -qw -e "$flag" "$work/helps"
    done
}

# ---- Chat templates

# The ids that a prompt is read as: of $work/json.
prompt_tokens() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["prompt_tokens"])' "$work/json"; }

test_chat_templates() {
    local flags=(--temperature 0 --max_new_tokens 0 --json "$work/json") written
    local jinja='{{ bos_token }}{% for m in messages %}{{ m.role + ": " + m.content | trim + eos_token }}{% endfor %}'
    printf %s "$jinja{{ strftime_now('%d %b %Y') }}" >"$work/dated.jinja"
    printf '\xef\xbb\xbf%s' "{{ raise_exception('no system role') if messages[0].role == 'system' }}$jinja" >"$work/raises.jinja"
    printf '{{ messages | urlize }}' >"$work/unknown.jinja"
    usual --prompt ' Hi </s>' --chat --chat_template "$work/dated.jinja" --date 2024-02-29 --system Be. "${flags[@]}"
    expect_status '--chat_template FILE' 0
    if command -v python3 >/dev/null; then
        check 'message text that spells </s> is no end' eval '[[ $(prompt_tokens) != *" 2, "*" 2, "*" 2, "* ]]'
        usual --prompt 'Hi' --chat --chat_template "$work/dated.jinja" --date 2024-02-29 --system Be. "${flags[@]}"
        written=$(prompt_tokens)
        usual --prompt '<s>system: Be.</s>user: Hi</s>29 Feb 2024' --parse_special "${flags[@]}"
        check 'the same turns written by hand, BOS once' [ "$written" = "$(prompt_tokens)" ]
        usual --prompt 'system: Be.</s>user: Hi</s>29 Feb 2024' --parse_special "${flags[@]}"
        check 'the same without BOS, which is put there' [ "$written" = "$(prompt_tokens)" ]
        usual --prompt '<s>system: Be.</s>user: Hi</s>29 Feb 2024' "${flags[@]}"
        check 'and not without --parse_special' [ "$written" != "$(prompt_tokens)" ]
    fi
    expect_error 1 'no system role' --prompt a --chat --system b --chat_template "$work/raises.jinja"
    expect_error 1 "urlize" --prompt a --chat --chat_template "$work/unknown.jinja"
    expect_error 1 'leaves out' --prompt a --chat --chat_template "$work/json"
    expect_error 2 '29 Feb' --prompt a --chat --chat_template llama2 --date '29 Feb'
    expect_error 2 '--date' --prompt a --date 2024-02-29
    expect_error 2 '--parse_special' --prompt a --chat --parse_special
    printf 'a\nb\n' >"$work/lines"
    usual --interactive --chat_template mistral --max_new_tokens 4 <"$work/lines"
    check 'a conversation goes on from its cache' eval 'status_is 0 && ! stderr_has "read again"'
    usual --interactive --chat_template mistral --max_new_tokens 40 --stop ' ' <"$work/lines"
    check 'and is read again behind a stop text' eval 'status_is 0 && stderr_has "read again"'
    printf '%s' "{% for m in messages %}{{ m.role ~ m.content }}{{ '!' if loop.last }}{% endfor %}" >"$work/rewrites.jinja"
    usual --interactive --chat_template "$work/rewrites.jinja" --max_new_tokens 4 <"$work/lines"
    check 'a template that changes earlier turns is told' eval 'status_is 0 && stderr_has "read again"'
}

# ---- Conversations

test_conversation() {
    local first form
    if [ ! -r "${STOWKV_SMOLLM2:-}" ]; then
        skip_loudly 'conversations; STOWKV_SMOLLM2 names no checkpoint'
        return
    fi
    printf 'I have a dog called Rex.\n\nWhat is the name of my dog?\n' >"$work/lines"
    run --checkpoint_path "$STOWKV_SMOLLM2" --interactive --temperature 0 --n_ctx 512 --max_new_tokens 30 <"$work/lines"
    expect_status '--interactive' 0
    check 'two answers' [ "$(wc -l <"$work/stdout")" -ge 2 ]
    check 'the second knows the first' eval 'tail -n 1 "$work/stdout" | grep -q Rex'
    first=$(head -n 1 "$work/stdout")
    run --checkpoint_path "$STOWKV_SMOLLM2" --chat --prompt 'I have a dog called Rex.' --temperature 0 \
        --n_ctx 512 --max_new_tokens 30
    check '--chat gives the first answer' [ "$(head -n 1 "$work/stdout")" = "$first" ]
    for form in 'a\n\nb\n' '\xef\xbb\xbfa\r\n\r\nb\r\n\x1a'; do
        printf "$form" >"$work/lines"
        run --checkpoint_path "$STOWKV_SMOLLM2" --interactive --temperature 0 --n_ctx 256 --max_new_tokens 1 \
            --json "$work/chat.json" <"$work/lines"
        grep '"n_prompt"\|"prompt_tokens"' "$work/chat.json" >"$work/chat.ids.${#form}"
    done
    check 'messages with a byte order mark, CRLF and ^Z' cmp -s "$work"/chat.ids.*
    iconv -f UTF-8 -t UTF-16 <"$work/lines" >"$work/utf16"
    run --checkpoint_path "$STOWKV_SMOLLM2" --interactive --n_ctx 256 <"$work/utf16"
    check 'messages in UTF-16' failed_cleanly 1 'stdin: is UTF-16'
    interrupt is_blocked --checkpoint_path "$STOWKV_SMOLLM2" --threads 1 --interactive --n_ctx 64 <>"$work/silence"
    expect_status 'Ctrl-C at the prompt of a conversation' 130
    check 'without an error' [ "$(grep -c error "$work/stderr")" -eq 0 ]
}

test_warnings() {
    local noted=${STOWKV_FIXTURES:-}/bad/noted_guess_llama.gguf
    if [ ! -r "$noted" ]; then
        skip_loudly 'warnings about a checkpoint; STOWKV_FIXTURES has no bad/noted_guess_llama.gguf'
        return
    fi
    run --checkpoint_path "$noted" --prompt ab --max_new_tokens 0
    check 'what is guessed is told in a line on stderr' \
        [ "$(grep -c "^warning: .*guessed 'llama-bpe'.*; " "$work/stderr")" -eq 1 ]
    check 'and not on stdout' [ ! -s "$work/stdout" ]
    tell --prompt a --max_new_tokens 1
    check 'nothing is told where nothing was guessed' [ "$(grep -c '^warning' "$work/stderr")" -eq 0 ]
}

# ---- The prefix cache

# prefixed ARGUMENT…: a prompt of 300 tokens or so, in two halves, with the prefix cache and a JSON file.
prefixed() {
    tell --max_new_tokens 20 --prefix_cache "$work/prefixes" --json "$work/json" "$@"
}

prefix_has() { # FIELD VALUE
    grep -qE "\"$1\":[[:space:]]*$2" "$work/json"
}

test_prefix_cache() {
    local expected codec
    printf '%s and %s. ' "${golden:2:500}" "${golden:100:300}" >"$work/long"
    for codec in '' --quantize_kv --compress_kv '--kv_policy=sink=4,f16:32,int8:64,q4_0:*'; do
        tell --max_new_tokens 20 --prompt_file "$work/long" ${codec:+"$codec"}
        expected=$(cat "$work/stdout")
        prefixed --prompt_file "$work/long" ${codec:+"$codec"}
        expect_stdout "the text with an empty prefix cache $codec" "$expected"
        check 'nothing restored, and the reason' stderr_has 'nothing restored: '
        check 'nothing restored, in JSON' prefix_has tokens_restored 0
        prefixed --prompt_file "$work/long" ${codec:+"$codec"}
        expect_stdout "the text from the prefix cache $codec" "$expected"
        check 'all restored' prefix_has tokens_computed 0
        (cat "$work/long" && printf 'Then she went') >"$work/longer"
        tell --max_new_tokens 20 --prompt_file "$work/longer" ${codec:+"$codec"}
        expected=$(cat "$work/stdout")
        prefixed --prompt_file "$work/longer" ${codec:+"$codec"} --threads 3
        expect_stdout 'a longer prompt' "$expected"
        check 'most of it restored' prefix_has tokens_computed '[0-9]{1,2},'
    done
    check 'restoring is told' stderr_has 'tokens restored in '
    prefixed --prompt_file "$work/long" --kv_block_size 32 --quantize_kv
    check 'a miss names what differs' stderr_has 'nothing restored: what is stored is of policy '
    run --prefix_cache "$work/prefixes" --prefix_stats
    check 'statistics alone' grep -q 'on disk  *[1-9][0-9]* entries' "$work/stdout"
    run --prefix_cache "$work/prefixes" --prefix_stats --json "$work/json"
    check 'and in JSON' prefix_has disk_entries '[1-9]'
    run --prefix_cache "$work/prefixes" --prefix_clear --prefix_stats
    check 'an empty cache' grep -q 'on disk  *0 entries' "$work/stdout"
    tell --prompt_file "$work/long" --max_new_tokens 0 --prefix_cache "$work/prefixes"
    prefixed --prompt_file "$work/long"
    check 'a prompt that was only read is all there' prefix_has tokens_computed 0
    check 'is for its owner alone' [ "$(stat -c %a "$work"/prefixes/*.mdb)" = 600 ]
    expect_error 2 'are about --prefix_cache DIR' --prompt a --prefix_stats
    expect_error 2 'would spare --compare' --prompt a --prefix_cache "$work/prefixes" --compare
    expect_error 1 "$work/long: " --prompt a --prefix_cache "$work/long"
}

# ---- Many requests

requests() { # ARGUMENT…: of $work/in.jsonl
    tell --max_new_tokens 12 --prompts_file "$work/in.jsonl" --output "$work/out.jsonl" "$@"
}

# without_times FILE: what must be the same in every run.
without_times() {
    sed -E 's/,"prefix_hit":[0-9]+,"ms":[0-9.e+-]+//' "$1"
}

same_results() { without_times "$work/out.jsonl" | cmp -s - "$work/expected"; }

make_requests() { # prompts of 200 tokens or so, of which the first half is the same in all
    local i text
    text=$(printf %s "$golden" | tr '\n"' '  ')
    for i in 1 2 3 4 5 6; do
        printf '{"id": %d, "prompt": "%s Number %d. %s"}\n' $i "${text:2:300}" $i "${text:$((i * 20)):250}"
    done >"$work/in.jsonl"
}

test_requests() {
    local n i
    rm -f "$work/out.jsonl"
    {
        printf '{"id": "a", "prompt": "Once upon a time"}\n'
        printf '{"prompt": "Once upon"}\n{"id": 3}\n{"id": 4, "prompt": \n\n[1, 2]\n'
        printf '{"id": 5, "prompt": "%s"}\n' "$(printf 'word %.0s' {1..600})"
        printf '{"id": "a", "prompt": "Once upon a time"}\n'
    } >"$work/in.jsonl"
    requests --json "$work/json"
    expect_status 'a file of requests' 0
    check 'a result a line' [ "$(wc -l <"$work/out.jsonl")" -eq 7 ]
    check 'nothing on stdout' [ ! -s "$work/stdout" ]
    check 'failed lines do not stop the others' [ "$(grep -c '"error":' "$work/out.jsonl")" -eq 4 ]
    check 'they say why' grep -q '^{"id":3,"error":"[^"]*in.jsonl:3: there is no field' "$work/out.jsonl"
    check 'a line without an id has its number' grep -q '^{"id":2,"text":"' "$work/out.jsonl"
    check 'what does not fit' grep -q '^{"id":5,"error":"the prompt has [0-9]* tokens' "$work/out.jsonl"
    check 'counted' grep -qE '"n_failed":[[:space:]]*4' "$work/json"
    tell --max_new_tokens 12 --prompt 'Once upon a time'
    check 'the text is that of a run of its own' \
        grep -qF "{\"id\":\"a\",\"text\":\"$(cat "$work/stdout")\"," "$work/out.jsonl"
    check 'in order' [ "$(sed -n '1p;7p' "$work/out.jsonl" | grep -c '^{"id":"a"')" -eq 2 ]
    without_times "$work/out.jsonl" >"$work/expected"
    for n in 0 1 3 6; do
        head -n $n "$work/expected" >"$work/out.jsonl"
        printf '{"id":' >>"$work/out.jsonl"
        requests
        check "goes on behind $n results" same_results
    done
    requests
    check 'all is done' stderr_has '0 requests done, 0 of them failed; 7 were done before'
    printf '{"id": 1, "text": ""}\n' >"$work/out.jsonl"
    requests
    check "another file's results" failed_cleanly 1 'out.jsonl:1: is not the result of the line of '
    check 'stay' [ "$(cat "$work/out.jsonl")" = '{"id": 1, "text": ""}' ]
    requests_of_other_settings
    expect_error 2 'need each other' --prompts_file "$work/in.jsonl"
    expect_error 2 'leave --compare out' --prompts_file "$work/in.jsonl" --output "$work/x" --compare
    expect_error 2 'no run could go on from stdout' --prompts_file "$work/in.jsonl" --output -
    expect_error 2 'would overwrite' --prompts_file "$work/in.jsonl" --output "$work/in.jsonl"
}

# What was made with other flags, or of other prompts, is not gone on with; a seed that was drawn is no flag.
requests_of_other_settings() {
    local flag
    for flag in --quantize_kv --max_new_tokens=13 --temperature=1 --stop=she --ignore_eos --n_ctx=500; do
        head -n 3 "$work/expected" >"$work/out.jsonl"
        run --checkpoint_path "$stories" --temperature 0 --max_new_tokens 12 --prompts_file "$work/in.jsonl" \
            --output "$work/out.jsonl" "$flag"
        check "results without $flag" failed_cleanly 1 'out.jsonl:1: was made of another prompt, or with other flags'
        check 'stay too' cmp -s <(head -n 3 "$work/expected") "$work/out.jsonl"
    done
    sed -i 's/Once upon"/Once  upon"/' "$work/in.jsonl"
    requests
    check 'of other prompts' failed_cleanly 1 'out.jsonl:2: was made of another prompt, or with other flags'
    rm "$work/out.jsonl"
    requests --temperature 1 --seed 1
    requests --temperature 1 --seed 1
    check 'the same seed' stderr_has '7 were done before'
    requests --temperature 1 --seed 2
    check 'another seed' failed_cleanly 1 'out.jsonl:1: was made'
    rm "$work/out.jsonl"
    requests --temperature 1
    requests --temperature 1
    check 'a seed that was drawn' stderr_has '7 were done before'
}

# STOWKV_KILLS=100 for a long look.
test_killed_requests() {
    local i
    make_requests
    rm -rf "$work/out.jsonl" "$work/prefixes"
    requests
    without_times "$work/out.jsonl" >"$work/expected"
    check 'no request fails' [ "$(grep -c '"text"' "$work/expected")" -eq 6 ]
    for ((i = 0; i < ${STOWKV_KILLS:-4}; i++)); do
        rm -f "$work/out.jsonl"
        signal=KILL interrupt "[ \$(cat \"$work/out.jsonl\" 2>/dev/null | wc -l) -ge $((i % 4)) ]" \
            --checkpoint_path "$stories" --temperature 0 --max_new_tokens 12 --prompts_file "$work/in.jsonl" \
            --output "$work/out.jsonl" --prefix_cache "$work/prefixes"
        requests --prefix_cache "$work/prefixes"
        check "goes on after SIGKILL $i" same_results
        check 'the store is whole' [ "$(grep -c '^note' "$work/stderr")" -eq 0 ]
    done
    rm -f "$work/out.jsonl"
    requests --prefix_cache "$work/prefixes" --json "$work/json"
    check 'from the prefix cache' same_results
    check 'nothing is computed again' prefix_has tokens_computed 0
}

if (($#)); then
    for test; do
        "$test"
    done
    finish
    exit
fi
test_golden_story
test_golden_story_of_folders
test_inspect
test_tokenizer_json
test_seeds
test_penalties
test_stops
test_prompts
test_editors
test_context
test_modes
test_streaming
test_memory_plan
test_cache_errors
test_json
test_full_disk
test_overwriting
test_interrupts
test_signals
test_interrupted_write
test_usage_errors
test_help
test_readme
test_chat_templates
test_conversation
test_prefix_cache
test_requests
test_killed_requests
test_warnings
finish
