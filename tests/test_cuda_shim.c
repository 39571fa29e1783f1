/* The shim that runs CUDA kernels on the host, and the primitives' meanings on it: values against plain loops, and
 * whether faults of kernels and of the host are found. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/half.h"
#include "tests/cuda_shim/shim.h"
#include "tests/cuda_shim_cases.h"

#define N_SEEDS 6

static uint32_t random_bits(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static float random_float(void) {
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

static void test_warp(void **state) {
    (void)state;
    float in[32], largest = -2;
    double sum = 0;
    for (int i = 0; i < 32; i++) {
        in[i] = random_float();
        sum += in[i];
        largest = fmaxf(largest, in[i]);
    }
    for (unsigned seed = 0; seed < N_SEEDS; seed++) {
        WarpResults results;
        cuda_shim_set_seed(seed);
        launch_warp(in, &results);
        for (int lane = 0; lane < 32; lane++) {
            assert_float_equal(results.xor_5[lane], in[lane ^ 5], 0);
            assert_float_equal(results.broadcast_7[lane], in[7], 0);
            assert_float_equal(results.gathered[lane], in[(3 * lane + 1) % 32], 0);
            assert_float_equal(results.sum[lane], results.sum[0], 0);
            assert_float_equal(results.max[lane], largest, 0);
        }
        assert_true(fabs(results.sum[0] - sum) <= 5 * 32 * 0x1p-24); /* 5 roundings of sums below 32 */
    }
}

/* Products of halves are exact in float, sums round 17 times. */
static void test_mma(void **state) {
    (void)state;
    uint16_t a[16][16], b[16][8];
    float d[16][8], before[16][8];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 256; i++)
            a[i / 16][i % 16] = half_from_float(random_float());
        for (int i = 0; i < 128; i++) {
            b[i / 8][i % 8] = half_from_float(random_float());
            before[i / 8][i % 8] = d[i / 8][i % 8] = random_float();
        }
        launch_mma(a[0], b[0], d[0]);
        for (int row = 0; row < 16; row++)
            for (int column = 0; column < 8; column++) {
                double sum = before[row][column], magnitude = fabs(sum);
                for (int k = 0; k < 16; k++) {
                    double product = (double)half_to_float(a[row][k]) * half_to_float(b[k][column]);
                    sum += product;
                    magnitude += fabs(product);
                }
                assert_true(fabs(d[row][column] - sum) <= 17 * 0x1p-24 * magnitude);
            }
    }
}

static void test_transpose(void **state) {
    (void)state;
    uint16_t in[8][8], out[8][8];
    for (int i = 0; i < 64; i++)
        in[i / 8][i % 8] = (uint16_t)random_bits();
    launch_transpose(in[0], out[0]);
    for (int i = 0; i < 64; i++)
        assert_int_equal(out[i % 8][i / 8], in[i / 8][i % 8]);
}

static void test_bytes(void **state) {
    (void)state;
    uint32_t permuted;
    int dot;
    launch_bytes(0x33221100, 0x77665544, 0x7520, &permuted, &dot);
    assert_int_equal(permuted, 0x77552200);
    launch_bytes(0x80221100, 0x7f665544, 0xfb40, &permuted, &dot);
    assert_int_equal(permuted, 0x00ff4400);
    launch_bytes(0x80ff027f, 0x807ffe81, (uint32_t)-5, &permuted, &dot);
    assert_int_equal(dot, 128 * 128 - 127 - 4 - 127 * 127 - 5);
}

static void test_halves(void **state) {
    (void)state;
    static float values[65536];
    static uint16_t back[65536];
    launch_halves(values, back);
    for (uint32_t i = 0; i < 65536; i++) {
        uint32_t exponent = i >> 10 & 31, fraction = i & 0x3ff;
        double magnitude = exponent ? ldexp(1024 + fraction, (int)exponent - 25) : ldexp(fraction, -24);
        if (exponent == 31 && fraction)
            assert_true(isnan(values[i]) && (back[i] & 0x7fff) > 0x7c00);
        else
            assert_true(values[i] == (exponent == 31 ? INFINITY : magnitude) * (i >> 15 ? -1 : 1) && back[i] == i);
    }
}

__extension__ typedef __int128 Wide;
#define ONE ((Wide)1 << 24)

/* A finite half in units of 2^-24 */
static int64_t units(uint32_t half) {
    int64_t exponent = half >> 10 & 31, fraction = half & 0x3ff;
    int64_t magnitude = exponent ? (1024 + fraction) << (exponent - 1) : fraction;
    return half & 0x8000 ? -magnitude : magnitude;
}

static Wide distance(Wide a, Wide b) {
    return a < b ? b - a : a - b;
}

