"""How wide the vectors of a loop are.

On CPUs with AVX-512 LLVM uses half of each register unless told otherwise: the first of them ran slower for a
while after a wide instruction. Arithmetic-heavy loops gain from the full width all the same (NumPy's own
loops use it), so a loop over the elementary functions says `wide_vectors()` at its head. On other CPUs it
changes nothing.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from numba import types

from ._jit import intrinsic

__all__ = ["wide_vectors"]


@intrinsic
def wide_vectors(typing):
    """Let LLVM use 512-bit vectors in the compiled function that calls this, where the CPU has them.

    It emits no code. It acts on the function whose body it stands in, not on that one's callers, and is for
    compiled code only.

    Examples
    --------
    >>> import numba
    >>> from shmarray.kernels.math import exp
    >>> from shmarray.kernels.vectors import wide_vectors
    >>> @numba.njit
    ... def exp_into(x, out):
    ...     wide_vectors()
    ...     for i in range(x.size):
    ...         out[i] = exp(x[i])
    """

    def generate(context, builder, signature, args):
        # llvmlite's set of attributes admits the names it knows and prints whatever is in it.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate
