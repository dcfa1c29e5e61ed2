"""Numeric loops on plain ndarrays, for numba: the ground that everything else stands on.

The folder lies at the top level of the repository and is installed as `shmarray.kernels`. It imports NumPy
and numba only, and nothing of it is compiled at import.
"""

# A package of another project owns the import name `kernels`; found under it, this folder would shadow that one
# (or run twice under two names), so it refuses.
if __name__ != "shmarray.kernels":
    raise ImportError(f"import this package as shmarray.kernels, not as {__name__}")
