"""Which device computes, and why."""

from __future__ import annotations

import ctypes
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import DeviceChoice

_MOMENT = 0.3  # seconds
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as in malloc.h


@dataclass(frozen=True)
class Device:
    """A device and the words for it.

    device : the device itself.
    name : what the person reads: "GPU: NVIDIA H200", or "CPU (no GPU found)".
    dtype : the type that the encoder's matrix products run in. On a CPU float32, so that which tokens are kept does not
        depend on the machine.
    dense_dtype : the type of the products after the encoder, in completion and in the decoder.
    warning : a sentence, if a GPU lies idle.
    batch : windows that run at a time. On a CPU more than one brings nothing (measured), on a GPU it fills the chip.
    """

    device: torch.device
    name: str
    dtype: torch.dtype = torch.float32
    dense_dtype: torch.dtype = torch.float32
    warning: str = ""
    batch: int = 1


def choose(choice: DeviceChoice) -> Device:
    """The device that was asked for; "auto" takes CUDA, then Apple's GPU, then the CPU.

    Raises
    ------
    ScanError : that device is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if choice == "cuda" or (choice == "auto" and cuda):
        if not cuda:
            raise ScanError(f"no NVIDIA GPU can be used here ({_why_no_cuda()}); choose the device “auto” or “cpu”")
        half = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return Device(torch.device("cuda"), f"GPU: {torch.cuda.get_device_name()}", half, half, batch=4)
    if choice == "mps" or (choice == "auto" and mps):
        if not mps:
            raise ScanError("there is no Apple GPU here; choose the device “auto” or “cpu”")
        return Device(torch.device("mps"), "GPU: Apple", batch=2)
    if cuda or mps:
        return cpu("CPU (chosen)", "A GPU is there but not used, because the device is set to CPU.")
    if shutil.which("nvidia-smi"):
        return cpu(
            "CPU (the GPU cannot be used)",
            f"An NVIDIA GPU is there but not used: {_why_no_cuda()}. See the README on installing with GPU support.",
        )
    return cpu("CPU (no GPU found)")


def cpu(name: str = "CPU", warning: str = "") -> Device:
    """The CPU, called `name`."""
    return Device(torch.device("cpu"), name, dense_dtype=_cpu_dense_dtype(), warning=warning)


def keep_freed_memory() -> None:
    """Let the allocator of Linux (glibc) keep up to 64 MiB that were freed, so that the next run need not ask for them.

    Else it gives every activation of some megabytes back to the system and gets it anew, page by page, which took a
    fifth of the decoder's time. Other systems are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # blocks below this come from the heap; it takes no more
        mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)


def _cpu_dense_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it natively: half the time or less; docs/performance.md says what changes."""
    capable = torch.backends.cpu.get_cpu_capability() == "AVX512" and _has_native_bfloat16()
    return torch.bfloat16 if capable and torch.backends.mkldnn.is_available() else torch.float32


def _has_native_bfloat16() -> bool:
    asked = getattr(torch.cpu, "get_capabilities", None)  # not in every PyTorch that will do
    return bool(asked and asked().get("avx512_bf16"))


def _why_no_cuda() -> str:
    return "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch was installed without GPU support"


def memory(device: Device) -> int:
    """Bytes that this program holds just now, on the GPU if that computes."""
    if device.device.type == "cuda":
        return int(torch.cuda.memory_reserved())
    return int(psutil.Process().memory_info().rss)


def is_full(error: Exception) -> bool:
    """Whether an error says that a memory is full. PyTorch has a class for that of NVIDIA GPUs only.

    And only for what it takes itself: cuBLAS and cuDNN take memory of their own, and say so in their own words.
    """
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in words for said in ("DefaultCPUAllocator", "out of memory", "_STATUS_ALLOC_FAILED")
    )


def free_memory(device: Device) -> int:
    """Bytes that are free on a GPU of its own memory; 0 where it shares the computer's."""
    return int(torch.cuda.mem_get_info(device.device)[0]) if device.device.type == "cuda" else 0


class Neighbours:
    """How many cores other programs have used since it was last asked."""

    def __init__(self) -> None:
        self._last = self._read()
        self._cores = 0.0

    @property
    def cores(self) -> float:
        """Cores, of late; over less than a moment there is nothing to say, and what was true before stays."""
        now, (then, before) = self._read(), self._last
        if now[0] - then >= _MOMENT:
            self._cores, self._last = max(0.0, (now[1] - before) / (now[0] - then)), now
        return self._cores

    def free_threads(self, spare: bool = False) -> int:
        """Threads that need not wait for others' cores: as many as usual, or fewer; `spare` leaves one core more.

        A parallel loop ends with its slowest thread, so one that waits for its core makes all of them wait.
        """
        usual = torch.get_num_threads()
        free = (psutil.cpu_count() or usual) - self.cores - spare
        return usual if free > usual - 0.5 else max(1, int(free + 0.5))

    @staticmethod
    def _read() -> tuple[float, float]:
        """The time, and the seconds of processor time that others have had."""
        all_of_them, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = all_of_them.idle + getattr(all_of_them, "iowait", 0.0)
        return time.monotonic(), sum(all_of_them) - idle - own.user - own.system


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on so many threads meanwhile."""
    usual = torch.get_num_threads()
    if count == usual:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
