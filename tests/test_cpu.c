/* What a machine offers: probes that fail, and names of instruction sets. */
#include "model/base/cpu.h"
#include "model/base/cpu_try.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- Probes */

static bool illegal(void) {
#if defined(__x86_64__)
    __asm__ volatile("ud2");
#elif defined(__aarch64__)
    __asm__ volatile("udf #0");
#else
    raise(SIGILL);
#endif
    return true;
}

static bool wrong(void) {
    return false;
}

static bool right(void) {
    return true;
}

static size_t n_probes, n_refused; /* the first so many probes meet an instruction that is refused */
bool __real_cpu_try(CpuProbe *probe);
bool __wrap_cpu_try(CpuProbe *probe);

bool __wrap_cpu_try(CpuProbe *probe) {
    return __real_cpu_try(n_probes++ < n_refused ? illegal : probe);
}

static void expect_probes(size_t refused) {
    n_probes = 0;
    n_refused = refused;
}

static void test_try(void **state) {
    (void)state;
    struct sigaction before, after;
    sigaction(SIGILL, NULL, &before);
    for (int i = 0; i < 3; i++) {
        assert_false(__real_cpu_try(illegal));
        assert_true(__real_cpu_try(right));
        assert_false(__real_cpu_try(wrong));
    }
    sigaction(SIGILL, NULL, &after);
    assert_true(before.sa_handler == after.sa_handler);
}

/* An illegal instruction that is not a probe's still ends the program. */
static void test_other_signals(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGILL, SIG_DFL);
        __real_cpu_try(illegal);
        illegal();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
}

/* ---- Levels */

static size_t n_running(void) {
    size_t n = 0;
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        n++;
    return n;
}

static void test_levels(void **state) {
    (void)state;
    expect_probes(0);
    SimdLevel best = cpu_best_simd_level(), level, last = SIMD_SCALAR;
    assert_true(n_probes <= 1); /* what is better is not even listed */
    for (level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        assert_true(cpu_runs(level));
        last = level;
    }
    assert_int_equal(last, best);
    Error error = {0};
    assert_int_equal(cpu_parse_simd_level("auto", &level, &error), 0);
    assert_int_equal(level, best);
    assert_int_equal(cpu_parse_simd_level(simd_level_name(best), &level, &error), 0);
    assert_int_equal(level, best);
    assert_int_equal(cpu_parse_simd_level("scalar", &level, &error), 0);
    assert_int_equal(level, SIMD_SCALAR);
#if defined(__x86_64__)
    assert_false(cpu_runs(SIMD_NEON));
    assert_int_equal(cpu_parse_simd_level("neon", &level, &error), ERROR_ARGUMENT);
#else
    assert_false(cpu_runs(SIMD_AVX2));
    assert_int_equal(cpu_parse_simd_level("avx2", &level, &error), ERROR_ARGUMENT);
#endif
    assert_non_null(strstr(error.message, "not available on this machine; choose one of auto, scalar"));
    assert_int_equal(cpu_parse_simd_level("sse9", &level, &error), ERROR_USAGE);
    assert_non_null(strstr(error.message, "--simd sse9: unknown; choose one of auto, scalar"));
    assert_null(strstr(error.message, "avx512, avx512")); /* a name is one choice */
    assert_string_equal(simd_level_name(SIMD_AVX512_VNNI), "avx512");
    assert_string_not_equal(simd_level_features(SIMD_AVX512_VNNI), simd_level_features(SIMD_AVX512));
}

static void test_refused_levels(void **state) {
    (void)state;
    expect_probes(0);
    SimdLevel best = cpu_best_simd_level(), level = best;
    size_t n = n_running();
    if (n == 1)
        skip();
    for (size_t refused = 1; refused < n; refused++) {
        expect_probes(refused);
        SimdLevel lower = cpu_best_simd_level();
        assert_true(lower < level);
        assert_int_equal(n_probes, refused + (lower != SIMD_SCALAR));
        level = lower;
    }
    assert_int_equal(level, SIMD_SCALAR);

    Error error = {0};
    expect_probes(SIZE_MAX);
    assert_int_equal(cpu_parse_simd_level(simd_level_name(best), &level, &error), ERROR_ARGUMENT);
    char expected[128];
    snprintf(expected, sizeof expected, "--simd %s: the processor lists it but refuses it; choose one of auto, scalar",
             simd_level_name(best));
    assert_string_equal(error.message, expected);
    assert_int_equal(cpu_parse_simd_level("auto", &level, &error), 0);
    assert_int_equal(level, SIMD_SCALAR);
    expect_probes(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_try),
        cmocka_unit_test(test_other_signals),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_refused_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
