/* Where memory is nearer to some threads than to others: pages are touched before they are used, by those who will use
 * them, and nothing in them changes. Which node a page lies on can be seen on machines with several alone; one is
 * qemu-system-x86_64 -smp 4 -numa node,cpus=0-1 -numa node,cpus=2-3. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "base/machine/cpu_nodes.h"
#include "base/machine/pages.h"
#include "cpu/backend.h"
#include "cpu/products.h"
#include "kvcache/kvcache.h"
#include "kvcache/policy_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static size_t page_bytes(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Zeroed, none of it touched, in ordinary pages. */
static uint8_t *map(size_t size_bytes) {
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(memory != MAP_FAILED);
    pages_ask(memory, size_bytes, PAGES_ORDINARY);
    return memory;
}

/* Pages of [memory, memory + size_bytes) that have been touched; memory begins a page. */
static size_t count_touched(uint8_t *memory, size_t size_bytes) {
    size_t n_pages = (size_bytes + page_bytes() - 1) / page_bytes(), n = 0;
    unsigned char *resident = calloc(n_pages, 1);
    assert_int_equal(mincore(memory, size_bytes, resident), 0);
    for (size_t i = 0; i < n_pages; i++)
        n += resident[i] & 1u;
    free(resident);
    return n;
}

static void test_touch(void **state) {
    (void)state;
    size_t page = page_bytes();
    const size_t ranges[][3] = {{0, 1, 1}, {page - 1, 2, 2}, {page / 2, page, 2}, {page, page, 1}, {1, 3 * page, 4}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        uint8_t *memory = map(8 * page);
        pages_touch(memory + ranges[i][0], 0);
        assert_int_equal(count_touched(memory, 8 * page), 0);
        pages_touch(memory + ranges[i][0], ranges[i][1]);
        assert_int_equal(count_touched(memory, 8 * page), ranges[i][2]);
        memset(memory, 0xa5, 8 * page);
        pages_touch(memory, 8 * page);
        for (size_t at = 0; at < 8 * page; at++)
            assert_int_equal(memory[at], 0xa5);
        munmap(memory, 8 * page);
    }
}

/* ---- The cache */

enum { N_LAYERS = 2, N_KV_HEADS = 2, DIM = 64, N_CTX = 4000, N_BATCH = 1, STEP = 256 };

/* One by one: tails are as long as they can be then. */
static void feed(KvCache *cache, size_t n_tokens) {
    static const float rows[N_KV_HEADS][DIM];
    for (; cache->n_tokens < n_tokens; kvcache_advance(cache, 1))
        for (size_t layer = 0; layer < N_LAYERS; layer++)
            for (size_t head = 0; head < N_KV_HEADS; head++) {
                kvcache_append(cache, layer, head, 1, &(KvRows){.keys = rows[0], .values = rows[0]});
                kvcache_commit(cache, layer, head, 1);
            }
}

/* Tokens come into pages that have been touched, and no more were touched than tokens use in the end. */
static void check_cache(const char *text, size_t n_tokens) {
    Error error = {0};
    KvPolicy policy = kv_policy_full();
    KvShape shape = {N_LAYERS, N_KV_HEADS, DIM, N_CTX, N_BATCH, {{0}}, 0};
    KvCache cache;
    if (kv_policy_parse(text, &policy, &error) < 0 ||
        kvcache_open(&cache, &shape, &policy, &KV_PLAIN_RECORDS, &error) < 0)
        fail_msg("%s", error.message);
    size_t bytes = kvcache_bytes(&cache), kept = cache.layout.kept_bytes / page_bytes() * page_bytes();
    uint8_t *memory = map(bytes);
    kvcache_set_memory(&cache, memory);
    for (size_t end = STEP; end - STEP < n_tokens; end += STEP) {
        for (size_t head = 0; head < N_KV_HEADS; head++)
            kvcache_touch(&cache, head, end - STEP, end);
        size_t touched = count_touched(memory, kept);
        assert_true(end > STEP || touched > 0);
        feed(&cache, end);
        if (count_touched(memory, kept) != touched)
            fail_msg("%s: %zu tokens use %zu pages, %zu were touched", text, end, count_touched(memory, kept), touched);
    }
    size_t touched = count_touched(memory, kept);
    munmap(memory, bytes);
    memory = map(bytes);
    kvcache_set_memory(&cache, memory);
    kvcache_clear(&cache);
    feed(&cache, (n_tokens + STEP - 1) / STEP * STEP);
    if (touched > count_touched(memory, kept))
        fail_msg("%s: %zu pages touched, %zu used", text, touched, count_touched(memory, kept));
    kvcache_close(&cache);
    munmap(memory, bytes);
}

