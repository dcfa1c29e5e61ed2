"""Where are the parallel versions of NumPy's functions? Names only.

The table of versions belongs to `shmarray.array`, the versions are in `shmarray.ops`, which stands above it: so the
table is told the names of modules, and loads one when an array is first large enough for it. A module named here
registers each of its functions with `shmarray.array.implements`.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HOMES"]

#: Module -> the functions of NumPy that it has versions of.
HOMES: Mapping[str, tuple[str, ...]] = {
    "shmarray.ops.histograms": ("bincount", "histogram"),
    "shmarray.ops.quantiles": ("median", "nanmedian", "nanpercentile", "nanquantile", "percentile", "quantile"),
    "shmarray.ops.scans": ("cumprod", "cumsum", "diff"),
    "shmarray.ops.searching": ("digitize", "searchsorted", "unique"),
    "shmarray.ops.selection": (
        "clip",
        "compress",
        "extract",
        "flatnonzero",
        "ndarray.__getitem__",
        "ndarray.__setitem__",
        "nonzero",
        "put",
        "putmask",
        "take",
        "where",
    ),
    "shmarray.ops.sorting": (
        "argpartition",
        "argsort",
        "ndarray.partition",
        "ndarray.sort",
        "partition",
        "sort",
    ),
    "shmarray.ops.statistics": (
        "argmax",
        "argmin",
        "count_nonzero",
        "linalg.norm",
        "nanargmax",
        "nanargmin",
        "nanmax",
        "nanmean",
        "nanmin",
        "nanprod",
        "nanstd",
        "nansum",
        "nanvar",
        "std",
        "var",
    ),
}
