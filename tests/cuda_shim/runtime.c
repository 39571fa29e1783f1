/* The simulated runtime of tests/cuda_shim/cuda_runtime_api.h. Device memory is the heap's, at exact sizes, filled with
 * 0xff; AddressSanitizer sees accesses beyond it, frees of freed memory, leaks, and, since device memory is open only
 * while a kernel or a copy runs, the host's accesses to it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/cuda_shim/device.h"
#include "tests/cuda_shim/graph.h"
#include "tests/cuda_shim/shim.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define HIDE(p, size_bytes) __asan_poison_memory_region(p, size_bytes)
#define SHOW(p, size_bytes) __asan_unpoison_memory_region(p, size_bytes)
#else
#define HIDE(p, size_bytes) ((void)(p), (void)(size_bytes))
#define SHOW(p, size_bytes) ((void)(p), (void)(size_bytes))
#endif

#define SHARED_DEFAULT_BYTES  (48u << 10)
#define SHARED_RESERVED_BYTES 1024
#define ALIGNMENT_BYTES       256 /* cudaMalloc()'s */
#define HIDDEN_MAX_BYTES      (64u << 10)
#define KERNELS_MAX           256

/* The address is kept inverted: to the search for leaks, this list does not count. */
typedef struct Allocation {
    struct Allocation *next;
    uintptr_t inverted_address;
    size_t size_bytes;
    bool is_device;
} Allocation;

#define STREAM_MARK 0x5354524d

struct CUevent_st {
    struct timespec when;
    bool is_recorded;
};

typedef struct SharedLimit {
    const void *kernel;
    size_t size_bytes;
} SharedLimit;

typedef struct Settings {
    size_t memory_bytes;
    int n_devices;
    int driver, runtime;
    int major, minor;
    bool has_blas;
} Settings;

static const Settings first_settings = {(size_t)1 << 40, 1, 13000, 13000, 9, 0, true};

static struct {
    bool is_set;
    Settings settings;
    Allocation *allocations;
    CudaShimCounts counts;
    long n_before_failure; /* 0: none is wished */
    cudaError_t failure;
    cudaError_t last, lasting;
    int device;
    SharedLimit limits[KERNELS_MAX];
    size_t n_limits;
} shim;

static Settings *settings(void) {
    if (!shim.is_set)
        shim.settings = first_settings;
    shim.is_set = true;
    return &shim.settings;
}

void cuda_shim_set_memory(size_t size_bytes) {
    settings()->memory_bytes = size_bytes;
}

void cuda_shim_set_devices(int n) {
    settings()->n_devices = n;
}

void cuda_shim_set_versions(int driver, int runtime) {
    settings()->driver = driver;
    settings()->runtime = runtime;
}

void cuda_shim_set_architecture(int major, int minor) {
    settings()->major = major;
    settings()->minor = minor;
}

void cuda_shim_set_blas(bool is_there) {
    settings()->has_blas = is_there;
}

bool cuda_shim_has_blas(void) {
    return settings()->has_blas;
}

void cuda_shim_fail_after(long n_calls, cudaError_t error) {
    shim.n_before_failure = n_calls;
    shim.failure = error;
    shim.counts.failed = false;
}

void cuda_shim_reset(void) {
    shim.settings = first_settings;
    shim.is_set = true;
    shim.counts = (CudaShimCounts){.device_bytes = shim.counts.device_bytes, .n_allocated = shim.counts.n_allocated};
    shim.n_before_failure = 0;
    shim.last = shim.lasting = cudaSuccess;
    shim.device = 0;
    shim.n_limits = 0;
}

CudaShimCounts cuda_shim_counts(void) {
    return shim.counts;
}

