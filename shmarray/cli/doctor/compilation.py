"""Does numba compile, for which processor, with which settings, and where is the code kept?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from shmarray.cli.doctor.finding import Finding, good, note, wrong

__all__ = ["check_compilation"]

#: Feature of the processor -> bits of its widest vectors; the first that it has counts.
_WIDTHS = (("avx512f", 512), ("sve", 0), ("avx2", 256), ("avx", 256), ("neon", 128), ("sse2", 128))
_THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def check_compilation() -> Iterator[Finding]:
    """Everything about numba; imports it."""
    try:
        import llvmlite.binding as llvm
        import numba
        from numba.core.codegen import get_host_cpu_features
    except Exception as error:  # what a broken installation raises is not to be foreseen
        remedy = "pip install --upgrade numba (its versions go with certain ones of NumPy and Python)"
        yield wrong("numba", f"it cannot be imported: {error}", remedy)
        return
    yield good("numba", f"{numba.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}")
    yield from _settings(os.environ)
    yield _threads(os.environ)
    features = {feature[1:] for feature in get_host_cpu_features().split(",") if feature.startswith("+")}
    yield _simd(llvm.get_host_cpu_name(), features, os.environ)
    yield _cache()


def _settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    def is_on(name: str) -> bool:
        return environ.get(name, "0") not in ("", "0")

    if is_on("NUMBA_DISABLE_JIT"):
        yield wrong("numba", "NUMBA_DISABLE_JIT is set: kernels cannot be compiled", "unset NUMBA_DISABLE_JIT")
    for name in ("NUMBA_BOUNDSCHECK", "NUMBA_DEBUGINFO", "NUMBA_DEBUG"):
        if is_on(name):
            yield note("numba", f"{name} is set: kernels run slower", f"unset {name}")
    if environ.get("NUMBA_OPT", "3") not in ("3", "max"):
        yield note("numba", f"NUMBA_OPT={environ['NUMBA_OPT']}: kernels are not optimised in full", "unset NUMBA_OPT")


def _threads(environ: Mapping[str, str]) -> Finding:
    set_here = [f"{name}={environ[name]}" for name in _THREADS if environ.get(name)]
    layer = environ.get("NUMBA_THREADING_LAYER", "default")
    text = f"numba's threading layer: {layer}; workers run one thread each, whatever is set"
    return good("threads", f"{text} ({', '.join(set_here)})" if set_here else text)


def _simd(processor: str, features: Iterable[str], environ: Mapping[str, str]) -> Finding:
    known = set(features)
    feature, width = next(((name, bits) for name, bits in _WIDTHS if name in known), ("", 0))
    text = f"{processor}: {f'{width} bits' if width else 'scalable'} ({feature})" if feature else f"{processor}: none"
    if environ.get("NUMBA_ENABLE_AVX") == "0" or environ.get("NUMBA_CPU_NAME", processor) != processor:
        return note(
            "SIMD", f"{text}; not used in full, as the environment says", "unset NUMBA_ENABLE_AVX, NUMBA_CPU_NAME"
        )
    return good("SIMD", text) if feature else note("SIMD", f"{text}: kernels are not vectorised")


def _cache() -> Finding:
    from shmarray.jit import store

    folder = store.directory()
    if folder is None:
        return wrong(
            "code cache",
            "no directory is ours alone to write: every program compiles its kernels anew",
            "set SHMARRAY_CACHE_DIR to a directory of mode 0700",
        )
    try:
        sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".code")]
    except OSError:
        sizes = []
    return good("code cache", f"{folder}: {len(sizes)} kernels, {sum(sizes) / 1e6:.1f} MB")
