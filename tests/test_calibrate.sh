#!/usr/bin/env bash
# The program as a user runs it, and --kv_budget with what it writes: the same policy in every program, bytes within the
# budget, and refusals. It runs $STOWKV_BUILD/calibrate and others on stories260K of $STOWKV_DATA.
# shellcheck source=tests/program_test.sh
. "$(dirname "$0")/program_test.sh" calibrate

text=$(dirname "${BASH_SOURCE[0]}")/../LICENSE
# A folder with the model, so that the calibration can lie beside it.
cp "$stories" "$work/model.bin"
cp "$STOWKV_DATA/tok512.model" "$work/tokenizer.model"
beside=$work/model.bin.calibration.json

usual() { run --checkpoint_path "$work/model.bin" --text_file "$text" --context 200 --chunks 1 --threads 1 "$@"; }

# other PROGRAM ARGUMENT…: another program, as run does.
other() {
    program=$STOWKV_BUILD/$1
    program_name=$1
    shift
    run --checkpoint_path "$work/model.bin" --threads 1 "$@"
    program=$STOWKV_BUILD/calibrate
}

# refused STATUS TEXT PROGRAM ARGUMENT…
refused() {
    local expected=$1 text=$2
    shift 2
    other "$@" </dev/null
    check "status $expected: $*" failed_cleanly "$expected" "$text"
    program_name=calibrate
}

# The policy that stderr tells, and that of the JSON.
told_policy() { sed -n "s/^--kv_budget .*: --kv_policy '\(.*\)'$/\1/p" "$work/stderr"; }
json_policy() { sed -n 's/^.*"policy":[[:space:]]*"\([^"]*\)".*$/\1/p' "$work/result.json" | tail -n 1; }
json_number() { sed -n "s/^.*\"$1\":[[:space:]]*\([0-9]*\).*$/\1/p" "$work/result.json" | tail -n 1; }
is_at_most() { [ -n "$1" ] && [ "$1" -le "$2" ]; }

test_calibration() {
    refused 1 'there is no calibration of it; make one with build/calibrate' generate --plan_memory --kv_budget 6b
    usual
    expect_status 'calibrate' 0
    check 'a table' grep -q '^int4 .*[0-9]' "$work/stdout"
    check 'beside the checkpoint' grep -q '"stowkv calibration"' "$beside"
    check 'which is said' stderr_has "written to $beside"
    usual --json -
    check '--json - is the file alone' cmp -s "$work/stdout" "$beside"
    run --checkpoint_path "$work/model.bin" --text_file "$text" --threads 1 --json "$work/whole.json"
    check 'windows as long as the model has, and as many as the text' grep -q '"context":.512' "$work/whole.json"
}

test_budgets() {
    local budget policy
    for budget in 200kB 60% 200KiB; do
        other generate --plan_memory --kv_budget $budget --json "$work/result.json"
        expect_status "--kv_budget $budget" 0
        policy=$(told_policy)
        check 'tells the policy that the JSON has' [ "$policy" = "$(json_policy)" ]
        check 'which is within the budget' is_at_most "$(json_number kv_bytes)" "$(bytes_of $budget)"
        other generate --prompt a --max_new_tokens 2 --kv_budget $budget --json "$work/result.json"
        check 'and the one of a run' [ "$policy" = "$(json_policy)" ]
        check 'whose cache takes no more either' is_at_most "$(json_number kv_bytes)" "$(bytes_of $budget)"
        other generate --plan_memory --kv_policy "$policy" --json "$work/result.json"
        check 'and as --kv_policy takes the same' is_at_most "$(json_number kv_bytes)" "$(bytes_of $budget)"
    done
    other perplexity --text_file "$text" --context 256 --chunks 1 --kld --kv_budget 6b --json "$work/result.json"
    expect_status 'perplexity takes it' 0
    check 'with bits' grep -q '^--kv_budget 6b: 5\.[0-9]* bits, \|^--kv_budget 6b: 6 bits, ' "$work/stderr"
    check 'and the same policy' [ "$(told_policy)" = "$(json_policy)" ]
    other perplexity --text_file "$text" --context 256 --chunks 1 --compare --kv_budget 6b
    check 'beside the modes' grep -q '^cascade' "$work/stdout"
    other generate --plan_memory --kv_budget 6b --sink_size 4 --window_size 8 --kv_rotate off
    check 'sink, window and rotation are the flags' grep -q "'rotate=off,.*sink=4,f16:8," "$work/stderr"
    other generate --plan_memory --kv_budget 100%
    check 'all of it is the full cache' grep -q "kv_policy 'f16:\*'" "$work/stderr"
    program_name=calibrate
}

