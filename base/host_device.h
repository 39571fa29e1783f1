/* Functions that hosts and GPUs compile from one source: plans, places, codes. A header of them is written in what C
 * and CUDA C++ have in common. */
#ifndef STOWKV_HOST_DEVICE_H
#define STOWKV_HOST_DEVICE_H

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

#endif
