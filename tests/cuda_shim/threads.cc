/* The scheduler of tests/cuda_shim/threads.h. A thread runs until it waits for others, and then switches straight to
 * one that can go on: one warp goes as far as it can before the next one starts, which shows most missing barriers; the
 * seed picks who is next. Fibers and their stacks are kept from block to block and launch to launch. */
#include "tests/cuda_shim/threads.h"

#include <bit>
#include <numeric>
#include <string>
#include <vector>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/cuda_shim/device.h"
#include "tests/cuda_shim/shim.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

extern "C" void cuda_shim_switch(void **save_stack_pointer, void *stack_pointer);

namespace cuda_shim {
namespace {

constexpr int max_threads = 1024, max_warps = max_threads / n_lanes;
constexpr size_t stack_bytes = 256 << 10, guard_bytes = 64 << 10;

/* What runs on a stack of its own: a thread, or the program that launched the kernel. */
struct Context {
    void *stack_pointer;
    void *fake_stack; // AddressSanitizer's, of locals in use after return
    const void *bottom;
    size_t size_bytes;
};

struct Copy {
    void *to;
    const void *from; // NULL: zeros
};

struct Thread {
    Context context;
    uint3 index;
    int number; // in its block
    bool returned;
    const char *waits_in; // NULL: for nothing
    Place place;
    std::vector<Copy> copies;
    std::vector<size_t> groups; // the number of copies in each that is under way, oldest first
    size_t n_open;              // copies behind the last group
};

struct Warp {
    uint32_t ready; // lanes that could run now
    int n_met;      // lanes that wait in a meeting
    int n_returned;
    const char *what; // the meeting
    Place place;
    alignas(16) unsigned char in[n_lanes * lane_bytes], out[n_lanes * lane_bytes];
};

struct Shared {
    unsigned char *memory;
    size_t size_bytes;
};

struct Launch {
    const char *kernel;
    void (*run)(void *);
    void *arguments;
    unsigned long number;
    size_t shared_limit;
    std::vector<Shared> shared; // the first is the dynamic one
    int n_threads;
    // The block that runs
    uint32_t ready_warps;
    int n_running;
    int n_at_barrier;
    Place barrier;
};

Thread threads[max_threads];
Warp warps[max_warps];
Launch launched;
bool launching;
Context program;
Context *running = &program, *before;
Thread *current;

unsigned seed;
bool seed_is_set;
uint32_t random_state;

uint32_t random_bits() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

void read_seed() {
    const char *text = getenv("CUDA_SHIM_SEED");
    if (!seed_is_set)
        seed = text ? (unsigned)strtoul(text, NULL, 10) : 0;
    seed_is_set = true;
}

unsigned char first_content() {
    static const unsigned char bytes[] = {0xff, 0x00, 0x7f}; // NaN; zero; a large number, and NaN of halves
    return bytes[seed % 3];
}

bool wait_alike(const Thread &a, const Thread &b) {
    return a.returned == b.returned && a.waits_in == b.waits_in && (!a.waits_in || a.place.line() == b.place.line());
}

[[noreturn]] void fail(const std::string &what) {
    fprintf(stderr, "cuda_shim: %s, block (%u, %u, %u): %s\n", launched.kernel, blockIdx.x, blockIdx.y, blockIdx.z,
            what.c_str());
    if (current)
        fprintf(stderr, "Thread %d found it. Where threads are:\n", current->number);
    for (int i = 0, next; i < launched.n_threads; i = next) {
        for (next = i + 1; next < launched.n_threads && wait_alike(threads[i], threads[next]); next++)
            continue;
        const Thread &thread = threads[i];
        fprintf(stderr, "  %d to %d: ", i, next - 1);
        if (thread.returned)
            fprintf(stderr, "returned\n");
        else if (thread.waits_in)
            fprintf(stderr, "%s, %s:%u\n", thread.waits_in, thread.place.file_name(), thread.place.line());
        else
            fprintf(stderr, "not waiting\n");
    }
    abort();
}

[[noreturn]] void fail_at(const Place &place, const char *what) {
    fail(std::string(what) + ", at " + place.file_name() + ":" + std::to_string(place.line()));
}

/* The first thing on the stack that was switched to. What AddressSanitizer tells of the stack before is news only of
 * the program's. */
inline void arrive() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(running->fake_stack, &before->bottom, &before->size_bytes);
#endif
}

__attribute__((no_sanitize("address"))) void switch_to(Context &to) {
    Context &from = *running;
    before = &from;
    running = &to;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size_bytes);
#endif
    cuda_shim_switch(&from.stack_pointer, to.stack_pointer);
    arrive();
}

