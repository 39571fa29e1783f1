/* What a machine offers: probes that fail, names of instruction sets, quotas of control groups, and memory nodes. */
#include "base/machine/cpu.h"
#include "base/machine/cpu_nodes.h"
#include "base/machine/cpu_quota.h"
#include "base/machine/cpu_try.h"
#include "base/simd/detect.h"
#include "base/simd/probe.h"

#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
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
    assert_null(strstr(error.message, "avx2, avx2")); /* a name is one choice */
    assert_null(strstr(error.message, "avx512, avx512"));
    assert_string_equal(simd_level_name(SIMD_AVX2_VNNI), "avx2");
    assert_string_equal(simd_level_name(SIMD_AVX512_VNNI), "avx512");
    assert_string_not_equal(simd_level_features(SIMD_AVX2_VNNI), simd_level_features(SIMD_AVX2));
    assert_string_not_equal(simd_level_features(SIMD_AVX512_VNNI), simd_level_features(SIMD_AVX512));
}

/* Each has what tells it from all others, and none runs that was not compiled in. */
static void test_all_levels(void **state) {
    (void)state;
    static CpuProbe *const PROBES[SIMD_LEVEL_COUNT] = SIMD_TABLE(simd_probe);
    expect_probes(0);
    assert_true(cpu_runs(SIMD_SCALAR));
    for (SimdLevel level = 0; level < SIMD_LEVEL_COUNT; level++) {
        assert_true(strlen(simd_level_name(level)) > 0);
        for (SimdLevel other = 0; other < level; other++)
            assert_string_not_equal(simd_level_features(level), simd_level_features(other));
        assert_true(PROBES[level] != NULL || !cpu_runs(level));
    }
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

/* ---- Files of the kernel's */

static char root[] = "/tmp/test_cpu.XXXXXX";

static void put(const char *path, const char *text) { // under root; makes the folders
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *at = strchr(full + sizeof root, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(full, 0777);
        *at = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_root(void **state) {
    (void)state;
    strcpy(root + strlen(root) - 6, "XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

/* ---- Quotas */

static void test_quota_v2(void **state) {
    (void)state;
    assert_int_equal(cpu_quota(root), INT_MAX); /* no control groups at all */
    put("/proc/self/cgroup", "0::/\n");
    assert_int_equal(cpu_quota(root), INT_MAX);
    put("/sys/fs/cgroup/cpu.max", "max 100000\n");
    assert_int_equal(cpu_quota(root), INT_MAX);
    static const struct {
        const char *text;
        int expected;
    } CASES[] = {{"200000 100000\n", 2}, {"150000 100000\n", 2}, {"1000 100000\n", 1},
                 {"50000 50000", 1},     {"garbage\n", INT_MAX}, {"200000 0\n", INT_MAX},
                 {"", INT_MAX},          {"200000", INT_MAX},    {"9000000000000000000 1\n", INT_MAX}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        put("/sys/fs/cgroup/cpu.max", CASES[i].text);
        assert_int_equal(cpu_quota(root), CASES[i].expected);
    }
}

/* The smallest on the way up, wherever it is, and no further than the mount. */
static void test_quota_of_parents(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/machine.slice/a:b/job\n");
    put("/sys/fs/cgroup/machine.slice/a:b/job/cpu.max", "800000 100000\n");
    put("/sys/fs/cgroup/machine.slice/a:b/other/cpu.max", "100000 100000\n");
    put("/sys/fs/cpu.max", "100000 100000\n");
    assert_int_equal(cpu_quota(root), 8);
    put("/sys/fs/cgroup/machine.slice/a:b/cpu.max", "300000 100000\n");
    put("/sys/fs/cgroup/machine.slice/cpu.max", "max 100000\n");
    assert_int_equal(cpu_quota(root), 3);
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(cpu_quota(root), 2);
    put("/proc/self/cgroup", "0::/not/visible/here");
    assert_int_equal(cpu_quota(root), 2);
}

static void test_quota_v1(void **state) {
    (void)state;
    put("/proc/self/cgroup", "12:cpuset:/x\n4:cpuacct,cpu:/docker/7\n1:name=systemd:/docker/7\n0::/docker/7\nbroken\n");
    put("/sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us", "100000\n"); /* not a hierarchy of the CPU controller */
    put("/sys/fs/cgroup/cpuset/x/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpu_quota(root), INT_MAX);
    put("/sys/fs/cgroup/cpuacct,cpu/docker/7/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpuacct,cpu/docker/7/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpu_quota(root), INT_MAX);
    put("/sys/fs/cgroup/cpuacct,cpu/docker/7/cpu.cfs_quota_us", "610000\n");
    assert_int_equal(cpu_quota(root), 7);
    put("/sys/fs/cgroup/cpuacct,cpu/docker/cpu.cfs_quota_us", "400000\n"); /* a quota without its period is none */
    assert_int_equal(cpu_quota(root), 7);
    put("/sys/fs/cgroup/cpuacct,cpu/docker/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpu_quota(root), 4);
}

/* ---- Lists and nodes */

static void test_lists(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected; /* digits: the CPUs below 10 that are listed */
    } CASES[] = {{"0\n", "0"},
                 {"0-3\n", "0123"},
                 {"0-1,4,7-9\n", "014789"},
                 {"2,5", "25"},
                 {"3-3\n", "3"},
                 {"0-1023\n", "0123456789"},
                 {"8-1000000\n", "89"},
                 {"1,5000\n", "1"},
                 {"\n", NULL},
                 {"", NULL},
                 {"cpus\n", NULL},
                 {"-3\n", NULL},
                 {"2000\n", NULL}};
    char path[512];
    bool listed[CPU_MAX];
    snprintf(path, sizeof path, "%s/list", root);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char found[16] = "";
        put("/list", CASES[i].text);
        assert_int_equal(cpu_list_read(path, listed), CASES[i].expected != NULL);
        for (int cpu = 0; cpu < 10; cpu++)
            if (listed[cpu])
                found[strlen(found)] = (char)('0' + cpu);
        assert_string_equal(found, CASES[i].expected == NULL ? "" : CASES[i].expected);
    }
    remove(path);
    assert_false(cpu_list_read(path, listed));
}

static CpuNodes nodes_of(const char *mask) { // '1' where a CPU may be used
    bool allowed[CPU_MAX] = {false};
    CpuNodes nodes;
    for (size_t cpu = 0; mask[cpu] != '\0'; cpu++)
        allowed[cpu] = mask[cpu] == '1';
    cpu_nodes_read(&nodes, root, allowed);
    return nodes;
}

static void check_threads(const CpuNodes *nodes, int n_threads, const char *expected) { // a digit for each thread
    for (int thread = 0; thread < n_threads; thread++)
        assert_int_equal(cpu_nodes_of_thread(nodes, thread, n_threads), expected[thread] - '0');
}

/* Two sockets whose hyper-threads are numbered behind all cores, a node of memory alone, one that is not online. */
static void test_nodes(void **state) {
    (void)state;
    CpuNodes nodes = nodes_of("11111111");
    assert_int_equal(nodes.n_nodes, 1); /* the system tells of none */
    check_threads(&nodes, 3, "000");
    put("/sys/devices/system/node/online", "0,2-4\n");
    put("/sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
    put("/sys/devices/system/node/node1/cpulist", "9\n");
    put("/sys/devices/system/node/node2/cpulist", "2-3,6-7\n");
    put("/sys/devices/system/node/node3/cpulist", "\n");
    put("/sys/devices/system/node/node4/cpulist", "8,10-12\n");
    nodes = nodes_of("11111111");
    assert_int_equal(nodes.n_nodes, 2);
    check_threads(&nodes, 1, "0");
    check_threads(&nodes, 2, "02");
    check_threads(&nodes, 3, "002");
    check_threads(&nodes, 8, "00002222");
    check_threads(&nodes, 10, "0000022222"); /* more threads than CPUs */
    nodes = nodes_of("1111111111111");
    assert_int_equal(nodes.n_nodes, 3);
    check_threads(&nodes, 6, "002244");
    nodes = nodes_of("1011001101000"); /* what of each node may be used: 1, 4 and none */
    assert_int_equal(nodes.n_nodes, 2);
    assert_int_equal(nodes.n_cpus, 5);
    check_threads(&nodes, 5, "02222");
    nodes = nodes_of("0011");
    assert_int_equal(nodes.n_nodes, 1);
    check_threads(&nodes, 2, "22");
    nodes = nodes_of("");
    assert_int_equal(nodes.n_nodes, 1);
    check_threads(&nodes, 2, "00");
}

static void test_cores(void **state) {
    (void)state;
    int cores = cpu_physical_cores();
    assert_true(cores >= 1 && cores <= cpu_quota("") && cores <= sysconf(_SC_NPROCESSORS_CONF));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_try),
        cmocka_unit_test(test_other_signals),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_all_levels),
        cmocka_unit_test(test_refused_levels),
        cmocka_unit_test_setup_teardown(test_quota_v2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_quota_of_parents, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_quota_v1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_lists, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_nodes, make_root, remove_root),
        cmocka_unit_test(test_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
