"""Seeds from names and numbers, and normal numbers from seeds."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: object) -> int:
    """A 63-bit generator seed from any tuple of names and numbers: stable across processes and machines."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def gaussian(shape: tuple[int, ...], device: torch.device | str, *seed: object) -> torch.Tensor:
    """Standard normal float32 tensor drawn on `device` with one generator call."""
    generator = torch.Generator(device=device).manual_seed(derive_seed(*seed))
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