void switch_to(Thread &thread) {
    Warp &warp = warps[thread.number / n_lanes];
    warp.ready &= ~(1u << thread.number % n_lanes);
    if (!warp.ready)
        launched.ready_warps &= ~(1u << thread.number / n_lanes);
    threadIdx = thread.index;
    if (current == &thread)
        return;
    current = &thread;
    switch_to(thread.context);
}

void make_ready(int warp, uint32_t lanes) {
    warps[warp].ready |= lanes;
    launched.ready_warps |= lanes ? 1u << warp : 0;
}

int pick(uint32_t set) {
    if (seed == 0)
        return std::countr_zero(set);
    if (seed == 1)
        return 31 - std::countl_zero(set);
    int first = (int)(random_bits() % 32);
    return (first + std::countr_zero(std::rotr(set, first))) % 32;
}

/* To a thread of the same warp, mostly, as long as one can run. */
void run_next() {
    if (!launched.ready_warps)
        fail("no thread can go on");
    int warp = current ? current->number / n_lanes : 0;
    if (!warps[warp].ready || (seed > 1 && random_bits() % 8 == 0))
        warp = pick(launched.ready_warps);
    switch_to(threads[warp * n_lanes + pick(warps[warp].ready)]);
}

void finish_thread() {
    Warp &warp = warps[current->number / n_lanes];
    current->returned = true;
    warp.n_returned++;
    launched.n_running--;
    if (launched.n_at_barrier)
        fail("a thread returns while others wait at a barrier");
    if (warp.n_met)
        fail(std::string("a lane returns while others of its warp wait in ") + warp.what);
    if (launched.n_running) {
        run_next();
    } else {
        current = NULL;
        switch_to(program);
    }
}

void run_threads() {
    arrive();
    for (;;) {
        launched.run(launched.arguments);
        finish_thread();
    }
}

#if defined(__x86_64__)
asm(R"(
.text
.globl cuda_shim_switch
.type cuda_shim_switch, @function
cuda_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_shim_switch, . - cuda_shim_switch
)");

/* Zeros in the six registers, the address to return to, and none above it for those who unwind the stack. */
void *first_stack_pointer(unsigned char *end, void (*function)()) {
    void **top = reinterpret_cast<void **>(end - 64);
    *--top = NULL;
    *--top = reinterpret_cast<void *>(function);
    return top - 6;
}
#elif defined(__aarch64__)
asm(R"(
.text
.globl cuda_shim_switch
.type cuda_shim_switch, %function
cuda_shim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size cuda_shim_switch, . - cuda_shim_switch
)");

/* Zeros in all registers but the link register, x30. */
void *first_stack_pointer(unsigned char *end, void (*function)()) {
    unsigned char *top = end - 64 - 160;
    void *link = reinterpret_cast<void *>(function);
    memcpy(top + 88, &link, sizeof link);
    return top;
}
#else
#error "tests/cuda_shim switches contexts on x86-64 and aarch64"
#endif

/* A stack between two guards. */
void make_context(Context &context) {
    size_t whole = stack_bytes + 2 * guard_bytes;
    void *memory = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory for stacks");
    unsigned char *bottom = static_cast<unsigned char *>(memory) + guard_bytes;
    if (mprotect(bottom, stack_bytes, PROT_READ | PROT_WRITE) < 0)
        fail("no memory for stacks");
    context = {first_stack_pointer(bottom + stack_bytes, run_threads), NULL, bottom, stack_bytes};
}

void start_thread(int number) {
    Thread &thread = threads[number];
    if (!thread.context.bottom)
        make_context(thread.context);
    unsigned x = (unsigned)number % blockDim.x, rest = (unsigned)number / blockDim.x;
    thread.index = {x, rest % blockDim.y, rest / blockDim.y};
    thread.number = number;
    thread.returned = false;
    thread.waits_in = NULL;
    thread.copies.clear();
    thread.groups.clear();
    thread.n_open = 0;
}

