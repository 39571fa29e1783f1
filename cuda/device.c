/* See device.h. */
#include "cuda/device.h"

#include "cuda/probe.h"

#include <stdio.h>

#define OLDEST_ARCHITECTURE 75

int cuda_check(cudaError_t status, const char *what, Error *error) {
    if (status == cudaSuccess)
        return 0;
    return error_set(error, status == cudaErrorMemoryAllocation ? ERROR_MEMORY : ERROR_IO,
                     "%s: the GPU failed: %s (%s); if it is lost, see the kernel's log and start again", what,
                     cudaGetErrorString(status), cudaGetErrorName(status));
}

static int check_driver(Error *error) {
    int n_devices = 0, driver = 0, runtime = 0;
    cudaError_t status = cudaGetDeviceCount(&n_devices);
    cudaGetLastError(); /* a failure to find a device is no failure of a device */
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (status == cudaErrorInsufficientDriver && driver > 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the GPU's driver supports CUDA %d.%d, this program needs %d.%d; update the driver, or use "
                         "--device cpu",
                         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (status == cudaSuccess && n_devices > 0)
        return 0;
    if (status == cudaSuccess || status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver)
        return error_set(error, ERROR_UNSUPPORTED,
                         "there is no NVIDIA GPU with a driver on this machine; use --device cpu");
    return error_set(error, ERROR_UNSUPPORTED, "the GPU cannot be used: %s; use --device cpu",
                     cudaGetErrorString(status));
}

static int check_architecture(const CudaDevice *device, Error *error) {
    if (device->architecture < OLDEST_ARCHITECTURE)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s has compute capability %d.%d, and %d.%d is the least that is supported; use --device cpu",
                         device->name, device->architecture / 10, device->architecture % 10, OLDEST_ARCHITECTURE / 10,
                         OLDEST_ARCHITECTURE % 10);
    cuda_probe(device->stream);
    cudaError_t status = cudaGetLastError();
    if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction)
        return error_set(error, ERROR_UNSUPPORTED,
                         "this program has no kernels for %s (sm_%d); build it with "
                         "-DCMAKE_CUDA_ARCHITECTURES=%d, or use --device cpu",
                         device->name, device->architecture, device->architecture);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(device->stream);
    return cuda_check(status, "opening the GPU", error);
}

int cuda_device_open(CudaDevice *device, Error *error) {
    struct cudaDeviceProp properties;
    *device = (CudaDevice){.stream = NULL};
    if (check_driver(error) < 0 || cuda_check(cudaGetDeviceProperties(&properties, 0), "opening the GPU", error) < 0 ||
        cuda_check(cudaSetDevice(0), "opening the GPU", error) < 0 ||
        cuda_check(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "opening the GPU", error) < 0)
        return error->code;
    snprintf(device->name, sizeof device->name, "%s", properties.name);
    device->architecture = properties.major * 10 + properties.minor;
    device->n_multiprocessors = (size_t)properties.multiProcessorCount;
    snprintf(device->description, sizeof device->description, "%s, sm_%d", device->name, device->architecture);
    if (check_architecture(device, error) == 0)
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
              "%s needs %.1f MB of the GPU's memory, of which %.1f MB are free; free some, or use "
              "less: a smaller --n_ctx, a quantized cache, a smaller model",
              what, (double)size_bytes / 1e6, (double)free_bytes / 1e6);
    return NULL;
}

void cuda_device_release(void *memory) {
    if (memory != NULL)
        cudaFree(memory);
}
