"""Running sums and products of flat arrays in two steps: what each block comes to, then the block from there on.

`sum_of_block` and `product_of_block` say what a block of a fixed grid comes to, and the caller joins these in order;
`running_sum` and `running_product` go through a block once more from what came before it. The grid decides the bits:
they are the same for any number of workers. Integers are exact (they wrap). A float is the sum of accurately summed
whole blocks and of the items of its own block one after another.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from ._folding import as_type_of
from ._jit import loop
from .reductions import block_prod, block_sum

__all__ = ["product_of_block", "running_product", "running_sum", "sum_of_block"]


@loop
def sum_of_block(task, x, step, totals):
    """The sum of items `task * step` and following, to `totals[task]`.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.scans import running_sum, sum_of_block
    >>> x, totals, out = np.array([1.0, 2.0, 3.0, 4.0]), np.empty(2), np.empty(4)
    >>> for task in range(2):
    ...     sum_of_block(task, x, 2, totals)
    >>> for task in range(2):
    ...     running_sum(task, x, 2, np.array([0.0, totals[0]]), out)
    >>> out.tolist()
    [1.0, 3.0, 6.0, 10.0]
    """
    totals[task] = block_sum(x[task * step : min(x.size, (task + 1) * step)])


@loop
def product_of_block(task, x, step, totals):
    """The same for the product."""
    totals[task] = block_prod(x[task * step : min(x.size, (task + 1) * step)])


@loop
def running_sum(task, x, step, before, out):
    """Running sums of items `task * step` and following, from `before[task]` on."""
    total = before[task]
    for i in range(task * step, min(x.size, (task + 1) * step)):
        total += as_type_of(x[i], total)
        out[i] = total


@loop
def running_product(task, x, step, before, out):
    """The same for products."""
    total = before[task]
    for i in range(task * step, min(x.size, (task + 1) * step)):
        total *= as_type_of(x[i], total)
        out[i] = total