void run_block(uint3 index) {
    blockIdx = index;
    launched.n_running = launched.n_threads;
    launched.n_at_barrier = 0;
    launched.ready_warps = 0;
    for (const Shared &shared : launched.shared)
        memset(shared.memory, first_content(), shared.size_bytes);
    for (int i = 0; i < launched.n_threads; i++)
        start_thread(i);
    for (int warp = 0; warp * n_lanes < launched.n_threads; warp++) {
        int n = std::min(n_lanes, launched.n_threads - warp * n_lanes);
        warps[warp].ready = 0;
        warps[warp].n_met = warps[warp].n_returned = 0;
        make_ready(warp, n == n_lanes ? ~0u : (1u << n) - 1);
    }
    run_next();
}

/* Numbers of all blocks, x first, in the order of the seed. */
std::vector<uint32_t> order_blocks(size_t n) {
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    if (seed == 1)
        std::reverse(order.begin(), order.end());
    for (size_t i = n - 1; seed > 1 && i > 0; i--)
        std::swap(order[i], order[random_bits() % (i + 1)]);
    return order;
}

void check_shape(dim3 grid, dim3 block) {
    size_t n = (size_t)block.x * block.y * block.z;
    if (n == 0 || n > max_threads || block.z > 64)
        fail("blocks have 1 to 1024 threads, 64 at most in z");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
        fail("grids have 1 to 2147483647 blocks in x, 1 to 65535 in y and z");
}

/* Static shared memory has 48 KiB at most; with the dynamic one, it keeps within what the launch may ask for. */
void add_shared(size_t size_bytes) {
    size_t sum = size_bytes;
    for (const Shared &shared : launched.shared)
        sum += shared.size_bytes;
    if (sum > launched.shared_limit)
        fail(std::to_string(sum) + " bytes of shared memory where " + std::to_string(launched.shared_limit) +
             " may be used: cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, n) raises that");
    unsigned char *memory = static_cast<unsigned char *>(malloc(size_bytes));
    if (!memory)
        fail("no memory for shared memory");
    memset(memory, first_content(), size_bytes);
    launched.shared.push_back({memory, size_bytes});
}

bool is_shared(const void *p, size_t size_bytes) {
    uintptr_t address = reinterpret_cast<uintptr_t>(p);
    for (const Shared &shared : launched.shared) {
        uintptr_t first = reinterpret_cast<uintptr_t>(shared.memory);
        if (address >= first && address + size_bytes <= first + shared.size_bytes)
            return true;
    }
    return false;
}

void copy_now(const Copy &copy) {
    if (copy.from)
        memcpy(copy.to, copy.from, 16);
    else
        memset(copy.to, 0, 16);
}

} // namespace

namespace {

constexpr size_t most_argument_bytes = 4096; // CUDA's own limit

struct KeptLaunch {
    const char *name;
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    void (*run)(void *);
    size_t arguments_bytes;
    alignas(16) unsigned char arguments[most_argument_bytes];
};

void redo_launch(void *data, cudaStream_t stream) {
    KeptLaunch *kept = static_cast<KeptLaunch *>(data);
    launch_untyped(kept->name, kept->kernel, kept->grid, kept->block, kept->shared_bytes, stream, kept->run,
                   kept->arguments, kept->arguments_bytes);
}

} // namespace

void launch_untyped(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                    cudaStream_t stream, void (*run)(void *), void *arguments, size_t arguments_bytes) {
    if (cuda_shim_is_captured(stream)) {
        KeptLaunch kept = {name, kernel, grid, block, shared_bytes, run, arguments_bytes, {}};
        if (arguments_bytes > most_argument_bytes)
            fail(std::string("too many arguments: ") + name);
        memcpy(kept.arguments, arguments, arguments_bytes);
        cuda_shim_capture(stream, redo_launch, &kept, sizeof kept);
        return;
    }
    if (launching)
        fail(std::string("kernels launch no kernels: ") + name);
    launched.kernel = name;
    launched.n_threads = 0;
    current = NULL;
    blockIdx = {0, 0, 0};
    check_shape(grid, block);
    if (!cuda_shim_begin_launch(stream))
        return;
    launching = true;
    read_seed();
    launched.run = run;
    launched.arguments = arguments;
    launched.number++;
    random_state = (seed + 1) * 2654435761u ^ (uint32_t)launched.number * 40503u;
    random_state += random_state == 0;
    launched.shared_limit = cuda_shim_shared_limit(kernel);
    add_shared(shared_bytes);
    launched.n_threads = (int)(block.x * block.y * block.z);
    gridDim = grid;
    blockDim = block;
    for (uint32_t i : order_blocks((size_t)grid.x * grid.y * grid.z))
        run_block({i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y});
    for (const Shared &shared : launched.shared)
        free(shared.memory);
    launched.shared.clear();
    launching = false;
    cuda_shim_end_launch();
}

