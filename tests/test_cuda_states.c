/* What the CUDA backend does from step to step, on the simulated GPU (tests/cuda_shim): the same bits twice, its memory
 * and launches counted, steps that are recorded and timed, and states that other runs go on from. */
#include "eval/profile/timed_backend.h"
#include "tests/cuda_run.h"
#include "tests/cuda_shim/shim.h"
#include "tests/evaluation_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_TIMED = 10 };

/* Twice the same bits, and without an allocation or a leak. */
static void test_repeats(void **state) {
    (void)state;
    ModelRun run;
    float *first = NULL;
    cuda_run_open(&run, open_cuda(), "models/f32.gguf", "sink=4,f16:16,int8:*", 0);
    size_t n_vocab = run.model.checkpoint.config.n_vocab;
    for (unsigned seed = 0; seed < 2; seed++) {
        cuda_shim_set_seed(seed);
        context_clear(&run.context);
        long n_allocations = cuda_shim_counts().allocations;
        model_run_step(&run, random_windows(), 50);
        model_run_step(&run, random_windows() + 50, 1);
        assert_int_equal(cuda_shim_counts().allocations, n_allocations);
        if (first == NULL)
            first = memcpy(malloc(n_vocab * sizeof *first), run.context.logits, n_vocab * sizeof *first);
        assert_memory_equal(run.context.logits, first, n_vocab * sizeof *first);
    }
    cuda_shim_set_seed(0);
    free(first);
    model_run_close(&run);
    assert_int_equal(cuda_shim_counts().n_allocated, 0);
}

/* The ledger is what the device gave, but for the description of the layout. */
static void test_memory(void **state) {
    (void)state;
    static const char *const POLICIES[] = {"f16:*", "sink=16,f16:32,int8:*", "sink=16,f16:32,int4:512,int2:*"};
    for (size_t i = 0; i < 3; i++) {
        Error error = {0};
        Backend *b = open_cuda();
        KvCache cache;
        KvLedger ledger;
        KvPolicy policy = policy_of(POLICIES[i]);
        KvShape shape = {2, 4, 128, 8192, 128, {{0}}, 0};
        size_t before = cuda_shim_counts().device_bytes;
        assert_int_equal(b->ops->open_cache(b, &cache, &shape, &policy, "the KV cache", &error), 0);
        kv_ledger(&cache, &ledger);
        double taken = (double)(cuda_shim_counts().device_bytes - before);
        assert_true(fabs(taken / (double)(ledger.bytes + ledger.working_bytes) - 1) < 0.02);
        b->ops->close_cache(b, &cache);
        b->ops->close(b);
    }
}

/* Once it is recorded a step is one launch of a graph, a copy of its logits, and waiting for them. */
static void test_recorded_step(void **state) {
    (void)state;
    ModelRun run;
    cuda_run_open(&run, open_cuda(), "models/f32.gguf", "sink=4,f16:0,int8:*", 0);
    for (size_t t = 0; t < 70; t++) {
        CudaShimCounts before = cuda_shim_counts();
        model_run_step(&run, random_windows() + t, 1);
        CudaShimCounts after = cuda_shim_counts();
        long n_calls = after.calls - before.calls - (after.launches - before.launches);
        if (t >= 2 && n_calls > 8)
            fail_msg("step %zu makes %ld calls of the runtime", t, n_calls);
    }
    model_run_close(&run);
}

/* Calls of one step: those of begin(), RoPE's angles, the embedding, six a layer, the logits. */
static void check_profile(const Profile *profile, const ModelConfig *config, size_t n_decoded) {
    const ProfilePhase *decode = &profile->phases[PROFILE_DECODE];
    static const ProfileOp ONCE[] = {PROFILE_BEGIN, PROFILE_ANGLES, PROFILE_EMBED, PROFILE_LOGITS, PROFILE_READ};
    static const ProfileOp OF_LAYER[] = {PROFILE_QKV,         PROFILE_APPEND,  PROFILE_ATTENTION,
                                         PROFILE_ATTN_OUTPUT, PROFILE_GATE_UP, PROFILE_FFN_DOWN};
    assert_int_equal(decode->n_steps, n_decoded);
    assert_int_equal(profile->phases[PROFILE_PROMPT].n_steps, 2);
    for (size_t i = 0; i < sizeof ONCE / sizeof *ONCE; i++)
        assert_int_equal(decode->ops[ONCE[i]].calls, n_decoded);
    for (size_t i = 0; i < sizeof OF_LAYER / sizeof *OF_LAYER; i++)
        assert_int_equal(decode->ops[OF_LAYER[i]].calls, n_decoded * config->n_layers);
    double counted = profile_counted_seconds(profile), wall = profile_wall_seconds(profile);
    if (counted < 0.95 * wall || counted > 1.001 * wall)
        fail_msg("%.6f s of %.6f s are counted", counted, wall);
}

/* Each call is within its step: marks of a recorded step are set anew each time. */
static void check_events(const Profile *profile) {
    size_t step = 0;
    for (size_t i = 0; i < profile->n_events; i++) {
        const ProfileEvent *event = &profile->events[i];
        if (event->op == PROFILE_CLOCK || event->op == PROFILE_BETWEEN) {
            step += event->op == PROFILE_BETWEEN;
            continue;
        }
        const ProfileStep *s = &profile->steps[step];
        if (event->seconds < 0 || event->begin < s->begin - 1e-5 || event->begin + event->seconds > s->end + 1e-5)
            fail_msg("step %zu, %.6f to %.6f s: %s from %.6f s on takes %.6f s", step, s->begin, s->end,
                     profile_op_name((ProfileOp)event->op), event->begin, event->seconds);
    }
    assert_int_equal(step, profile->n_steps - 1);
}

