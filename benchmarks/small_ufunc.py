"""What do operators on small arrays cost over NumPy's?

Sixteen elements: there is nothing to gain from workers, only a price to keep low. The bare subclass shows
what NumPy itself charges for being one.
"""

from __future__ import annotations

import numpy as np
from harness import OURS, Contestant, Suite, arguments

import shmarray as sa


class Bare(np.ndarray):
    """An ndarray subclass that does nothing."""


def main() -> None:
    suite = Suite("ufuncs on 16 elements", arguments(__doc__))
    plain = np.linspace(1.0, 2.0, 16)
    kinds = {OURS: sa.array(plain), "NumPy": plain, "bare ndarray subclass": plain.view(Bare)}
    cases = {
        "a + a": lambda a: lambda: a + a,
        "np.sqrt(a)": lambda a: lambda: np.sqrt(a),
        "np.add(a, a, out=b)": lambda a, b=None: _into(a),
        "a += 1": lambda a: lambda: a.__iadd__(1.0),
        "a.sum()": lambda a: lambda: a.sum(),
        "np.sum(a)": lambda a: lambda: np.sum(a),
        "a[3:7]": lambda a: lambda: a[3:7],
    }
    for case, make in cases.items():
        contestants = [Contestant(name, make(array), calls=20_000) for name, array in kinds.items()]
        found = suite.run(case, contestants, rounds=15, warm_up=1)
        suite.note(f"{case}: us over NumPy", round((found[OURS].median - found["NumPy"].median) * 1e6, 2))
    suite.report()


def _into(array: np.ndarray) -> object:
    out = sa.empty(16) if isinstance(array, sa.SharedArray) else np.empty(16).view(type(array))
    return lambda: np.add(array, array, out=out)


if __name__ == "__main__":
    main()