void *shared_array(SharedArray &array, size_t size_bytes) {
    if (array.launch != launched.number) {
        add_shared(size_bytes);
        array = {launched.number, launched.shared.back().memory};
    }
    return array.memory;
}

void *dynamic_shared() {
    return launched.shared[0].memory;
}

int own_lane() {
    return current->number % n_lanes;
}

void check_aligned(const void *p, size_t alignment, const Place &place) {
    if (reinterpret_cast<uintptr_t>(p) % alignment)
        fail_at(place, "a misaligned address");
}

const void *meet_untyped(const char *what, const void *in, size_t in_bytes, size_t out_bytes, Combine combine,
                         const Place &place) {
    Warp &warp = warps[current->number / n_lanes];
    int lane = own_lane();
    if ((current->number / n_lanes + 1) * n_lanes > launched.n_threads)
        fail_at(place, "a warp of fewer than 32 lanes meets");
    if (warp.n_returned)
        fail_at(place, "lanes meet after others of their warp have returned");
    if (warp.n_met && (warp.what != what || warp.place.line() != place.line()))
        fail_at(place, "lanes of a warp meet at different places");
    warp.what = what;
    warp.place = place;
    memcpy(warp.in + (size_t)lane * in_bytes, in, in_bytes);
    if (++warp.n_met < n_lanes) {
        current->waits_in = what;
        current->place = place;
        run_next();
        current->waits_in = NULL;
    } else {
        combine(warp.in, warp.out);
        warp.n_met = 0;
        make_ready(current->number / n_lanes, ~(1u << lane));
    }
    return warp.out + (size_t)lane * out_bytes;
}

void copy_later(void *shared, const void *global, bool valid, const Place &place) {
    check_aligned(shared, 16, place);
    check_aligned(global, 16, place);
    if (!is_shared(shared, 16))
        fail_at(place, "copy_16_async goes to 16 bytes of shared memory");
    Copy copy = {shared, valid ? global : NULL};
    if (seed == 1 || (seed > 1 && random_bits() % 2)) {
        copy_now(copy);
    } else {
        current->copies.push_back(copy);
        current->n_open++;
    }
}

void close_copies() {
    current->groups.push_back(current->n_open);
    current->n_open = 0;
}

void finish_copies(size_t n_left) {
    std::vector<size_t> &groups = current->groups;
    size_t n_groups = groups.size() > n_left ? groups.size() - n_left : 0;
    size_t n = std::accumulate(groups.begin(), groups.begin() + (ptrdiff_t)n_groups, (size_t)0);
    for (size_t i = 0; i < n; i++)
        copy_now(current->copies[i]);
    groups.erase(groups.begin(), groups.begin() + (ptrdiff_t)n_groups);
    current->copies.erase(current->copies.begin(), current->copies.begin() + (ptrdiff_t)n);
}

} // namespace cuda_shim

using namespace cuda_shim;

void __syncthreads(const Place &place) {
    if (launched.n_running != launched.n_threads)
        fail_at(place, "a barrier after some threads have returned");
    if (launched.n_at_barrier && launched.barrier.line() != place.line())
        fail_at(place, "threads are at different barriers");
    launched.barrier = place;
    if (++launched.n_at_barrier < launched.n_threads) {
        current->waits_in = "__syncthreads";
        current->place = place;
        run_next();
        current->waits_in = NULL;
        return;
    }
    launched.n_at_barrier = 0;
    for (int warp = 0; warp * n_lanes < launched.n_threads; warp++) {
        int n = std::min(n_lanes, launched.n_threads - warp * n_lanes);
        make_ready(warp, n == n_lanes ? ~0u : (1u << n) - 1);
    }
    run_next();
}

static void nothing(const char *in, char *out) {
    memcpy(out, in, n_lanes);
}

void __syncwarp(const Place &place) {
    meet<char, char, nothing>("__syncwarp", 0, place);
}

void cuda_shim_set_seed(unsigned new_seed) {
    seed = new_seed;
    seed_is_set = true;
}
