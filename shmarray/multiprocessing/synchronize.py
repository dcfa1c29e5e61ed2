"""`multiprocessing.synchronize` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import synchronize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.synchronize import *

sys.modules[__name__] = synchronize
