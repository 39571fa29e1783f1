/* See device.h. */
#include "cuda/device.h"

#include "cuda/probe.h"

#include <stdio.h>

#define OLDEST_ARCHITECTURE 75

int cuda_check(cudaError_t status, const char *what, Error *error) {
    if (status == cudaSuccess)
        return 0;
    if (status == cudaErrorMemoryAllocation)
        return error_set(error, ERROR_MEMORY, "%s: the GPU's memory is full; free some of it, or use --device cpu",
                         what);
    return error_set(error, ERROR_IO,
                     "%s: the GPU failed: %s (%s); if it is lost, see the kernel's log and start again", what,
                     cudaGetErrorString(status), cudaGetErrorName(status));
}

/* Of a device that is not open yet: another can do its work, unless it is merely full. */
static int check_opening(cudaError_t status, Error *error) {
    if (status == cudaSuccess)
        return 0;
    cudaGetLastError(); /* it is told here */
    if (status == cudaErrorMemoryAllocation)
        return cuda_check(status, "opening the GPU", error);
    return error_set(error, ERROR_UNSUPPORTED, "the GPU cannot be used: %s (%s); use --device cpu",
                     cudaGetErrorString(status), cudaGetErrorName(status));
}

static int check_driver(bool *is_there, Error *error) {
    int n_devices = 0, driver = 0, runtime = 0;
    cudaError_t status = cudaGetDeviceCount(&n_devices);
    cudaGetLastError(); /* a failure to find a device is no failure of a device */
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    *is_there = driver > 0 && status != cudaErrorNoDevice && (status != cudaSuccess || n_devices > 0);
    if (!*is_there)
        return error_set(error, ERROR_UNSUPPORTED,
                         "there is no NVIDIA GPU with a driver on this machine; use --device cpu");
    if (status == cudaErrorInsufficientDriver)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the GPU's driver supports CUDA %d.%d, this program needs %d.%d; update the driver, or use "
                         "--device cpu",
                         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return check_opening(status, error);
}

static int check_architecture(const CudaDevice *device, Error *error) {
    if (device->architecture >= OLDEST_ARCHITECTURE)
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s has compute capability %d.%d, and %d.%d is the least that is supported; use --device cpu",
                     device->name, device->architecture / 10, device->architecture % 10, OLDEST_ARCHITECTURE / 10,
                     OLDEST_ARCHITECTURE % 10);
}

/* Neither its code nor such as the driver can make its code of. */
static bool lacks_kernels(cudaError_t status) {
    return status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
           status == cudaErrorUnsupportedPtxVersion || status == cudaErrorJitCompilerNotFound;
}

static int check_kernels(const CudaDevice *device, Error *error) {
    cuda_probe(device->stream);
    cudaError_t status = cudaGetLastError();
    if (lacks_kernels(status))
        return error_set(error, ERROR_UNSUPPORTED,
                         "this program has no kernels for %s (sm_%d); build it with "
                         "-DCMAKE_CUDA_ARCHITECTURES=%d, or use --device cpu",
                         device->name, device->architecture, device->architecture);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(device->stream);
    return check_opening(status, error);
}

int cuda_device_probe(CudaDevice *device, bool *is_there, Error *error) {
    struct cudaDeviceProp properties;
    *device = (CudaDevice){.stream = NULL};
    if (check_driver(is_there, error) < 0 || check_opening(cudaGetDeviceProperties(&properties, 0), error) < 0)
        return error->code;
    snprintf(device->name, sizeof device->name, "%s", properties.name);
    device->architecture = properties.major * 10 + properties.minor;
    device->n_multiprocessors = (size_t)properties.multiProcessorCount;
    snprintf(device->description, sizeof device->description, "%s, sm_%d", device->name, device->architecture);
    return check_architecture(device, error);
}

int cuda_device_open(CudaDevice *device, Error *error) {
    bool is_there;
    if (cuda_device_probe(device, &is_there, error) < 0 || check_opening(cudaSetDevice(0), error) < 0 ||
        check_opening(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), error) < 0)
        return error->code;
    if (check_kernels(device, error) == 0)
        return 0;
    cuda_device_close(device);
    return error->code;
}

void cuda_device_close(CudaDevice *device) {
    if (device->stream != NULL)
        cudaStreamDestroy(device->stream);
    device->stream = NULL;
}

void *cuda_device_allocate(CudaDevice *device, size_t size_bytes, const char *what, Error *error) {
    void *memory = NULL;
    size_t free_bytes = 0, total_bytes = 0;
    cudaError_t status = cudaMalloc(&memory, size_bytes > 0 ? size_bytes : 1);
    if (status == cudaSuccess)
        status = cudaMemsetAsync(memory, 0, size_bytes, device->stream);
    if (status == cudaSuccess)
        return memory;
    cudaFree(memory);
    cudaGetLastError();
    if (status != cudaErrorMemoryAllocation) {
        cuda_check(status, what, error);
        return NULL;
    }
    cudaMemGetInfo(&free_bytes, &total_bytes);
    error_set(error, ERROR_MEMORY,
              "%s needs %.1f MB of the GPU's memory, of which %.1f MB are free; free some, use "
              "less (a smaller --n_ctx, a quantized cache, a smaller model), or use --device cpu",
              what, (double)size_bytes / 1e6, (double)free_bytes / 1e6);
    return NULL;
}

void cuda_device_release(void *memory) {
    if (memory != NULL)
        cudaFree(memory);
}
