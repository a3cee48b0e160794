// What kernels of CuPy's use beside what host.h has: each is compiled for the host, and started by pointers to its arguments.
#define half host_half  // kernels bring their own, or that of cuda_fp16.h
#define shared_words host_shared
#include "host.h"
#undef half
#undef shared_words
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <initializer_list>
#include <type_traits>
#include <utility>

#undef __global__
#define __global__
#define __CUDACC_VER_MAJOR__ 12
#define __CUDACC_RTC__
#define __CUDA_ARCH__ 900
#define __host__
#define __managed__
#define __noinline__
#define __align__(n) alignas(n)
#define __grid_constant__

namespace host {
// A kernel's arguments, each where its pointer says.
template <typename... A, size_t... I> void call(void (*kernel)(A...), void** given, std::index_sequence<I...>) {
    kernel(*(std::remove_reference_t<A>*)given[I]...);
}
template <typename... A> void call(void (*kernel)(A...), void** given) {
    call(kernel, given, std::index_sequence_for<A...>());
}
template <typename... A> unsigned sizes(void (*)(A...), size_t* to) {
    unsigned n = 0;
    ((to[n++] = sizeof(A)), ...);
    return n;
}
static void** given;
}  // namespace host

// What -fsanitize=alignment calls.
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1_abort(void*, void*) {
    host::fail("an address that is not a multiple of the size of what is read or written there");
    abort();
}

#define KERNEL(name, kernel)                                                                                        \
    extern "C" unsigned sizes_##name(size_t* to) { return host::sizes(kernel, to); }                                \
    extern "C" bool waits_##name = WAITS;                                                                           \
    extern "C" const char* start_##name(void** given, const unsigned* shape, unsigned shared, bool backwards) {     \
        if (shared > sizeof host_shared) return "more dynamic shared memory than there is";                         \
        host::given = given;                                                                                        \
        return host::run([] { host::call(kernel, host::given); }, shape, WAITS, backwards, shared);                        \
    }

// Instructions of PTX that kernels contain.
static unsigned long long ptx_globaltimer() {  // nanoseconds, of which a tenth of a second passes between two looks at it
    static unsigned long long now;
    return now += 100000000;
}
static float ptx_cvt_f32_f16(unsigned short bits) { return host_bits<host_half>(bits); }
static unsigned short ptx_cvt_rn_f16_f32(float v) { return host_bits<unsigned short>(host_half(v)); }
static unsigned short ptx_cvt_rn_bf16_f32(float v) {  // NaN as NVIDIA writes it
    const unsigned bits = host_bits<unsigned>(v);
    return v != v ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static int __popc(unsigned x) { return __builtin_popcount(x); }
static int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static int __ffs(int x) { return __builtin_ffs(x); }
static int __ffsll(long long x) { return __builtin_ffsll(x); }
static int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static void __threadfence_block() {}
static unsigned __activemask() { return 0xffffffffu; }
// Of one type each, so that what is added converts to it.
static int atomicAdd(int* place, int v) { return atomicAdd<int>(place, v); }
static unsigned atomicAdd(unsigned* place, unsigned v) { return atomicAdd<unsigned>(place, v); }
static unsigned long long atomicAdd(unsigned long long* place, unsigned long long v) {
    return atomicAdd<unsigned long long>(place, v);
}
static float atomicAdd(float* place, float v) { return atomicAdd<float>(place, v); }
static double atomicAdd(double* place, double v) { return atomicAdd<double>(place, v); }
template <typename V> V __ldcg(const V* p) { return *p; }
using std::acos; using std::acosh; using std::asin; using std::asinh; using std::atanh; using std::cbrt; using std::cosh;
using std::frexp; using std::hypot; using std::ldexp; using std::lgamma; using std::log10; using std::logb;
using std::modf; using std::nearbyint; using std::nextafter; using std::remainder; using std::rint; using std::signbit;
using std::sinh; using std::tan; using std::tgamma; using std::trunc;
static double erfinv(double y);
static float erfinvf(float y) { return (float)erfinv(y); }
static double erfcinv(double y) { return erfinv(1 - y); }
static double erfinv(double y) {  // Newton's steps from Winitzki's approximation
    if (y <= -1 || y >= 1) return y == 1 ? INFINITY : y == -1 ? -INFINITY : NAN;
    const double l = std::log1p(-y * y), a = 2 / (3.141592653589793 * 0.147) + l / 2;
    double x = std::copysign(std::sqrt(std::sqrt(a * a - l / 0.147) - a), y);
    for (int i = 0; i < 4; i++) x -= (std::erf(x) - y) / (1.1283791670955126 * std::exp(-x * x));
    return x;
}
static double sinpi(double x) {  // exactly 0 at integers
    const double r = std::remainder(x, 2), half = r > 0.5 ? 1 - r : r < -0.5 ? -1 - r : r;
    return std::sin(3.141592653589793 * half);
}
static float sinpif(float x) { return (float)sinpi(x); }
static double cospi(double x) { return sinpi(0.5 - std::fabs(std::remainder(x, 2))); }
static float cospif(float x) { return (float)cospi(x); }
static double normcdf(double x) { return std::erfc(-x / 1.4142135623730951) / 2; }
static float __fdividef(float a, float b) { return a / b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static double __ddiv_rn(double a, double b) { return a / b; }
static float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
static float __fsqrt_rn(float a) { return std::sqrt(a); }
static double __dsqrt_rn(double a) { return std::sqrt(a); }
#define __expf(x) std::exp((float)(x))
#define __logf(x) std::log((float)(x))
