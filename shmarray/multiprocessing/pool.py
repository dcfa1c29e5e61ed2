"""`multiprocessing.pool` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import pool
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.pool import *

sys.modules[__name__] = pool