static void test_cache(void **state) {
    (void)state;
    check_cache("f16:*", 2000);
    check_cache("sink=16,f16:32,int8:*", 3800);
    check_cache("sink=300,f16:500,int8/q4_0:1000,nf4:*", 3800);
    check_cache("sink=4,f16:100,q8_0:200", 9000); /* rings that are gone through several times */
}

/* ---- Nodes */

static int node_of(const void *address) {
    void *page = (void *)((uintptr_t)address / page_bytes() * page_bytes());
    int node = -1;
    assert_int_equal(syscall(SYS_move_pages, 0, 1L, &page, NULL, &node, 0), 0);
    return node;
}

/* Pages of a size that lie inside the run are on the thread's node. Returns how many there are. */
static size_t check_run(const uint8_t *begin, const uint8_t *end, size_t page, int node) {
    size_t n = 0;
    for (uintptr_t at = round_up((uintptr_t)begin, page); at + page <= (uintptr_t)end; at += page, n++)
        if (node_of((const void *)at) != node)
            fail_msg("page %zu of a thread's run is on node %d, the thread on node %d", n, node_of((const void *)at),
                     node);
    return n;
}

static Tensor make_tensor(size_t n_columns, size_t n_rows) { // F32, all zero
    size_t bytes = n_columns * n_rows * sizeof(float);
    return (Tensor){
        .type = TYPE_F32, .n_dims = 2, .shape = {n_columns, n_rows, 1, 1}, .data = map(bytes), .size_bytes = bytes};
}

/* Two matrices of one product: the panels of both, one matrix behind the other, shared out as they are read. */
static size_t check_weights(int n_threads, size_t n_columns, size_t n_rows) {
    Error error = {0};
    CpuNodes nodes;
    ThreadPool *pool;
    CpuMatmul matmul;
    Tensor a = make_tensor(n_columns, n_rows), b = make_tensor(n_columns, n_rows / 2), *tensors[] = {&a, &b};
    assert_int_equal(thread_pool_open(&pool, n_threads, &error), 0);
    cpu_nodes_read(&nodes, "", cpu_allowed());
    cpu_matmul_open(&matmul, SIMD_SCALAR, pool);
    assert_int_equal(cpu_weights_pack(&matmul.weights, tensors, 2, &error), 0);
    size_t page = (a.size_bytes + b.size_bytes) / (size_t)n_threads < HUGE_PAGE_BYTES ? page_bytes() : HUGE_PAGE_BYTES;
    size_t first = 0, n_pages = 0, total = n_rows / PANEL_ROWS + n_rows / 2 / PANEL_ROWS;
    for (size_t i = 0; i < 2; i++) {
        const PackedMatrix *packed = tensors[i]->uploaded;
        for (int thread = 0; thread < n_threads; thread++) {
            size_t begin = total * (size_t)thread / (size_t)n_threads, n = packed->n_panels;
            size_t end = total * (size_t)(thread + 1) / (size_t)n_threads;
            begin = begin < first ? 0 : begin - first < n ? begin - first : n;
            end = end < first ? 0 : end - first < n ? end - first : n;
            n_pages += check_run(packed->data + begin * packed->panel_bytes, packed->data + end * packed->panel_bytes,
                                 page, cpu_nodes_of_thread(&nodes, thread, n_threads));
        }
        first += packed->n_panels;
        munmap((void *)(uintptr_t)tensors[i]->data, tensors[i]->size_bytes);
    }
    thread_pool_close(pool);
    cpu_matmul_close(&matmul);
    return n_pages;
}