/* Whether half is the one nearest to exact * 2^-48, even where two are; 2^16 stands for infinity. */
static bool is_nearest(uint16_t half, Wide exact) {
    uint16_t magnitude = half & 0x7fff, sign = half & 0x8000;
    if (magnitude > 0x7c00)
        return false;
    Wide error = distance(units(half) * ONE, exact);
    for (int step = -1; step <= 1; step += 2) {
        int other = magnitude + step;
        if (other > 0x7c00)
            continue;
        Wide further = distance(units(other < 0 ? 0x8001 ^ sign : sign | other) * ONE, exact);
        bool overflows = magnitude == 0x7c00 && distance(exact, 0) > distance(units(half) * ONE, 0);
        if (!overflows && (error > further || (error == further && magnitude % 2)))
            return false;
    }
    return true;
}

static uint16_t random_half(void) {
    uint16_t half;
    do
        half = (uint16_t)random_bits();
    while ((half & 0x7c00) == 0x7c00);
    return half;
}

static void test_pairs(void **state) {
    (void)state;
    enum { N = 40000 };
    static uint32_t operands[3][N];
    static PairResults results[N];
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < N; i++)
            operands[k][i] = random_half() | (uint32_t)random_half() << 16;
    for (int i = 0; i < N; i += 2) { /* exponents near each other, where sums cancel and ties are frequent */
        operands[1][i] = (operands[0][i] & 0xfc00fc00) ^ (random_bits() & 0x83ff83ff);
        operands[2][i] = (operands[2][i] & 0x83ff83ff) | 0x04000400;
    }
    launch_pairs(operands[0], operands[1], operands[2], results, N);
    for (int i = 0; i < N; i++)
        for (int shift = 0; shift < 32; shift += 16) {
            Wide a = units(operands[0][i] >> shift & 0xffff), b = units(operands[1][i] >> shift & 0xffff);
            Wide c = units(operands[2][i] >> shift & 0xffff);
            assert_true(is_nearest((uint16_t)(results[i].sum >> shift), (a + b) * ONE));
            assert_true(is_nearest((uint16_t)(results[i].difference >> shift), (a - b) * ONE));
            assert_true(is_nearest((uint16_t)(results[i].product >> shift), a * b));
            assert_true(is_nearest((uint16_t)(results[i].fused >> shift), a * b + c * ONE));
        }
}

/* 2^11 + 1 + 2^-24: to nearest from 2^11 + 1 alone, a tie, it would be 2^11 */
static void test_fused_rounds_once(void **state) {
    (void)state;
    uint32_t a = 0x2c01, b = 0x3c01, c = 0x0001, tie_a = 0x6801, one = 0x3c00; /* 0x6801: 2050 */
    PairResults result;
    launch_pairs(&tie_a, &one, &one, &result, 1);
    assert_int_equal(result.sum, 0x6802); /* 2051, between 2050 and 2052: the even one */
    launch_pairs(&a, &b, &c, &result, 1);
    assert_true(is_nearest((uint16_t)result.fused, (Wide)units(a) * units(b) + units(c) * ONE));
    uint32_t infinity = 0x7c00, largest = 0x7bff;
    launch_pairs(&infinity, &infinity, &largest, &result, 1);
    assert_int_equal(result.sum & 0xffff, 0x7c00);
    assert_int_equal(result.difference & 0x7fff, 0x7fff);
    launch_pairs(&largest, &largest, &infinity, &result, 1);
    assert_int_equal(result.sum & 0xffff, 0x7c00);
    assert_int_equal(result.fused & 0xffff, 0x7c00);
}

static void test_places(void **state) {
    (void)state;
    for (unsigned seed = 0; seed < N_SEEDS; seed++) {
        uint32_t places[24 * 12] = {0};
        cuda_shim_set_seed(seed);
        launch_places(places);
        for (uint32_t i = 0; i < 24 * 12; i++)
            assert_int_equal(places[i], i + 1);
    }
}

/* How many seeds give a wrong sum of whole numbers, in any block */
static int count_wrong_sums(bool with_barrier) {
    float in[3 * 256], sums[3], expected[3] = {0};
    int n_wrong = 0;
    for (int i = 0; i < 3 * 256; i++) {
        in[i] = (float)(random_bits() % 100 + 1);
        expected[i / 256] += in[i];
    }
    for (unsigned seed = 0; seed < N_SEEDS; seed++) {
        cuda_shim_set_seed(seed);
        launch_block_sums(in, sums, 3, with_barrier);
        n_wrong += memcmp(sums, expected, sizeof sums) != 0;
    }
    return n_wrong;
}

static void test_block_sums(void **state) {
    (void)state;
    assert_int_equal(count_wrong_sums(true), 0);
    assert_int_not_equal(count_wrong_sums(false), 0);
}

