"""The limit that a user may set to the instructions of oneDNN, which computes for OpenVINO.

OpenVINO 2026.4 does not see it: on a processor with bf16 it computes in bf16 also where it is limited to AVX2, and the
results are arbitrary numbers.
"""

from __future__ import annotations

import os

_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT_WIDE_SUMS = {"SSE41", "AVX", "AVX2", "AVX512_CORE"}
_WITHOUT_BF16 = _WITHOUT_WIDE_SUMS | {"AVX2_VNNI", "AVX512_CORE_VNNI"}


def instruction_limits() -> set[str]:
    """Return the limits that are set, in capitals, as oneDNN names them."""
    return {limit.upper() for name in _VARIABLES if (limit := os.environ.get(name))}


def limited_below_wide_sums() -> bool:
    """Return whether the limit leaves out instructions that add products of 8 bits in 32 bits (VNNI)."""
    return not instruction_limits().isdisjoint(_WITHOUT_WIDE_SUMS)


def limited_below_bf16() -> bool:
    """Return whether the limit leaves out instructions for bf16."""
    return not instruction_limits().isdisjoint(_WITHOUT_BF16)