/* Errors of the device stay; others are forgotten when they have been told. */
static bool is_lasting(cudaError_t error) {
    switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

cudaError_t cuda_shim_fail(cudaError_t error) {
    if (error != cudaSuccess)
        shim.last = error;
    if (is_lasting(error))
        shim.lasting = error;
    return error;
}

/* At the beginning of each call: the error that it fails with whatever it is asked. */
cudaError_t cuda_shim_count_call(void) {
    settings();
    shim.counts.calls++;
    if (shim.n_before_failure > 0 && --shim.n_before_failure == 0) {
        shim.counts.failed = true;
        return cuda_shim_fail(shim.failure);
    }
    if (shim.lasting != cudaSuccess)
        return shim.lasting;
    if (shim.settings.n_devices == 0)
        return cuda_shim_fail(cudaErrorNoDevice);
    return cudaSuccess;
}

/* NULL is the default stream. */
static void check_stream(cudaStream_t stream) {
    if (!stream || stream->mark == STREAM_MARK)
        return;
    fprintf(stderr, "cuda_shim: a stream that was destroyed, or never created\n");
    abort();
}

static Allocation **find(const void *memory) {
    Allocation **place = &shim.allocations;
    while (*place && (*place)->inverted_address != ~(uintptr_t)memory)
        place = &(*place)->next;
    return place;
}

/* The device memory that all of the bytes are in; NULL: they are the host's. */
static const Allocation *find_device(const void *p, size_t size_bytes) {
    for (const Allocation *a = shim.allocations; a; a = a->next) {
        uintptr_t offset = (uintptr_t)p - ~a->inverted_address;
        if (a->is_device && offset <= a->size_bytes && size_bytes <= a->size_bytes - offset)
            return a;
    }
    return NULL;
}

bool cuda_shim_is_device_memory(const void *memory, size_t size_bytes) {
    return find_device(memory, size_bytes) != NULL;
}

/* Device memory is hidden from the host by its first bytes, where who reads it by mistake begins. */
static size_t hidden_bytes(const Allocation *a) {
    return a->size_bytes < HIDDEN_MAX_BYTES ? a->size_bytes : HIDDEN_MAX_BYTES;
}

static void hide(const Allocation *a) {
    if (a && a->is_device)
        HIDE((void *)~a->inverted_address, hidden_bytes(a));
}

static void show(const Allocation *a) {
    if (a && a->is_device)
        SHOW((void *)~a->inverted_address, hidden_bytes(a));
}

static cudaError_t allocate(void **memory, size_t size_bytes, bool is_device_memory) {
    cudaError_t error = cuda_shim_count_call();
    *memory = NULL;
    if (cuda_shim_n_captured() > 0)
        return cuda_shim_fail(cudaErrorStreamCaptureUnsupported);
    if (error != cudaSuccess || size_bytes == 0)
        return error;
    if (is_device_memory && size_bytes > shim.settings.memory_bytes - shim.counts.device_bytes)
        return cuda_shim_fail(cudaErrorMemoryAllocation);
    Allocation *made = malloc(sizeof *made);
    void *bytes = NULL;
    if (!made || posix_memalign(&bytes, ALIGNMENT_BYTES, size_bytes) != 0) {
        free(made);
        return cuda_shim_fail(cudaErrorMemoryAllocation);
    }
    memset(bytes, 0xff, size_bytes);
    *made = (Allocation){shim.allocations, ~(uintptr_t)bytes, size_bytes, is_device_memory};
    shim.allocations = made;
    shim.counts.allocations++;
    hide(made);
    if (is_device_memory) {
        shim.counts.device_bytes += size_bytes;
        shim.counts.n_allocated++;
    }
    *memory = bytes;
    return cudaSuccess;
}

/* Frees even where the call fails, so that tests of failures can look for leaks. Memory that is not allocated goes to
 * free(): AddressSanitizer tells where it was freed before. */
static cudaError_t release(void *memory, bool is_device_memory) {
    cudaError_t error = cuda_shim_count_call();
    if (!memory)
        return error;
    Allocation **place = find(memory), *found = *place;
    if (!found) {
        free(memory);
        return cuda_shim_fail(cudaErrorInvalidValue);
    }
    if (found->is_device != is_device_memory)
        return cuda_shim_fail(cudaErrorInvalidValue);
    *place = found->next;
    show(found);
    if (is_device_memory) {
        shim.counts.device_bytes -= found->size_bytes;
        shim.counts.n_allocated--;
    }
    free(memory);
    free(found);
    return error;
}

cudaError_t cudaMalloc(void **memory, size_t size_bytes) {
    return allocate(memory, size_bytes, true);
}

cudaError_t cudaFree(void *memory) {
    return release(memory, true);
}

cudaError_t cudaMallocHost(void **memory, size_t size_bytes) {
    return allocate(memory, size_bytes, false);
}

cudaError_t cudaFreeHost(void *memory) {
    return release(memory, false);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    cudaError_t error = cuda_shim_count_call();
    *free_bytes = *total_bytes = 0;
    if (error == cudaSuccess) {
        *total_bytes = shim.settings.memory_bytes;
        *free_bytes = *total_bytes - shim.counts.device_bytes;
    }
    return error;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size_bytes, cudaMemcpyKind kind) {
    cudaError_t error = cuda_shim_count_call();
    if (error != cudaSuccess || size_bytes == 0)
        return error;
    const Allocation *to_device = find_device(to, size_bytes), *from_device = find_device(from, size_bytes);
    bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && (wants_to != !!to_device || wants_from != !!from_device))
        return cuda_shim_fail(cudaErrorInvalidValue);
    show(to_device);
    show(from_device);
    memcpy(to, from, size_bytes);
    hide(to_device);
    hide(from_device);
    return cudaSuccess;
}

