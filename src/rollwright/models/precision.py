"""Which floating-point format weights are computed with: `auto` takes what the hardware is fast at."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(name: Precision) -> Literal["float32", "bfloat16"]:
    """`auto` is bfloat16 on a GPU or CPU with the instructions for it, float32 elsewhere."""
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and _has_bf16_instructions() else "float32"


def _has_bf16_instructions() -> bool:
    """Without avx512_bf16 or amx a CPU emulates bfloat16, slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
