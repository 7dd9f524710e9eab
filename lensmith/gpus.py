"""Kinds of GPUs: their memory, and what their generation computes in."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20

# Compute capability from which a GPU multiplies in bfloat16 (Ampere), and in FP8 (Ada, Hopper). NVIDIA's CUDA
# programming guide, "Arithmetic Instructions"; vLLM 0.32 asks the same in platforms/cuda.py.
BFLOAT16_FROM = (8, 0)
FP8_FROM = (8, 9)


@dataclass(frozen=True)
class GpuKind:
    """memory_mib: in MiB, as the driver states it. capability: CUDA's compute capability."""

    memory_mib: int
    capability: tuple[int, int]

    @property
    def memory(self) -> int:
        """Its memory in bytes."""
        return self.memory_mib * _MIB


# MiB as `nvidia-smi --query-gpu=memory.total` prints it with ECC as delivered: of h200-141 and h100-80 as
# seen, of the others as commonly listed, at most what NVIDIA's data sheets say. Capabilities from NVIDIA's
# list (developer.nvidia.com/cuda-gpus). What a machine has is read from its driver.
KINDS = {
    "t4-16": GpuKind(15_360, (7, 5)),
    "l4-24": GpuKind(23_034, (8, 9)),
    "a10-24": GpuKind(23_028, (8, 6)),
    "rtx4090-24": GpuKind(24_564, (8, 9)),
    "rtx5090-32": GpuKind(32_607, (12, 0)),
    "v100-32": GpuKind(32_768, (7, 0)),
    "a100-40": GpuKind(40_960, (8, 0)),
    "a40-48": GpuKind(46_068, (8, 6)),
    "l40s-48": GpuKind(46_068, (8, 9)),
    "rtxa6000-48": GpuKind(49_140, (8, 6)),
    "h100-80": GpuKind(81_559, (9, 0)),
    "a100-80": GpuKind(81_920, (8, 0)),
    "h200-141": GpuKind(143_771, (9, 0)),
    "b200-180": GpuKind(183_359, (10, 0)),
}