static void test_blocks(void **state) {
    (void)state;
    int n_wrong = 0;
    for (unsigned seed = 0; seed < N_SEEDS; seed++) {
        unsigned counter = 0, last = 0, results[20] = {0};
        cuda_shim_set_seed(seed);
        launch_counter(&counter, &last, 20);
        assert_int_equal(counter, 0);
        assert_int_equal(last, 19);
        launch_chain(results, 20);
        n_wrong += results[19] != 19 * 20 / 2;
    }
    assert_int_equal(n_wrong, N_SEEDS - 1); /* seed 0 runs them in order */
}

static int count_wrong_copies(int n_left) {
    enum { N = 7, N_VALID = 6, ROW = 128 };
    static _Alignas(16) uint32_t in[N * ROW], out[N * ROW];
    int n_wrong = 0;
    for (int i = 0; i < N * ROW; i++)
        in[i] = random_bits();
    for (unsigned seed = 0; seed < N_SEEDS; seed++) {
        bool wrong = false;
        cuda_shim_set_seed(seed);
        launch_copy(in, out, N, N_VALID, n_left);
        for (int i = 0; i < N * ROW; i++)
            wrong |= out[i] != (i < N_VALID * ROW ? in[i] : 0);
        n_wrong += wrong;
    }
    return n_wrong;
}

static void test_copies(void **state) {
    (void)state;
    assert_int_equal(count_wrong_copies(1), 0);
    assert_int_not_equal(count_wrong_copies(2), 0);
}

/* Runs a case in a process of its own: its status, and what it wrote to stderr. */
static int run_apart(void (*run)(int), int argument, char *text, size_t text_bytes) {
    int ends[2], status;
    fflush(NULL);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        run(argument);
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (;;) {
        char rest[256];
        bool full = n + 1 >= text_bytes;
        ssize_t got = read(ends[0], full ? rest : text + n, full ? sizeof rest : text_bytes - 1 - n);
        if (got <= 0 && errno != EINTR)
            break;
        n += full || got < 0 ? 0 : (size_t)got;
    }
    text[n] = '\0';
    close(ends[0]);
    while (waitpid(child, &status, 0) < 0)
        continue;
    return status;
}

static void expect_death(void (*run)(int), int argument, const char *message) {
    char text[20000];
    int status = run_apart(run, argument, text, sizeof text);
    bool died = (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) || (WIFEXITED(status) && WEXITSTATUS(status));
    if (!died || !strstr(text, message))
        fail_msg("case %d: status %d, not \"%s\" but: %s", argument, status, message, text);
}

static void run_fault(int fault) {
    static _Alignas(16) float memory[64];
    launch_fault((Fault)fault, memory);
}

static void test_faults(void **state) {
    (void)state;
    static const char *const messages[N_FAULTS] = {
        [FAULT_DIVERGENT_BARRIER] = "threads are at different barriers",
        [FAULT_BARRIER_OF_SOME] = "others wait at a barrier",
        [FAULT_RETURN_BEFORE_BARRIER] = "have returned",
        [FAULT_DIVERGENT_SHUFFLE] = "meet at different places",
        [FAULT_SHUFFLE_OF_SOME] = "others of its warp wait in warp_sum",
        [FAULT_RETURN_BEFORE_SHUFFLE] = "have returned",
        [FAULT_SHUFFLE_AND_BARRIER] = "no thread can go on",
        [FAULT_PART_OF_A_WARP] = "fewer than 32 lanes",
        [FAULT_MISALIGNED_LOAD] = "a misaligned address",
        [FAULT_COPY_OUT_OF_SHARED] = "16 bytes of shared memory",
        [FAULT_BLOCK_SIZE] = "blocks have 1 to 1024 threads",
        [FAULT_SHARED_SIZE] = "bytes of shared memory where 49152 may be used",
    };
    cuda_shim_set_seed(0);
    for (int fault = 0; fault < N_FAULTS; fault++)
        if (messages[fault]) {
            expect_death(run_fault, fault, messages[fault]);
            expect_death(run_fault, fault, "cuda_shim: fault_kernel, block (0, 0, 0): ");
        }
}

/* In another order, threads that returned are found by others. */
static void test_faults_of_all_orders(void **state) {
    (void)state;
    for (unsigned seed = 1; seed < N_SEEDS; seed++) {
        cuda_shim_set_seed(seed);
        for (int fault = 0; fault <= FAULT_PART_OF_A_WARP; fault++)
            expect_death(run_fault, fault, "cuda_shim: fault_kernel");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warp),
        cmocka_unit_test(test_mma),
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_fused_rounds_once),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_block_sums),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_faults_of_all_orders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
