"""`multiprocessing.spawn` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import spawn
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.spawn import *

sys.modules[__name__] = spawn
