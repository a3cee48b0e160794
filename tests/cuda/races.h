// Races of threads, found by what -fsanitize=thread makes of every access to memory: a call of one of the functions at the end.
// Two threads race if both reach a word, one writes, not both by an atomic operation, and no barrier stands between: of the
// block, or of the warp that both belong to. Threads of two blocks have no barrier. Included by host.h in namespace host.

struct Access { unsigned block, thread, phase, warp_phase; bool atomic, valid; };
struct Cell { Access write, reads[2]; unsigned of; };

OURS static std::unordered_map<unsigned long long, Cell>* cells;
OURS static bool busy;
OURS static unsigned phase, warp_phase[MOST / 32];

extern "C" char __bss_start __attribute__((visibility("hidden"))), _end __attribute__((visibility("hidden")));

// Whether this is memory that each block has for itself.
UNWATCHED static bool shared(const void* place) { return place >= &__bss_start && place < &_end; }

UNWATCHED static bool ordered(const Access& a, const Access& b) {
    if (a.block != b.block) return false;
    if (a.thread == b.thread || a.phase != b.phase) return true;
    return a.thread / 32 == b.thread / 32 && a.warp_phase != b.warp_phase;
}

UNWATCHED static void raced(const Access& before, const Access& now, bool written) {
    if (*said) return;
    snprintf(
        said, sizeof said, "block %u, thread %u: %s what thread %u of block %u %s without a barrier between", now.block, now.thread,
        written ? "writes" : "reads", before.thread, before.block, before.atomic ? "changes by an atomic operation" : "reaches"
    );
    memset(begun, 0, sizeof begun);  // no thread runs on
}

// Whether this is work of a kernel's thread on memory that others can reach.
UNWATCHED static bool watched(const char* place) {
    const char *here = (const char*)__builtin_frame_address(0), *end = stacks + (size_t)STACK * MOST;
    if (!stacks || here < stacks || here >= end || (place >= stacks && place < end)) return false;
    return place < &__start_kobai_host || place >= &__stop_kobai_host;
}

UNWATCHED static void reached(void* place, size_t size, bool written, bool atomic = false) {
    if (busy || !watched((char*)place)) return;
    busy = true;  // what follows reaches memory too
    if (!cells) cells = new std::unordered_map<unsigned long long, Cell>(1 << 16);
    const bool own = shared(place);
    const Access now = {blockIdx.x + gridDim.x * blockIdx.y, current, phase, warp_phase[current / 32], atomic, true};
    const unsigned unit = size < 4 ? 1 : 4;  // what is counted in bytes is nowhere reached in words
    for (unsigned long long i = 0; i < size; i += unit) {
        Cell& cell = (*cells)[(unsigned long long)place + i];
        if (own && cell.of != now.block) cell = Cell(), cell.of = now.block;
        if (cell.write.valid && !ordered(cell.write, now) && !(cell.write.atomic && atomic)) raced(cell.write, now, written);
        if (written) {
            for (const Access& read : cell.reads) if (read.valid && !ordered(read, now)) raced(read, now, written);
            cell.write = now;
            cell.reads[0].valid = cell.reads[1].valid = false;
        } else {
            cell.reads[cell.reads[0].valid && !(cell.reads[0].block == now.block && cell.reads[0].thread == now.thread)] = now;
        }
    }
    busy = false;
}

UNWATCHED static void forget() { if (cells) cells->clear(); }

extern "C" {
#define ACCESS(n) \
    UNWATCHED void __tsan_read##n(void* place) { reached(place, n, false); } \
    UNWATCHED void __tsan_write##n(void* place) { reached(place, n, true); } \
    UNWATCHED void __tsan_unaligned_read##n(void* place) { reached(place, n, false); } \
    UNWATCHED void __tsan_unaligned_write##n(void* place) { reached(place, n, true); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
UNWATCHED void __tsan_read_range(void* place, size_t n) { reached(place, n, false); }
UNWATCHED void __tsan_write_range(void* place, size_t n) { reached(place, n, true); }
UNWATCHED void __tsan_func_entry(void*) {}
UNWATCHED void __tsan_func_exit() {}
UNWATCHED void __tsan_vptr_update(void**, void*) {}
UNWATCHED void __tsan_init() {}
}
