"""`multiprocessing.heap` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import heap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.heap import *

sys.modules[__name__] = heap
