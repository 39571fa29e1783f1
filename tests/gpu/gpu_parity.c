/* The same model on the CPU and on the GPU: a prompt and greedy tokens in several cache modes, logits compared at each;
 * and one step of the GPU again and again, which must give the same bits. */
#include "base/machine/clock.h"
#include "base/options.h"
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "cuda/backend.h"
#include "kvcache/policy_text.h"
#include "model/model.h"
#include "tests/gpu/gpu_program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Settings {
    const char *checkpoint_path;
    StringList policies;
    size_t n_prompt, n_decoded, n_repeats, threads;
    double tolerance;
    bool help;
} Settings;

typedef struct Run {
    Model cpu, cuda;
    const Settings *settings;
} Run;

/* Root of the mean squared difference of logits, relative to those of `expected`, and the largest. */
typedef struct Difference {
    double rms, largest;
} Difference;

static Difference difference(const float *logits, const float *expected, size_t n) {
    double error = 0, size = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)logits[i] - (double)expected[i];
        error += d * d;
        size += (double)expected[i] * (double)expected[i];
        largest = fabs(d) > largest ? fabs(d) : largest;
    }
    return (Difference){sqrt(error / size), largest};
}

static int32_t most_likely(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

/* How much likelier the most likely token is than another, in logits: small where the two are nearly as likely. */
static double margin(const float *logits, size_t n, int32_t other) {
    return (double)logits[most_likely(logits, n)] - (double)logits[other];
}

/* ---- Tokens through both */

/* A fixed sequence of ids, that of eval/bench. */
static int32_t prompt_token(size_t p, size_t n_vocab) {
    return (int32_t)((7 * p * p + 13 * p + 11) % n_vocab);
}

static int read_prompt(Context *context, size_t n_prompt, Error *error) {
    int32_t tokens[DEFAULT_BATCH];
    for (size_t done = 0, n; done < n_prompt; done += n) {
        n = context_batch(context, n_prompt - done);
        for (size_t i = 0; i < n; i++)
            tokens[i] = prompt_token(done + i, context->model->checkpoint.config.n_vocab);
        if (forward(context, tokens, n, LOGITS_LAST, error) < 0)
            return error->code;
    }
    return 0;
}

static void print_mode(const Run *run, const char *policy, Difference worst, size_t n_same, double others,
                       bool passes) {
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "test", "parity");
    cJSON_AddStringToObject(line, "device_name", run->cuda.backend->device_name);
    cJSON_AddStringToObject(line, "model", run->settings->checkpoint_path);
    cJSON_AddStringToObject(line, "policy", policy);
    cJSON_AddNumberToObject(line, "prompt_tokens", (double)run->settings->n_prompt);
    cJSON_AddNumberToObject(line, "decoded_tokens", (double)run->settings->n_decoded);
    cJSON_AddNumberToObject(line, "same_tokens", (double)n_same);
    cJSON_AddNumberToObject(line, "largest_margin_of_others", others);
    cJSON_AddNumberToObject(line, "logits_rms_difference", worst.rms);
    cJSON_AddNumberToObject(line, "logits_largest_difference", worst.largest);
    cJSON_AddBoolToObject(line, "passes", passes);
    gpu_print(line);
}

/* Both get the CPU's choice, so that a difference does not grow by itself. */
static int compare(const Run *run, const char *policy, Context *cpu, Context *cuda, Error *error) {
    const Settings *s = run->settings;
    size_t n_vocab = run->cpu.checkpoint.config.n_vocab, n_same = 0;
    Difference worst = {0, 0};
    double others = 0; /* the largest margin at which the GPU chose another token */
    if (read_prompt(cpu, s->n_prompt, error) < 0 || read_prompt(cuda, s->n_prompt, error) < 0)
        return error->code;
    for (size_t i = 0; i < s->n_decoded; i++) {
        Difference now = difference(cuda->logits, cpu->logits, n_vocab);
        int32_t token = most_likely(cpu->logits, n_vocab);
        worst = (Difference){fmax(worst.rms, now.rms), fmax(worst.largest, now.largest)};
        others = fmax(others, margin(cpu->logits, n_vocab, most_likely(cuda->logits, n_vocab)));
        n_same += token == most_likely(cuda->logits, n_vocab);
        if (forward(cpu, &token, 1, LOGITS_LAST, error) < 0 || forward(cuda, &token, 1, LOGITS_LAST, error) < 0)
            return error->code;
    }
    bool passes = n_same == s->n_decoded && worst.rms <= s->tolerance;
    print_mode(run, policy, worst, n_same, others, passes);
    return passes ? 0
                  : error_set(error, ERROR_FORMAT,
                              "%s: %zu of %zu tokens are the same, logits differ by %.3g of their "
                              "size",
                              policy, n_same, s->n_decoded, worst.rms);
}

/* The same step from the same prompt: everything again n / 4 times, and the last token alone, whose place in the tail
 * is written anew, for the others. One in four gives the most likely token alone. */