/* Containers may forbid the question. */
static bool nodes_are_hidden(void) {
    CpuNodes nodes;
    void *page = map(page_bytes());
    int node = -1;
    cpu_nodes_read(&nodes, "", cpu_allowed());
    bool refused = syscall(SYS_move_pages, 0, 1L, &page, NULL, &node, 0) != 0;
    munmap(page, page_bytes());
    if (nodes.n_nodes == 1 || refused)
        print_message("%s: nothing to see\n",
                      refused ? "the system does not tell the node of a page" : "this machine has one memory node");
    return nodes.n_nodes == 1 || refused;
}

static void test_weights(void **state) {
    (void)state;
    size_t n_pages = 0;
    if (nodes_are_hidden())
        skip();
    for (int n_threads = 2; n_threads <= 5; n_threads++)
        for (size_t rows = 64; rows <= 4096; rows *= 4)
            n_pages += check_weights(n_threads, 1024, rows);
    assert_true(n_pages > 1000);
}

/* The caller appends tokens one by one; their keys still lie on the node of the thread whose share has the KV head. */
static void check_cache_of_backend(int n_threads, size_t n_kv_heads) {
    Error error = {0};
    CpuNodes nodes;
    Backend *b;
    KvPolicy policy = kv_policy_full();
    KvShape shape = {N_LAYERS, n_kv_heads, DIM, N_CTX, N_BATCH, {{0}}, 0};
    KvCache cache;
    float *rows = calloc(n_kv_heads * DIM, sizeof *rows);
    size_t n_tokens = 600, n_pages = 0;
    cpu_nodes_read(&nodes, "", cpu_allowed());
    assert_int_equal(cpu_backend_open(&b, SIMD_SCALAR, n_threads, &error), 0);
    assert_int_equal(kvcache_open(&cache, &shape, &policy, b->records, &error), 0);
    void *memory = b->ops->allocate(b, kvcache_bytes(&cache), "the cache", &error);
    kvcache_set_memory(&cache, memory);
    for (; cache.n_tokens < n_tokens; kvcache_advance(&cache, 1)) {
        b->ops->begin(b, &cache, &(const int32_t){1}, 1, NULL);
        for (size_t layer = 0; layer < N_LAYERS; layer++) {
            b->ops->append(b, &cache, layer, 1, n_kv_heads, ROPE_HALVES, NULL, rows, rows, rows);
            for (size_t head = 0; head < n_kv_heads; head++)
                kvcache_commit(&cache, layer, head, 1);
        }
    }
    for (size_t layer = 0; layer < N_LAYERS; layer++)
        for (int thread = 0; thread < n_threads; thread++) {
            size_t begin = n_kv_heads * (size_t)thread / (size_t)n_threads;
            size_t end = n_kv_heads * (size_t)(thread + 1) / (size_t)n_threads;
            for (size_t head = begin; head < end; head++) {
                const KvArray *tail = &cache.layout.layers[layer].stores[KV_TIER(0)].array[KV_KEYS];
                const uint8_t *keys = cache.memory + kv_array_at(tail, head, 0);
                n_pages += check_run(keys, keys + n_tokens * tail->slot_bytes, page_bytes(),
                                     cpu_nodes_of_thread(&nodes, thread, n_threads));
            }
        }
    assert_true(n_pages > N_LAYERS * n_kv_heads * (n_tokens * DIM * sizeof *rows / 2 / page_bytes() - 2));
    b->ops->release(b, memory, kvcache_bytes(&cache));
    kvcache_close(&cache);
    b->ops->close(b);
    free(rows);
}

static void test_cache_of_backend(void **state) {
    (void)state;
    if (nodes_are_hidden())
        skip();
    for (int n_threads = 2; n_threads <= 5; n_threads++)
        for (size_t n_kv_heads = 1; n_kv_heads <= 9; n_kv_heads += 2)
            check_cache_of_backend(n_threads, n_kv_heads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_touch),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_cache_of_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
