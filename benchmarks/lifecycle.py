"""What does it cost to make an array, open it by name and drop both; and to get a large array again?

1. Create a named array, attach to it by name, drop both: small and large, alone and beside 1,000 live arrays. Beside it
   the same with the standard library's `SharedMemory`, which checks, reserves and cleans up nothing (its resource
   tracker apart). The floor is the system calls of our protocol alone.
2. `empty` of 100 MB that was dropped a moment ago, and the page faults of writing it all, counted by the kernel. Beside
   it, `np.empty`. Each turn comes after all of the array was written, so it finds the processor's caches full of that;
   "in a tight loop" it does not.
"""

from __future__ import annotations

import resource
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from floors import segment_system_calls
from harness import Contestant, Suite, arguments

import shmarray as sa

_LARGE = 100_000_000


def ours(nbytes: int) -> None:
    array = sa.empty(nbytes, np.uint8, name="lifecycle")
    other = sa.open("lifecycle")
    del array, other


def stock(nbytes: int) -> None:
    made = SharedMemory("lifecycle-stock", create=True, size=nbytes)
    other = SharedMemory("lifecycle-stock")
    other.close()
    made.close()
    made.unlink()


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def write_all(array: np.ndarray) -> None:
    """Store into every page."""
    array[::4096] = 1


class Again:
    """Makes an array of 100 MB, having dropped the last one untimed; counts the faults of writing it."""

    def __init__(self, make: object) -> None:
        self.make = make
        self.array: np.ndarray | None = None
        self.faults: list[int] = []

    def prepare(self) -> None:
        if self.array is not None:
            pages = np.asarray(self.array)
            before = page_faults()
            write_all(pages)
            self.faults.append(page_faults() - before)
            del pages
        self.array = None

    def run(self) -> None:
        self.array = self.make(_LARGE, np.uint8)  # type: ignore[operator]


class Written(Again):
    """The same, with the writing of every page timed too: what the user waits for in the end."""

    def run(self) -> None:
        super().run()
        write_all(np.asarray(self.array))


def main() -> None:
    suite = Suite("making, attaching and dropping arrays", arguments(__doc__))

    def cases(beside: str, system_calls: object) -> None:
        for size, nbytes in (("4 kB", 4_000), ("1 MB", 1_000_000), ("100 MB", _LARGE)):
            suite.run(
                f"create + attach + drop, {size}{beside}",
                [
                    Contestant("shmarray", lambda nbytes=nbytes: ours(nbytes), calls=20),
                    Contestant("SharedMemory (nothing reserved)", lambda nbytes=nbytes: stock(nbytes), calls=20),
                    Contestant("floor: the system calls alone", system_calls, calls=20),
                ],
                rounds=25,
            )

    with segment_system_calls() as system_calls:
        cases("", system_calls)
        live = [sa.empty(1000, name=f"live-{number}") for number in range(1000)]
        cases(", beside 1,000 live", system_calls)
        del live

    for case, kind in (
        ("empty of 100 MB again", Again),
        ("empty of 100 MB again, every page written", Written),
    ):
        shared, private = kind(sa.empty), kind(np.empty)
        suite.run(
            case,
            [
                Contestant("shmarray.empty", shared.run, prepare=shared.prepare),
                Contestant("numpy.empty", private.run, prepare=private.prepare),
            ],
            rounds=25,
        )
        if kind is Again:
            for name, contestant in (("shmarray.empty", shared), ("numpy.empty", private)):
                suite.note(f"page faults of writing 100 MB, {name} (median)", int(np.median(contestant.faults[2:])))
    suite.run(
        "empty of 100 MB again, in a tight loop",
        [
            Contestant("shmarray.empty", lambda: sa.empty(_LARGE, np.uint8), calls=50),
            Contestant("numpy.empty", lambda: np.empty(_LARGE, np.uint8), calls=50),
        ],
        rounds=25,
    )
    suite.report()


if __name__ == "__main__":
    main()
