// CUB's loading of a tile by a block, where each thread has neighbouring elements: as its manual says, not as it does it.
#pragma once

namespace cub {
enum BlockLoadAlgorithm { BLOCK_LOAD_DIRECT };

template <typename T, int THREADS, int ITEMS, BlockLoadAlgorithm = BLOCK_LOAD_DIRECT> struct BlockLoad {
    struct TempStorage {};
    explicit BlockLoad(TempStorage&) {}
    template <typename In, typename V> void Load(In from, T (&to)[ITEMS], int valid, V otherwise) {
        for (int i = 0; i < ITEMS; i++) {
            const int place = threadIdx.x * ITEMS + i;
            to[i] = place < valid ? T(from[place]) : T(otherwise);
        }
    }
};
}  // namespace cub
