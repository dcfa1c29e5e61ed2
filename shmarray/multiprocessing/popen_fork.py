"""`multiprocessing.popen_fork` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import popen_fork
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.popen_fork import *

sys.modules[__name__] = popen_fork
