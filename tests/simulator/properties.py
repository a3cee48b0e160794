"""What a simulated device says of itself: about a Hopper GPU with four multiprocessors."""

from __future__ import annotations

TOTAL = 8 << 30
"""Bytes of memory of a device."""

ATTRIBUTES = {16: 4, 75: 9, 76: 0, 1: 1024, 2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535, 7: 65535, 8: 49152, 10: 32}
ATTRIBUTES |= {12: 65536, 13: 1_000_000, 36: 1_000_000, 37: 256, 38: 1 << 22, 39: 2048, 41: 1, 81: 228 << 10, 82: 65536}
ATTRIBUTES |= {97: 227 << 10, 106: 32, 115: 0}
"""By the numbers of ``cudaDeviceAttr``: 4 multiprocessors of compute capability 9.0."""

PROPERTIES = {
    "name": b"simulated device",
    "totalGlobalMem": TOTAL,
    "sharedMemPerBlock": 49152,
    "sharedMemPerBlockOptin": 227 << 10,
    "sharedMemPerMultiprocessor": 228 << 10,
    "regsPerBlock": 65536,
    "warpSize": 32,
    "maxThreadsPerBlock": 1024,
    "maxThreadsDim": (1024, 1024, 64),
    "maxGridSize": (2**31 - 1, 65535, 65535),
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 4,
    "maxThreadsPerMultiProcessor": 2048,
    "l2CacheSize": 1 << 22,
    "memoryClockRate": 1_000_000,
    "memoryBusWidth": 256,
    "clockRate": 1_000_000,
    "totalConstMem": 65536,
    "pciBusID": 0,
    "pciDeviceID": 0,
    "pciDomainID": 0,
    "asyncEngineCount": 2,
    "concurrentKernels": 1,
    "managedMemory": 1,
    "unifiedAddressing": 1,
    "uuid": bytes(16),
}