typedef struct Copy {
    void *to;
    const void *from;
    size_t size_bytes;
    cudaMemcpyKind kind;
} Copy;

static void redo_copy(void *data, cudaStream_t stream) {
    const Copy *copy = data;
    (void)stream;
    cudaMemcpy(copy->to, copy->from, copy->size_bytes, copy->kind);
}

/* Whether the host may read or write it in a graph: it is pinned. */
static bool is_pinned(const void *p) {
    for (const Allocation *a = shim.allocations; a; a = a->next)
        if (!a->is_device && (uintptr_t)p - ~a->inverted_address < a->size_bytes)
            return true;
    return false;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size_bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    check_stream(stream);
    if (!cuda_shim_is_captured(stream))
        return cudaMemcpy(to, from, size_bytes, kind);
    cudaError_t error = cuda_shim_count_call();
    if (error != cudaSuccess)
        return error;
    if ((kind == cudaMemcpyHostToDevice && !is_pinned(from)) || (kind == cudaMemcpyDeviceToHost && !is_pinned(to)))
        return cuda_shim_fail(cudaErrorStreamCaptureUnsupported);
    cuda_shim_capture(stream, redo_copy, &(Copy){to, from, size_bytes, kind}, sizeof(Copy));
    return cudaSuccess;
}

cudaError_t cudaMemset(void *memory, int byte, size_t size_bytes) {
    cudaError_t error = cuda_shim_count_call();
    if (error != cudaSuccess || size_bytes == 0)
        return error;
    const Allocation *device = find_device(memory, size_bytes);
    if (!device)
        return cuda_shim_fail(cudaErrorInvalidValue);
    show(device);
    memset(memory, byte, size_bytes);
    hide(device);
    return cudaSuccess;
}

typedef struct Fill {
    void *memory;
    int byte;
    size_t size_bytes;
} Fill;

static void redo_fill(void *data, cudaStream_t stream) {
    const Fill *fill = data;
    (void)stream;
    cudaMemset(fill->memory, fill->byte, fill->size_bytes);
}

