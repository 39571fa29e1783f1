/* Every thread of a CUDA kernel as a fiber of one OS thread: the builtins that kernels use, launches, shared memory and
 * meetings of a warp. Blocks run one after another. What a GPU leaves undefined ends the program with a message that
 * names the kernel, the block, its threads and where they wait: lanes of a warp in different collectives, threads at
 * different barriers or none, threads that return while others wait, blocks and shared memory beyond the limits.
 * AddressSanitizer sees every shared array at its exact size. What it cannot find: a missing fence between blocks,
 * since all see one memory at once; and a kernel that spins until another block has done something never ends. */
#ifndef STOWKV_CUDA_SHIM_THREADS_H
#define STOWKV_CUDA_SHIM_THREADS_H

#include <algorithm>
#include <source_location>
#include <tuple>

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cuda_runtime_api.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__    __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline int2 make_int2(int x, int y) {
    return {x, y};
}
inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) {
    return {x, y, z};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

/* Of the thread that runs */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

using std::max;
using std::min;

namespace cuda_shim {

constexpr int n_lanes = 32;
constexpr size_t lane_bytes = 32;

/* Where in a kernel something is called: a last argument that callers leave out. */
using Place = std::source_location;

/* One shared array of a kernel, static in the function that declares it. */
struct SharedArray {
    unsigned long launch;
    void *memory;
};
void *shared_array(SharedArray &array, size_t size_bytes); // fresh memory once a launch, filled anew for each block
void *dynamic_shared();

/* All lanes of the running warp meet here. The last to come computes, from what each lane brought, what each takes
 * away: one switch a lane at most. Returns the lane's own. */
using Combine = void (*)(const void *in, void *out); // (32) values each
const void *meet_untyped(const char *what, const void *in, size_t in_bytes, size_t out_bytes, Combine combine,
                         const Place &place);

template <typename In, typename Out, void (*combine)(const In *in, Out *out)>
Out meet(const char *what, const In &in, const Place &place) {
    static_assert(sizeof(In) <= lane_bytes && sizeof(Out) <= lane_bytes);
    auto untyped = [](const void *all_in, void *all_out) {
        combine(static_cast<const In *>(all_in), static_cast<Out *>(all_out));
    };
    Out out;
    memcpy(&out, meet_untyped(what, &in, sizeof(In), sizeof(Out), untyped, place), sizeof out);
    return out;
}

void copy_later(void *shared, const void *global, bool valid, const Place &place);
void close_copies();
void finish_copies(size_t n_left); // but for the n_left youngest groups

int own_lane();
void check_aligned(const void *p, size_t alignment, const Place &place);

/* A launch; of a captured stream, one that is kept with a copy of its arguments. */
void launch_untyped(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                    cudaStream_t stream, void (*run)(void *), void *arguments, size_t arguments_bytes);

template <typename... Parameters, typename... Arguments>
void launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> parameters;
    } call = {kernel, std::tuple<Parameters...>(static_cast<Parameters>(arguments)...)};
    auto run = [](void *p) {
        Call *c = static_cast<Call *>(p);
        std::apply(c->kernel, c->parameters);
    };
    launch_untyped(name, reinterpret_cast<const void *>(kernel), grid, block, shared_bytes, stream, run, &call,
                   sizeof call);
}

} // namespace cuda_shim

#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                    \
    cuda_shim::launch(#kernel, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)
#define CUDA_SHARED(type, name, ...)                                                                                   \
    using name##_array = type __VA_ARGS__;                                                                             \
    static cuda_shim::SharedArray name##_shared;                                                                       \
    name##_array &name = *static_cast<name##_array *>(cuda_shim::shared_array(name##_shared, sizeof(name##_array)))
#define CUDA_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(cuda_shim::dynamic_shared())

void __syncthreads(const cuda_shim::Place &place = cuda_shim::Place::current());
void __syncwarp(const cuda_shim::Place &place = cuda_shim::Place::current());
inline void __threadfence() {}
inline void __threadfence_block() {}

/* One OS thread: nothing comes between. */
template <typename T> T atomicAdd(T *p, std::type_identity_t<T> v) {
    T old = *p;
    *p = old + v;
    return old;
}

template <typename T> T atomicMax(T *p, std::type_identity_t<T> v) {
    T old = *p;
    *p = std::max(old, v);
    return old;
}

inline unsigned atomicInc(unsigned *p, unsigned last) {
    unsigned old = *p;
    *p = old >= last ? 0 : old + 1;
    return old;
}

#endif