# Of a full cache of stories260K's 512 tokens: 5 layers, 4 KV heads of 8.
bytes_of() {
    case $1 in
        200kB) echo 200000 ;;
        60%) echo $((5 * 4 * 8 * 2 * 2 * 512 * 6 / 10)) ;;
        200KiB) echo 204800 ;;
    esac
}

test_refusals() {
    refused 2 'expected a size such as 400MB' generate --plan_memory --kv_budget 4
    refused 2 'exclude each other' generate --plan_memory --kv_budget 4b --quantize_kv
    refused 2 'exclude each other' generate --plan_memory --kv_budget 4b --kv_policy 'f16:*'
    refused 2 'leave --kv_codec out' generate --plan_memory --kv_budget 4b --kv_codec int8
    refused 2 'is read for --kv_budget' generate --plan_memory --kv_calibration "$beside"
    refused 1 'has 4.25 bits; give at least that' generate --plan_memory --kv_budget 4.2b
    refused 1 'the smallest policy, ' generate --plan_memory --kv_budget 1kB
    refused 1 'No such file' generate --plan_memory --kv_budget 6b --kv_calibration "$work/none.json"
    refused 1 'is no calibration' generate --plan_memory --kv_budget 6b --kv_calibration "$work/result.json"
    sed 's/"fingerprint":\t".\{4\}/"fingerprint":\t"0000/' "$beside" >"$work/another.json"
    refused 1 'the calibration of another model, model.bin' generate --plan_memory --kv_budget 6b \
        --kv_calibration "$work/another.json"
    program=$STOWKV_BUILD/generate program_name=generate
    run --plan_memory --shape layers=2,kv_heads=2,head_dim=64,n_ctx=1000 --kv_budget 4b
    check 'a shape has no harms' failed_cleanly 2 '--kv_budget needs --checkpoint_path'
    program=$STOWKV_BUILD/calibrate program_name=calibrate
    expect_error 2 'give no policy with it' --quantize_kv
    expect_error 2 'give no policy with it' --kv_budget 4b
    expect_error 2 'leave --kv_rotate out' --kv_rotate off
    expect_error 2 'give --context' --n_ctx 200
    expect_error 1 'was trained for 512 tokens' --context 513
    expect_error 1 'none leaves the sink and the window' --context 100
    run --text_file "$text"
    check 'a model is required' failed_cleanly 2 '--checkpoint_path is required'
    run --checkpoint_path "$work/model.bin"
    check 'and a text' failed_cleanly 2 '--text_file is required'
}

# One that comes with the program, found by the model's fingerprint.
test_smollm2() {
    if [ ! -r "${STOWKV_SMOLLM2:-}" ]; then
        skip_loudly 'the calibration of SmolLM2; STOWKV_SMOLLM2 names no checkpoint'
        return
    fi
    ln -s "$STOWKV_SMOLLM2" "$work/alone.gguf" # nothing is beside it
    program=$STOWKV_BUILD/generate
    run --checkpoint_path "$work/alone.gguf" --plan_memory --kv_budget 30% --n_ctx 2048 --json "$work/result.json"
    expect_status 'SmolLM2 in 30 %' 0
    check 'within the budget' is_at_most "$(json_number kv_bytes)" $((30 * 3 * 64 * 2 * 2 * 2048 * 3 / 10))
    program=$STOWKV_BUILD/calibrate
}

test_calibration
test_budgets
test_refusals
test_smollm2
test_help
finish