cudaError_t cudaMemsetAsync(void *memory, int byte, size_t size_bytes, cudaStream_t stream) {
    check_stream(stream);
    if (!cuda_shim_is_captured(stream))
        return cudaMemset(memory, byte, size_bytes);
    cudaError_t error = cuda_shim_count_call();
    if (error == cudaSuccess)
        cuda_shim_capture(stream, redo_fill, &(Fill){memory, byte, size_bytes}, sizeof(Fill));
    return error;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    cudaError_t error = cuda_shim_count_call();
    (void)flags;
    *stream = NULL;
    if (error != cudaSuccess)
        return error;
    *stream = malloc(sizeof **stream);
    if (!*stream)
        return cuda_shim_fail(cudaErrorMemoryAllocation);
    **stream = (struct CUstream_st){STREAM_MARK, NULL};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    cudaError_t error = cuda_shim_count_call();
    check_stream(stream);
    if (cuda_shim_is_captured(stream)) {
        cudaGraph_t graph;
        if (cudaStreamEndCapture(stream, &graph) == cudaSuccess)
            cudaGraphDestroy(graph);
    }
    if (stream)
        stream->mark = 0;
    free(stream);
    return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    check_stream(stream);
    return cuda_shim_is_captured(stream) ? cuda_shim_fail(cudaErrorStreamCaptureUnsupported) : cuda_shim_count_call();
}

cudaError_t cudaDeviceSynchronize(void) {
    return cuda_shim_count_call();
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    cudaError_t error = cuda_shim_count_call();
    (void)flags;
    *event = NULL;
    if (error != cudaSuccess)
        return error;
    *event = calloc(1, sizeof **event);
    return *event ? cudaSuccess : cuda_shim_fail(cudaErrorMemoryAllocation);
}

/* The stream's work is done when it is given, so an event has come when it is recorded. */
static void come(void *data, cudaStream_t stream) {
    cudaEvent_t event = *(cudaEvent_t *)data;
    (void)stream;
    clock_gettime(CLOCK_MONOTONIC, &event->when);
    event->is_recorded = true;
}

/* In a capture a plain event orders its nodes, and an external one is a node; outside there is nothing to be external
 * to. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    cudaError_t error = cuda_shim_count_call();
    check_stream(stream);
    if (error != cudaSuccess)
        return error;
    bool is_captured = cuda_shim_is_captured(stream), is_external = (flags & cudaEventRecordExternal) != 0;
    if (is_external && !is_captured)
        return cuda_shim_fail(cudaErrorInvalidValue);
    if (!is_captured)
        come(&event, stream);
    else if (is_external)
        cuda_shim_capture(stream, come, &event, sizeof event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    (void)event->is_recorded;
    return cuda_shim_count_call();
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    cudaError_t error = cuda_shim_count_call();
    *ms = 0;
    if (error != cudaSuccess)
        return error;
    if (!start->is_recorded || !end->is_recorded)
        return cuda_shim_fail(cudaErrorInvalidResourceHandle);
    *ms = (float)((double)(end->when.tv_sec - start->when.tv_sec) * 1e3 +
                  (double)(end->when.tv_nsec - start->when.tv_nsec) * 1e-6);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    cudaError_t error = cuda_shim_count_call();
    free(event);
    return error;
}

/* A driver runs the runtimes of its own major version and of those before. */
cudaError_t cudaGetDeviceCount(int *n) {
    cudaError_t error = cuda_shim_count_call();
    if (error == cudaSuccess && settings()->driver / 1000 < settings()->runtime / 1000)
        error = cudaErrorInsufficientDriver;
    *n = error == cudaSuccess ? shim.settings.n_devices : 0;
    return error;
}

static bool is_a_device(int device) {
    return device >= 0 && device < shim.settings.n_devices;
}

cudaError_t cudaSetDevice(int device) {
    cudaError_t error = cuda_shim_count_call();
    if (error != cudaSuccess)
        return error;
    if (!is_a_device(device))
        return cuda_shim_fail(cudaErrorInvalidDevice);
    shim.device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    cudaError_t error = cuda_shim_count_call();
    *device = shim.device;
    return error;
}

/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": shared memory of a multiprocessor. */
static size_t shared_of_multiprocessor(void) {
    int version = settings()->major * 10 + settings()->minor;
    switch (version) {
    case 75:
        return 64 << 10;
    case 80:
    case 87:
        return 164 << 10;
    case 86:
    case 89:
        return 100 << 10;
    default:
        return version >= 120 ? 100 << 10 : 228 << 10;
    }
}

