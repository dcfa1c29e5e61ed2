"""`multiprocessing.reduction` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import reduction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.reduction import *

sys.modules[__name__] = reduction
