// The upper half of a float, rounded to the nearest, ties to even.
#pragma once
struct __nv_bfloat16_raw { unsigned short x; };
struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float v) {
        const unsigned u = host_bits<unsigned>(v);
        bits = std::isnan(v) ? 0x7fff : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
    __nv_bfloat16(double v) : __nv_bfloat16((float)v) {}
    __nv_bfloat16(const __nv_bfloat16_raw& v) : bits(v.x) {}
    operator float() const { return host_bits<float>((unsigned)bits << 16); }
    operator __nv_bfloat16_raw() const { return {bits}; }
};
static __nv_bfloat16 __float2bfloat16(float v) { return v; }
static float __bfloat162float(__nv_bfloat16 v) { return v; }
static unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
static __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) { return __nv_bfloat16_raw{v}; }
static bool __hisnan(__nv_bfloat16 v) { return std::isnan((float)v); }
static int __hisinf(__nv_bfloat16 v) { return std::isinf((float)v); }
