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

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

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

static void expect_pairs(uint16_t a, uint16_t b, uint16_t c, uint16_t sum, uint16_t fused) {
    uint32_t operands[3] = {a, b, c};
    PairResults result;
    launch_pairs(&operands[0], &operands[1], &operands[2], &result, 1);
    assert_int_equal(result.sum, sum);
    assert_int_equal(result.fused, fused);
}

static void test_special_pairs(void **state) {
    (void)state;
    const uint16_t one = 0x3c00, infinity = 0x7c00, largest = 0x7bff, nan = 0x7fff;
    expect_pairs(0x6801, one, 0, 0x6802, 0x6801);    /* 2050 + 1, between 2050 and 2052: the even one */
    expect_pairs(0x4200, 0x3556, 1, 0x42ab, 0x3c01); /* 3 * 683 / 2048 + 2^-24: above a tie by less than float has */
    expect_pairs(largest, one, infinity, largest, infinity);
    expect_pairs(largest, largest, infinity | 0x8000, infinity, infinity | 0x8000);
    expect_pairs(infinity, infinity | 0x8000, one, nan, infinity | 0x8000);
    expect_pairs(0x8000, 0x8000, 0x8000, 0x8000, 0);
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

static void test_shared_is_filled_anew(void **state) {
    (void)state;
    float seen[2 * 3];
    cuda_shim_set_seed(0);
    launch_stale(seen, 3);
    for (int i = 0; i < 2 * 3; i++)
        assert_true(isnan(seen[i]));
    cuda_shim_set_seed(1);
    launch_stale(seen, 3);
    for (int i = 0; i < 2 * 3; i++)
        assert_true(seen[i] == 0);
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
    if (status == 0 || !strstr(text, message))
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
        [FAULT_RETURN_BEFORE_BARRIER] = "a barrier after some threads have returned",
        [FAULT_DIVERGENT_SHUFFLE] = "meet at different places",
        [FAULT_SHUFFLE_OF_SOME] = "others of its warp wait in warp_sum",
        [FAULT_RETURN_BEFORE_SHUFFLE] = "after others of their warp have returned",
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

static void overflow_stack(int unused) {
    (void)unused;
    run_fault(FAULT_STACK);
}

static void overflow_static_shared(int unused) {
    (void)unused;
    run_fault(FAULT_STATIC_SHARED_BOUNDS);
}

static void *allocate(size_t size_bytes) {
    void *memory;
    assert_int_equal(cudaMalloc(&memory, size_bytes), cudaSuccess);
    return memory;
}

/* Of 9 floats, all but the last byte is there. */
static void overflow_dynamic_shared(int bytes_short) {
    launch_through_shared(allocate(36), allocate(36), 9, 36 - (size_t)bytes_short, NULL);
}

static void overflow_device(int bytes_short) {
    launch_through_shared(allocate(36 - (size_t)bytes_short), allocate(36), 9, 36, NULL);
}

static void read_on_host(int at) {
    volatile const char *memory = allocate(36);
    fprintf(stderr, "%d\n", memory[at]);
}

static void free_twice(int unused) {
    (void)unused;
    void *memory = allocate(36);
    cudaFree(memory);
    cudaFree(memory);
}

static void leak(int bytes) {
    allocate((size_t)bytes);
    exit(0);
}

static void use_destroyed_stream(int unused) {
    (void)unused;
    cudaStream_t stream;
    cudaStreamCreate(&stream);
    cudaStreamDestroy(stream);
    launch_through_shared(allocate(36), allocate(36), 9, 36, stream);
}

/* Guard pages need no sanitizer. */
static void test_stack(void **state) {
    (void)state;
    expect_death(overflow_stack, 0, "");
}

static void test_sanitized_faults(void **state) {
    (void)state;
    if (!SANITIZED)
        skip();
    char text[20000];
    assert_int_equal(run_apart(overflow_dynamic_shared, 0, text, sizeof text), 0);
    assert_int_equal(run_apart(overflow_device, 0, text, sizeof text), 0);
    expect_death(overflow_static_shared, 0, "heap-buffer-overflow");
    expect_death(overflow_dynamic_shared, 1, "heap-buffer-overflow");
    expect_death(overflow_device, 1, "heap-buffer-overflow");
    expect_death(read_on_host, 0, "use-after-poison");
    expect_death(free_twice, 0, "double-free");
    expect_death(leak, 12345, "12345 byte");
    expect_death(use_destroyed_stream, 0, "heap-use-after-free");
}

static void test_memory(void **state) {
    (void)state;
    uint8_t host[600], back[600];
    void *first, *second, *pinned;
    size_t free_bytes, total_bytes;
    cuda_shim_reset();
    cuda_shim_set_memory(1000);
    first = allocate(600);
    assert_int_equal(cudaMalloc(&second, 401), cudaErrorMemoryAllocation);
    assert_null(second);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
    assert_int_equal(free_bytes, 400);
    assert_int_equal(total_bytes, 1000);
    second = allocate(400);

    memset(host, 0xff, sizeof host);
    assert_int_equal(cudaMemcpy(back, first, 600, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_memory_equal(back, host, 600);
    for (int i = 0; i < 600; i++)
        host[i] = (uint8_t)random_bits();
    assert_int_equal(cudaMemcpy(first, host, 600, cudaMemcpyHostToDevice), cudaSuccess);
    assert_int_equal(cudaMemcpy(second, (char *)first + 200, 400, cudaMemcpyDeviceToDevice), cudaSuccess);
    assert_int_equal(cudaMemset((char *)second + 100, 7, 300), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(back, second, 400, cudaMemcpyDefault, NULL), cudaSuccess);
    assert_memory_equal(back, host + 200, 100);
    assert_int_equal(back[100], 7);
    assert_int_equal(back[399], 7);

    assert_int_equal(cudaMemcpy(host, first, 600, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy((char *)first + 1, host, 600, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemset(host, 0, 600), cudaErrorInvalidValue);
    assert_int_equal(cudaMallocHost(&pinned, 2000), cudaSuccess);
    assert_int_equal(cudaFree(pinned), cudaErrorInvalidValue);
    assert_int_equal(cudaFreeHost(pinned), cudaSuccess);
    assert_int_equal(cudaFree(first), cudaSuccess);
    assert_int_equal(cuda_shim_counts().device_bytes, 400);
    assert_int_equal(cudaFree(second), cudaSuccess);
    assert_int_equal(cudaFree(NULL), cudaSuccess);
    assert_int_equal(cuda_shim_counts().n_allocated, 0);
    assert_int_equal(cuda_shim_counts().allocations, 3);
}

static void test_devices(void **state) {
    (void)state;
    cudaDeviceProp properties;
    int n, value;
    cuda_shim_reset();
    cuda_shim_set_devices(2);
    cuda_shim_set_architecture(7, 5);
    cuda_shim_set_versions(12040, 13000);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    cuda_shim_set_versions(13040, 13000);
    assert_int_equal(cudaGetDeviceCount(&n), cudaSuccess);
    assert_int_equal(n, 2);
    assert_int_equal(cudaSetDevice(1), cudaSuccess);
    assert_int_equal(cudaGetDevice(&value), cudaSuccess);
    assert_int_equal(value, 1);
    assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
    assert_string_equal(cudaGetErrorName(cudaGetLastError()), "cudaErrorInvalidDevice");
    assert_int_equal(cudaGetDeviceProperties(&properties, 1), cudaSuccess);
    assert_int_equal(properties.major * 10 + properties.minor, 75);
    assert_int_equal(properties.sharedMemPerBlockOptin, 64 << 10);
    assert_int_equal(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
    assert_int_equal(value, 7);
    assert_int_equal(cudaDriverGetVersion(&value), cudaSuccess);
    assert_int_equal(value, 13040);
    assert_int_equal(cudaRuntimeGetVersion(&value), cudaSuccess);
    assert_int_equal(value, 13000);
    cuda_shim_set_devices(0);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    assert_int_equal(n, 0);
    cuda_shim_reset();
}

static void test_shared_limit(void **state) {
    (void)state;
    static float in[20000], out[20000];
    for (int i = 0; i < 20000; i++)
        in[i] = random_float();
    cuda_shim_reset();
    assert_int_equal(raise_shared(80000), cudaSuccess);
    launch_through_shared(in, out, 20000, sizeof in, NULL);
    assert_memory_equal(in, out, sizeof in);
    cuda_shim_set_architecture(7, 5);
    assert_int_equal(raise_shared(80000), cudaErrorInvalidValue);
    cuda_shim_reset();
}

/* Copies 9 floats to the device, through a kernel, and back, and stops at the first error. */
static cudaError_t copy_through_device(const float *in, float *out) {
    void *memory[2] = {NULL, NULL};
    cudaError_t error = cudaMalloc(&memory[0], 36);
    if (error == cudaSuccess)
        error = cudaMalloc(&memory[1], 36);
    if (error == cudaSuccess)
        error = cudaMemcpy(memory[0], in, 36, cudaMemcpyHostToDevice);
    if (error == cudaSuccess) {
        launch_through_shared(memory[0], memory[1], 9, 36, NULL);
        error = cudaGetLastError();
    }
    if (error == cudaSuccess)
        error = cudaDeviceSynchronize();
    if (error == cudaSuccess)
        error = cudaMemcpy(out, memory[1], 36, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 2; i++) {
        cudaError_t later = cudaFree(memory[i]);
        error = error == cudaSuccess ? later : error;
    }
    return error;
}

static void test_failures(void **state) {
    (void)state;
    static const cudaError_t failures[] = {cudaErrorMemoryAllocation, cudaErrorLaunchFailure};
    float in[9], out[9];
    for (int i = 0; i < 9; i++)
        in[i] = random_float();
    for (int i = 0; i < 2; i++)
        for (long n = 1; n <= 9; n++) {
            cuda_shim_reset();
            cuda_shim_fail_after(n, failures[i]);
            cudaError_t error = copy_through_device(in, out);
            bool fails = n <= 8; /* calls in all */
            assert_int_equal(cuda_shim_counts().failed, fails);
            assert_int_equal(error, fails ? failures[i] : cudaSuccess);
            assert_int_equal(cuda_shim_counts().n_allocated, 0);
            cuda_shim_fail_after(0, cudaSuccess);
            assert_int_equal(cudaDeviceSynchronize(), fails && i == 1 ? failures[i] : cudaSuccess);
            if (!fails)
                assert_memory_equal(in, out, sizeof in);
        }
    cuda_shim_reset();
}

static void test_streams(void **state) {
    (void)state;
    float in[9] = {1, 2, 3}, out[9], ms = -1;
    cudaStream_t stream;
    cudaEvent_t start, end;
    cuda_shim_reset();
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaEventCreate(&start), cudaSuccess);
    assert_int_equal(cudaEventCreate(&end), cudaSuccess);
    assert_int_equal(cudaEventElapsedTime(&ms, start, end), cudaErrorInvalidResourceHandle);
    assert_int_equal(cudaEventRecord(start, stream), cudaSuccess);
    launch_through_shared(in, out, 9, 36, stream);
    assert_int_equal(cudaEventRecord(end, stream), cudaSuccess);
    assert_int_equal(cudaEventSynchronize(end), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(cudaEventElapsedTime(&ms, start, end), cudaSuccess);
    assert_true(ms >= 0);
    assert_int_equal(cudaEventDestroy(start), cudaSuccess);
    assert_int_equal(cudaEventDestroy(end), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(stream), cudaSuccess);
    assert_int_equal(cuda_shim_counts().launches, 1);
}

/* The first test: others set seeds themselves. */
static void test_seed_of_environment(void **state) {
    (void)state;
    unsigned results[3] = {0};
    setenv("CUDA_SHIM_SEED", "1", 1);
    launch_chain(results, 3);
    assert_int_equal(results[2], 2); /* block 2 came before block 1 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_of_environment),
        cmocka_unit_test(test_warp),
        cmocka_unit_test(test_mma),
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_special_pairs),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_block_sums),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_shared_is_filled_anew),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_faults_of_all_orders),
        cmocka_unit_test(test_stack),
        cmocka_unit_test(test_sanitized_faults),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_shared_limit),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
