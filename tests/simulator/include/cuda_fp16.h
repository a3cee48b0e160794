// NVIDIA's type of 16 bits, for kernels of CuPy's. Kobai's bring their own.
#pragma once
struct __half_raw { unsigned short x; };
struct half {
    host_half value;
    half() = default;
    half(float v) : value(v) {}
    template <typename V, typename = std::enable_if_t<std::is_arithmetic<V>::value>> explicit half(V v) : value((float)v) {}
    half(const __half_raw& v) : value(host_bits<host_half>(v.x)) {}
    operator float() const { return value; }
    operator __half_raw() const { return {host_bits<unsigned short>(value)}; }
};
using __half = half;
static half __float2half(float v) { return v; }
static half __float2half_rn(float v) { return v; }
static float __half2float(half v) { return v; }
static unsigned short __half_as_ushort(half v) { return host_bits<unsigned short>(v); }
static half __ushort_as_half(unsigned short v) { return __half_raw{v}; }
static bool __hisnan(half v) { return std::isnan((float)v); }
static int __hisinf(half v) { return std::isinf((float)v); }