static int repeat(const Run *run, const char *policy, Context *cuda, Error *error) {
    const Settings *s = run->settings;
    size_t n_vocab = run->cuda.checkpoint.config.n_vocab, n_differ = 0;
    float *first = malloc(n_vocab * sizeof *first);
    if (first == NULL)
        return error_memory(error, "logits", n_vocab * sizeof *first);
    int status = 0;
    for (size_t i = 0; i < s->n_repeats && status == 0; i++) {
        int32_t token = 1;
        if (i % 20 == 0) {
            context_clear(cuda);
            status = read_prompt(cuda, s->n_prompt, error);
        } else {
            cuda->cache.n_tokens--;
        }
        bool greedily = i % 4 == 3;
        if (status == 0)
            status = forward(cuda, &token, 1, greedily ? LOGITS_BEST : LOGITS_LAST, error);
        if (i == 0)
            memcpy(first, cuda->logits, n_vocab * sizeof *first);
        n_differ += greedily ? cuda->best != most_likely(first, n_vocab)
                             : memcmp(first, cuda->logits, n_vocab * sizeof *first) != 0;
    }
    free(first);
    if (status < 0)
        return status;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "test", "repeat");
    cJSON_AddStringToObject(line, "policy", policy);
    cJSON_AddNumberToObject(line, "steps", (double)s->n_repeats);
    cJSON_AddNumberToObject(line, "differ", (double)n_differ);
    cJSON_AddBoolToObject(line, "passes", n_differ == 0);
    gpu_print(line);
    return n_differ == 0 ? 0
                         : error_set(error, ERROR_FORMAT, "%s: %zu of %zu repeated steps gave other bits", policy,
                                     n_differ, s->n_repeats);
}

static int run_mode(Run *run, const char *text, Error *error) {
    const Settings *s = run->settings;
    KvPolicy policy = kv_policy_full();
    Context cpu = {0}, cuda = {0};
    policy.rounding = KV_ROUND_NEAREST; /* as the GPU's encoders do */
    size_t n_ctx = s->n_prompt + s->n_decoded + 2;
    int status = kv_policy_parse(text, &policy, error);
    if (status == 0)
        status = context_open(&cpu, &run->cpu, &policy, n_ctx, 0, error);
    if (status == 0)
        status = context_open(&cuda, &run->cuda, &policy, n_ctx, 0, error);
    if (status == 0)
        status = compare(run, text, &cpu, &cuda, error);
    Error failure = {0};
    if ((status == 0 || status == ERROR_FORMAT) && s->n_repeats > 0 && repeat(run, text, &cuda, &failure) < 0) {
        *error = failure;
        status = failure.code;
    }
    context_close(&cpu);
    context_close(&cuda);
    return status;
}

static int run_modes(Run *run, Error *error) {
    size_t n_failed = 0;
    for (size_t i = 0; i < run->settings->policies.count; i++) {
        Error failure = {0};
        if (run_mode(run, run->settings->policies.items[i], &failure) == 0)
            continue;
        fprintf(stderr, "gpu_parity: %s\n", failure.message);
        n_failed++;
    }
    return n_failed == 0
               ? 0
               : error_set(error, ERROR_FORMAT, "%zu of %zu policies failed", n_failed, run->settings->policies.count);
}

static int open_run(Run *run, const Settings *s, Error *error) {
    Backend *cpu, *cuda;
    SimdLevel level = cpu_best_simd_level();
    run->settings = s;
    if (cuda_backend_open(&cuda, level, (int)s->threads, error) < 0 ||
        model_open(&run->cuda, s->checkpoint_path, cuda, error) < 0 ||
        cpu_backend_open(&cpu, level, (int)s->threads, error) < 0 ||
        model_open(&run->cpu, s->checkpoint_path, cpu, error) < 0)
        return error->code;
    return 0;
}

int main(int argc, char **argv) {
    static Settings s = {.n_prompt = 300, .n_decoded = 100, .n_repeats = 100, .tolerance = 2e-2};
    static const char *const POLICIES[] = {"f16:*", "sink=16,f16:32", "sink=16,f16:32,int8:*"};
    const Option options[] = {
        {"checkpoint_path", OPTION_STRING, &s.checkpoint_path, "PATH", "required", 0, 0},
        {"kv_policy", OPTION_LIST, &s.policies, "POLICY", "one or more; default: full, compressed, quantized", 0, 0},
        {"prompt_tokens", OPTION_SIZE, &s.n_prompt, "N", "default 300", 1, 1 << 16},
        {"decoded_tokens", OPTION_SIZE, &s.n_decoded, "N", "default 100", 1, 1 << 16},
        {"repeats", OPTION_SIZE, &s.n_repeats, "N", "of one step; default 100", 0, 1 << 16},
        {"tolerance", OPTION_NUMBER, &s.tolerance, "X", "of logits, relative; default 0.02", 0, 1},
        {"threads", OPTION_SIZE, &s.threads, "N", "of the CPU; default: physical cores", 1, 1024},
        {"help", OPTION_FLAG, &s.help, NULL, "print this, and stop", 0, 0},
        {0},
    };
    static Run run;
    Error error = {0};
    if (options_parse(options, argc, argv, &error) < 0)
        return gpu_exit("gpu_parity", &error);
    if (s.help) {
        options_help(options, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof POLICIES / sizeof *POLICIES && s.policies.count <= i; i++)
        s.policies.items[s.policies.count++] = POLICIES[i];
    if (s.checkpoint_path == NULL)
        error_set(&error, ERROR_USAGE, "--checkpoint_path is required");
    else if (open_run(&run, &s, &error) == 0)
        run_modes(&run, &error);
    model_close(&run.cpu);
    model_close(&run.cuda);
    return gpu_exit("gpu_parity", &error);
}