/* A device times its own calls, a prompt's and those of a recorded step, and the step stays a recording: beside the
 * marks and what reading each of them takes it makes the same few calls of the runtime. */
static void test_profiled_steps(void **state) {
    (void)state;
    Error error = {0};
    ModelRun plain, run;
    Backend *backend = open_cuda(), *timed;
    Profile profile = {0};
    assert_int_equal(timed_backend_open(&timed, backend, &profile, &error), 0);
    cuda_run_open(&plain, open_cuda(), "models/f32.gguf", "sink=4,f16:0,int8:*", 0);
    cuda_run_open(&run, timed, "models/f32.gguf", "sink=4,f16:0,int8:*", 0);
    profile_start(&profile);
    const int32_t *tokens = random_windows();
    size_t n_layers = run.model.checkpoint.config.n_layers, n_marks = 2 + 3 + 6 * n_layers;
    for (size_t t = 0; t < 40; t += 20) { /* results that nobody reads */
        assert_int_equal(forward(&plain.context, tokens + t, 20, LOGITS_NONE, &error), 0);
        assert_int_equal(forward(&run.context, tokens + t, 20, LOGITS_NONE, &error), 0);
    }
    for (size_t t = 0; t < N_TIMED; t++) {
        model_run_step(&plain, tokens + 40 + t, 1);
        CudaShimCounts before = cuda_shim_counts();
        model_run_step(&run, tokens + 40 + t, 1);
        CudaShimCounts after = cuda_shim_counts();
        long n_calls = after.calls - before.calls - (after.launches - before.launches);
        if (t >= 2 && n_calls > (long)(9 + 2 * n_marks))
            fail_msg("step %zu makes %ld calls of the runtime", t, n_calls);
        assert_memory_equal(plain.context.logits, run.context.logits,
                            run.model.checkpoint.config.n_vocab * sizeof *run.context.logits);
    }
    check_profile(&profile, &run.model.checkpoint.config, N_TIMED);
    check_events(&profile);
    model_run_close(&plain);
    model_run_close(&run);
    profile_free(&profile);
}

/* Norms, SiLU and residuals are in the launches of products: a layer is six of them, q, k and v, append, attention, its
 * output, gate and up, and down. Beside them the place in the cache, its plan, RoPE's angles, the embedding, logits. */
static void test_launches(void **state) {
    (void)state;
    ModelRun run;
    cuda_run_open(&run, open_cuda(), "models/head_dim_128.gguf", "sink=4,f16:16,int8:*", 0);
    size_t n_layers = run.model.checkpoint.config.n_layers;
    model_run_step(&run, random_windows(), 20);
    long before = cuda_shim_counts().launches;
    model_run_step(&run, random_windows() + 20, 1);
    assert_int_equal(cuda_shim_counts().launches - before, 6 * n_layers + 5);
    model_run_close(&run);
}

/* ---- States */

/* All pieces of one cache's state into the other. */
static void copy_state(const Context *from_context, Context *to_context) {
    Error error = {0};
    const KvCache *from = &from_context->cache;
    KvCache *to = &to_context->cache;
    const KvMemory source = context_memory(from_context), target = context_memory(to_context);
    size_t n = kv_pieces(&from->layout, from->n_tokens, NULL);
    KvPiece *pieces = calloc(n, sizeof *pieces);
    kv_pieces(&from->layout, from->n_tokens, pieces);
    for (size_t i = 0; i < n; i++) {
        uint8_t *bytes = malloc(pieces[i].size_bytes);
        if (kv_piece_save(from, &pieces[i], &source, bytes, &error) < 0 ||
            kv_piece_load(to, from->n_tokens, &pieces[i], &target, bytes, &error) < 0)
            fail_msg("%s", error.message);
        free(bytes);
    }
    kvcache_resume(to, from->n_tokens);
    free(pieces);
}

/* A run that goes on from another's state, wherever that was taken, has its logits, bit for bit. */
static void test_states_go_on(void **state) {
    (void)state;
    static const char *const POLICIES[] = {"f16:*", "sink=4,f16:16,int8:*", "sink=4,f16:0,int8:32,q4_0:*",
                                           "sink=4,f16:40"};
    static const size_t CUTS[] = {1, 20, 64, 75};
    const int32_t *tokens = random_windows();
    for (size_t i = 0; i < sizeof POLICIES / sizeof *POLICIES; i++)
        for (size_t j = 0; j < sizeof CUTS / sizeof *CUTS; j++) {
            ModelRun cold, warm;
            cuda_run_open(&cold, open_cuda(), "models/f32.gguf", POLICIES[i], 0);
            cuda_run_open(&warm, open_cuda(), "models/f32.gguf", POLICIES[i], 0);
            model_run_step(&cold, tokens, CUTS[j]);
            copy_state(&cold.context, &warm.context);
            for (size_t n = 0; n < 3; n++) { /* a batch, then single tokens */
                size_t first = CUTS[j] + (n == 0 ? 0 : 20 + n), count = n == 0 ? 21 : 1;
                model_run_step(&cold, tokens + first, count);
                model_run_step(&warm, tokens + first, count);
                assert_memory_equal(cold.context.logits, warm.context.logits,
                                    cold.model.checkpoint.config.n_vocab * sizeof(float));
            }
            model_run_close(&cold);
            model_run_close(&warm);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeats),        cmocka_unit_test(test_memory),   cmocka_unit_test(test_recorded_step),
        cmocka_unit_test(test_profiled_steps), cmocka_unit_test(test_launches), cmocka_unit_test(test_states_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
