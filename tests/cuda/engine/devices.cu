// Uses what llama.cpp uses of each library: the runtime, cuBLAS, and the driver itself.
#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime.h>

__global__ void scale(float *values, float factor) { values[threadIdx.x] *= factor; }

int devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    return 0;
  }
  CUdevice first;
  cublasHandle_t handle;
  if (count > 0 && cuDeviceGet(&first, 0) == CUDA_SUCCESS && cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS) {
    scale<<<1, 1>>>(nullptr, 2.0f);
    cublasDestroy(handle);
  }
  return count;
}
