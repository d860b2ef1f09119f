"""What the process asks of its allocators; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Blocks that are neither short enough to be given out again at once, nor so long that
# the whole mapping goes.
_FREE = """
import ctypes
from kbs.adapters.process import wipe_freed_memory
libc = ctypes.CDLL(None)
if not hasattr(libc, "mallopt"):
    raise SystemExit(77)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
{call}
for size in (2_000, 20_000, 60_000):
    block, behind = libc.malloc(size), libc.malloc(64)
    ctypes.memset(block, 0x41, size)
    libc.free(block)
    print(ctypes.string_at(block + size // 2, 16).hex())
"""
_LOAD = """
import os
from kbs.adapters.process import wipe_freed_memory
os.environ["_RJEM_MALLOC_CONF"] = "stats_print:true"
wipe_freed_memory()
import granian
"""


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MALLOC_PERTURB_": "0"},
    )
    if done.returncode == 77:
        pytest.skip("another C library than glibc")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_what_is_freed_is_overwritten() -> None:
    assert set(_run(_FREE.format(call="wipe_freed_memory()")).split()) == {"a5" * 16}


def test_and_would_not_be_otherwise() -> None:
    assert "41" * 16 in _run(_FREE.format(call=""))


def test_the_servers_allocator_does_so_too() -> None:
    """Options that the operator gave stay."""
    told = _run(_LOAD)
    assert 'opt.junk: "free"' in told
    assert "opt.stats_print: true" in told
