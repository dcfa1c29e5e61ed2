"""`multiprocessing.forkserver` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import forkserver
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.forkserver import *

sys.modules[__name__] = forkserver
