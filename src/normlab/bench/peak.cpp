// The most multiply-adds that one core of this machine does: twelve independent sums, which no latency holds up.
#include <chrono>
#include <cstdint>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define SUMS 12

typedef float vec __attribute__((vector_size(4 * LANES)));

// Of float32, in GFLOP/s; a multiply-add counts two.
extern "C" __attribute__((visibility("default"))) double fma_peak(int64_t iterations) {
  volatile float unknown = 0.5f;  // to the compiler, which would do the sums itself
  const vec factor = vec{} + unknown, addend = vec{} + unknown;
  vec sum[SUMS];
  for (int i = 0; i < SUMS; ++i) sum[i] = addend + (float)i;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    _Pragma("GCC unroll 12") for (int i = 0; i < SUMS; ++i) sum[i] = sum[i] * factor + addend;
  }
  volatile float result = 0;
  for (int i = 0; i < SUMS; ++i) result = result + sum[i][i % LANES];
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return 2e-9 * LANES * SUMS * iterations / seconds.count();
}
