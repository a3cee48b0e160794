// CUB's reduction over a block: as its manual says, not as it does it. The result is defined in the first thread only.
#pragma once

namespace cub {
template <typename T, int THREADS> struct BlockReduce {
    struct TempStorage { alignas(T) unsigned char parts[THREADS][sizeof(T)]; };
    TempStorage& storage;
    explicit BlockReduce(TempStorage& storage) : storage(storage) {}
    template <int ITEMS, typename Op> T Reduce(T (&items)[ITEMS], Op op) {
        T part = items[0];
        for (int i = 1; i < ITEMS; i++) part = op(part, items[i]);
        memcpy(storage.parts[threadIdx.x], &part, sizeof part);
        __syncthreads();
        if (threadIdx.x == 0)
            for (int i = 1; i < THREADS; i++) {
                T other = part;
                memcpy(&other, storage.parts[i], sizeof other);
                part = op(part, other);
            }
        return part;
    }
};
}  // namespace cub