size_t cuda_shim_largest_shared_limit(void) {
    size_t whole = shared_of_multiprocessor();
    return whole == 64 << 10 ? whole : whole - SHARED_RESERVED_BYTES;
}

size_t cuda_shim_shared_limit(const void *kernel) {
    for (size_t i = 0; i < shim.n_limits; i++)
        if (shim.limits[i].kernel == kernel && shim.limits[i].size_bytes > SHARED_DEFAULT_BYTES)
            return shim.limits[i].size_bytes;
    return SHARED_DEFAULT_BYTES;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    cudaError_t error = cuda_shim_count_call();
    if (error != cudaSuccess || attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return error;
    if (value < 0 || (size_t)value > cuda_shim_largest_shared_limit())
        return cuda_shim_fail(cudaErrorInvalidValue);
    size_t i = 0;
    while (i < shim.n_limits && shim.limits[i].kernel != kernel)
        i++;
    if (i == KERNELS_MAX)
        return cuda_shim_fail(cudaErrorUnknown);
    shim.limits[i] = (SharedLimit){kernel, (size_t)value};
    shim.n_limits += i == shim.n_limits;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    cudaError_t error = cuda_shim_count_call();
    if (error != cudaSuccess)
        return error;
    if (!is_a_device(device))
        return cuda_shim_fail(cudaErrorInvalidDevice);
    *properties = (cudaDeviceProp){
        .totalGlobalMem = shim.settings.memory_bytes,
        .sharedMemPerBlock = SHARED_DEFAULT_BYTES,
        .regsPerBlock = 65536,
        .warpSize = 32,
        .maxThreadsPerBlock = 1024,
        .major = shim.settings.major,
        .minor = shim.settings.minor,
        .multiProcessorCount = 4,
        .memoryBusWidth = 256,
        .l2CacheSize = 4 << 20,
        .sharedMemPerMultiprocessor = shared_of_multiprocessor(),
        .sharedMemPerBlockOptin = cuda_shim_largest_shared_limit(),
    };
    snprintf(properties->name, sizeof properties->name, "Simulated GPU %d", device);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error != cudaSuccess)
        return error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = properties.maxThreadsPerBlock;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)properties.sharedMemPerBlock;
        return cudaSuccess;
    case cudaDevAttrWarpSize:
        *value = properties.warpSize;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = properties.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrIntegrated:
        *value = properties.integrated;
        return cudaSuccess;
    case cudaDevAttrL2CacheSize:
        *value = properties.l2CacheSize;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = properties.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = properties.minor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)properties.sharedMemPerMultiprocessor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)properties.sharedMemPerBlockOptin;
        return cudaSuccess;
    }
    return cuda_shim_fail(cudaErrorInvalidValue);
}

/* These two answer without a device, the driver's with 0 where there is none. */
cudaError_t cudaDriverGetVersion(int *version) {
    *version = settings()->driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = settings()->runtime;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = cudaPeekAtLastError();
    shim.last = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    return shim.lasting != cudaSuccess ? shim.lasting : shim.last;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorJitCompilerNotFound, "cudaErrorJitCompilerNotFound", "PTX JIT compiler library not found"},
    {cudaErrorUnsupportedPtxVersion, "cudaErrorUnsupportedPtxVersion",
     "the provided PTX was compiled with an unsupported toolchain."},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorName(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].error == error)
            return errors[i].name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].error == error)
            return errors[i].text;
    return "unrecognized error code";
}

bool cuda_shim_begin_launch(cudaStream_t stream) {
    check_stream(stream);
    shim.counts.launches++;
    if (cuda_shim_count_call() != cudaSuccess)
        return false;
    for (const Allocation *a = shim.allocations; a; a = a->next)
        show(a);
    return true;
}

void cuda_shim_end_launch(void) {
    for (const Allocation *a = shim.allocations; a; a = a->next)
        hide(a);
}
