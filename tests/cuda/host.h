// CUDA C on the host: the threads of a block are coroutines that run one after the other from barrier to barrier.
//
// What the hardware would leave undefined stops here with a message: a shuffle that part of a warp does not reach, threads
// that wait at different barriers. Threads can run in either order, which shows many races; shared memory starts as NaN.
#include <cmath>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

#ifdef RACES  // see races.h
#include <unordered_map>
extern char __start_kobai_host __attribute__((visibility("hidden"))), __stop_kobai_host __attribute__((visibility("hidden")));
#define OURS __attribute__((section("kobai_host")))  // what this file keeps, which threads of a kernel only read
#define UNWATCHED __attribute__((no_sanitize_thread, noinline))
#else
#define OURS
#define UNWATCHED
#endif

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __shared__ static  // one block runs at a time
#define __constant__ static
#define __launch_bounds__(...)
#define __syncthreads() host::wait(host::BLOCK)
#define __syncwarp(...) host::wait(host::WARP)
#define __threadfence()
#define __ldg(pointer) (*(pointer))

struct dim3 { unsigned x, y, z; };
struct double2 { double x, y; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
OURS static dim3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;
alignas(16) static double2 shared_words[1 << 13];

struct half {
#ifdef __FLT16_MAX__
    _Float16 value;
#else
    float value;  // too wide; the tests leave half precision out
#endif
    half() = default;
    half(float v) : value(v) {}
    operator float() const { return value; }
};

namespace host {
enum State { READY, WARP, BLOCK, DONE };
static const int STACK = 1 << 16, MOST = 1024;
OURS static jmp_buf scheduler, threads[MOST];
OURS static char* stacks = 0;
OURS static bool begun[MOST];  // threads that have a stack, on which they go on, also in the next block
OURS static State state[MOST];
OURS static bool turn[MOST];  // which of its two places in ``exchanged`` a thread uses next
OURS static unsigned long long exchanged[2][MOST];
OURS static unsigned current;
OURS static void (*body)();
OURS static char said[256];

#ifdef RACES
#include "races.h"
static void passed_by_warp(unsigned first) { warp_phase[first / 32]++; }
static void passed_by_block() { phase++; }
#else
static void passed_by_warp(unsigned) {}
static void passed_by_block() {}
#endif

static void at(unsigned thread) {
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

// The launch ends here: no thread runs on, and run() returns what is wrong.
static void fail(const char* what, bool in_thread = true) {
    snprintf(said, sizeof said, "block %u, thread %u: %s", blockIdx.x, current, what);
    memset(begun, 0, sizeof begun);
    if (in_thread) _longjmp(scheduler, 1);
}

OURS static unsigned shared_bytes;  // of dynamic shared memory, which the launch asked for
static const unsigned FENCE = 4096;

// Fresh shared memory, and whether a block has written behind its end, too.
static unsigned fenced() {
    const unsigned all = sizeof shared_words;
    return shared_bytes < all - FENCE ? shared_bytes + FENCE : all;
}
static bool wrote_beyond_shared_memory() {
    const unsigned char* bytes = (const unsigned char*)shared_words;
    for (unsigned i = shared_bytes; i < fenced(); i++) if (bytes[i] != 0xff) return true;
    return false;
}

OURS static bool waits;  // whether the threads of this launch have stacks of their own

__attribute__((noinline)) static void wait(State at) {
    if (!waits) fail("a thread waits in a kernel that was compiled as one that does not");
    state[current] = at;
    if (!_setjmp(threads[current])) _longjmp(scheduler, 1);
}

static void start() {
    for (;;) {
        body();
        wait(DONE);
    }
}

__attribute__((noinline)) static void run_until_it_waits(unsigned thread) {
    if (state[thread] != READY) return;
    current = thread;
    at(thread);
    if (_setjmp(scheduler)) return;
    if (begun[thread]) _longjmp(threads[thread], 1);
    begun[thread] = true;
    static ucontext_t first;  // a stack of its own, which the jumps then go between: without asking the system each time
    getcontext(&first);
    first.uc_stack.ss_sp = stacks + (size_t)STACK * thread;
    first.uc_stack.ss_size = STACK;
    first.uc_link = 0;
    makecontext(&first, start, 0);
    setcontext(&first);
}

// A block whose threads wait for each other.
static void run_block(unsigned n, bool backwards) {
    if (!stacks) stacks = (char*)malloc((size_t)STACK * MOST);
    for (unsigned i = 0; i < n; i++) state[i] = READY, turn[i] = false;
    memset(shared_words, 0xff, fenced());
    for (;;) {
        for (unsigned w = 0; w < n; w += 32) {
            const unsigned first = backwards ? (n - 1) / 32 * 32 - w : w, size = n - first < 32 ? n - first : 32;
            for (;;) {
                unsigned at_warp = 0, left = 0;
                for (unsigned i = 0; i < size && !*said; i++) run_until_it_waits(backwards ? first + size - 1 - i : first + i);
                if (*said) return;
                for (unsigned i = first; i < first + size; i++) at_warp += state[i] == WARP, left += state[i] == DONE;
                if (at_warp == 0) break;
                if (at_warp != size) return fail("the warp's threads do not all reach this shuffle", false);
                for (unsigned i = first; i < first + size; i++) state[i] = READY;
                passed_by_warp(first);
            }
        }
        unsigned at_block = 0, done = 0;
        for (unsigned i = 0; i < n; i++) at_block += state[i] == BLOCK, done += state[i] == DONE;
        if (done == n) {
            if (wrote_beyond_shared_memory()) fail("a write behind the dynamic shared memory of the launch", false);
            return;
        }
        if (at_block + done != n) return fail("the block's threads do not all reach this barrier", false);
        for (unsigned i = 0; i < n; i++) if (state[i] == BLOCK) state[i] = READY;
        passed_by_block();
    }
}

static sigjmp_buf fault;

static void faulted(int signal) {
    current %= MOST;
    fail(signal == SIGFPE ? "an integer was divided by zero" : "an illegal memory access", false);
    siglongjmp(fault, 1);
}

// Launches a grid; returns what is wrong, or NULL. ``in_turns``: threads of a block may wait for each other. The blocks are
// those of a larger grid, from ``first`` on.
static const char* run(
    void (*kernel)(), const unsigned* shape, bool in_turns, bool backwards, unsigned shared = sizeof shared_words, unsigned first = 0
) {
    shared_bytes = shared;
#ifdef RACES
    forget();
#endif
    body = kernel;
    waits = in_turns;
    *said = 0;
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    const unsigned n = shape[3] * shape[4] * shape[5];
    const unsigned long long blocks = (unsigned long long)shape[0] * shape[1] * shape[2];
    struct sigaction mine = {}, before[3];
    mine.sa_handler = faulted;
    mine.sa_flags = SA_NODEFER;
    const int signals[3] = {SIGSEGV, SIGBUS, SIGFPE};
    for (int i = 0; i < 3; i++) sigaction(signals[i], &mine, &before[i]);
    if (!sigsetjmp(fault, 1))
        for (unsigned long long i = 0; i < blocks && !*said; i++) {
            const unsigned long long b = backwards ? blocks - 1 - i : i;
            blockIdx = {first + (unsigned)(b % shape[0]), (unsigned)(b / shape[0] % shape[1]), (unsigned)(b / shape[0] / shape[1])};
            if (waits) run_block(n, backwards);
            else if (!_setjmp(scheduler))
                for (unsigned t = 0; t < n; t++) current = backwards ? n - 1 - t : t, at(current), body();
        }
    for (int i = 0; i < 3; i++) sigaction(signals[i], &before[i], 0);
    return *said ? said : NULL;
}

// Every thread of a warp gives a value; what all of them gave, by lane.
static unsigned long long* exchange(unsigned long long bits) {
    unsigned long long* place = exchanged[turn[current]];  // nobody is two exchanges ahead of another
    turn[current] = !turn[current];
    place[current] = bits;
    wait(WARP);
    return place + (current & ~31u);
}

template <typename V> V from_lane(V v, unsigned lane) {
    static_assert(sizeof(V) <= sizeof(unsigned long long), "shuffles carry up to 64 bits");
    unsigned long long bits = 0;
    memcpy(&bits, &v, sizeof v);
    memcpy(&v, &exchange(bits)[lane], sizeof v);
    return v;
}

static unsigned ballot(bool predicate) {
    const unsigned long long* given = exchange(predicate);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; lane++) bits |= (unsigned)given[lane] << lane;
    return bits;
}

static unsigned lane() { return current & 31; }
static void full(unsigned mask) { if (mask != 0xffffffffu) fail("expected the mask of a full warp"); }
}  // namespace host

template <typename V> V __shfl_sync(unsigned mask, V v, int lane) { host::full(mask); return host::from_lane(v, lane & 31); }
template <typename V> V __shfl_xor_sync(unsigned mask, V v, int bits) {
    host::full(mask);
    return host::from_lane(v, host::lane() ^ bits);
}
template <typename V> V __shfl_down_sync(unsigned mask, V v, unsigned by) {
    host::full(mask);
    return host::from_lane(v, host::lane() + by > 31 ? host::lane() : host::lane() + by);
}
template <typename V> V __shfl_up_sync(unsigned mask, V v, unsigned by) {
    host::full(mask);
    return host::from_lane(v, host::lane() < by ? host::lane() : host::lane() - by);
}
static unsigned __ballot_sync(unsigned mask, int predicate) { host::full(mask); return host::ballot(predicate != 0); }
static int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

#ifdef RACES
#define ATOMIC(place) host::reached(place, sizeof *(place), true, true)
#else
#define ATOMIC(place)
#endif
template <typename V> UNWATCHED V atomicAdd(V* place, V v) { ATOMIC(place); V old = *place; *place = old + v; return old; }
template <typename V> UNWATCHED V atomicMax(V* place, V v) { ATOMIC(place); V old = *place; if (v > old) *place = v; return old; }
template <typename V> UNWATCHED V atomicMin(V* place, V v) { ATOMIC(place); V old = *place; if (v < old) *place = v; return old; }
template <typename V> UNWATCHED V atomicExch(V* place, V v) { ATOMIC(place); V old = *place; *place = v; return old; }
template <typename V> UNWATCHED V atomicOr(V* place, V v) { ATOMIC(place); V old = *place; *place = old | v; return old; }
template <typename V> UNWATCHED V atomicCAS(V* place, V is, V v) { ATOMIC(place); V old = *place; if (old == is) *place = v; return old; }

static unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
template <typename To, typename From> To host_bits(From v) { To to; memcpy(&to, &v, sizeof to); return to; }
static float __int_as_float(int v) { return host_bits<float>(v); }
static int __float_as_int(float v) { return host_bits<int>(v); }
static float __uint_as_float(unsigned v) { return host_bits<float>(v); }
static unsigned __float_as_uint(float v) { return host_bits<unsigned>(v); }
static double __longlong_as_double(long long v) { return host_bits<double>(v); }
static long long __double_as_longlong(double v) { return host_bits<long long>(v); }

using std::abs; using std::atan2; using std::atan; using std::ceil; using std::copysign; using std::cos; using std::erf;
using std::erfc; using std::exp; using std::exp2; using std::expm1; using std::fabs; using std::floor; using std::fma;
using std::fmax; using std::fmin; using std::fmod; using std::isfinite; using std::isinf; using std::isnan; using std::log;
using std::log1p; using std::log2; using std::pow; using std::round; using std::sin; using std::sqrt; using std::tanh;
static float rsqrt(float x) { return 1 / std::sqrt(x); }
static double rsqrt(double x) { return 1 / std::sqrt(x); }
static float rsqrtf(float x) { return 1 / std::sqrt(x); }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fmul_rn(float a, float b) { return a * b; }
static double __dadd_rn(double a, double b) { return a + b; }
static double __dmul_rn(double a, double b) { return a * b; }
template <typename V> V max(V a, V b) { return a > b ? a : b; }
template <typename V> V min(V a, V b) { return a < b ? a : b; }
