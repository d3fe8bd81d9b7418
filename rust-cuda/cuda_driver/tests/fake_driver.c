/* A stand-in for libcuda.so.1: every function proves that its arguments arrived as they were passed. */
#include <stdint.h>

typedef int CUresult;

CUresult cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }

CUresult cuDriverGetVersion(int *version) {
    *version = 12345;
    return 0;
}

CUresult cuDeviceGetCount(int *count) {
    *count = 3;
    return 0;
}

/* Eleven arguments: six travel in registers on x86-64 and eight on aarch64, the others on the stack. */
CUresult cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                        void *stream, void **parameters, void **extra) {
    uint64_t seen[11] = {(uintptr_t)function, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                         shared, (uintptr_t)stream, (uintptr_t)parameters, (uintptr_t)extra};
    for (int i = 0; i < 11; i++)
        if (seen[i] != 1001u + (unsigned)i)
            return 700 + i;
    return 0;
}

/* A 64-bit value, and an error code that only this function returns. */
CUresult cuMemsetD32Async(uint64_t address, unsigned value, uint64_t count, void *stream) {
    return address == 0x123456789abcdef0u && value == 7 && count == 0xfedcba9876543210u && !stream
               ? 0
               : 719;
}

CUresult cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    *milliseconds = 0.25f;
    return start == end ? 0 : 600;
}
