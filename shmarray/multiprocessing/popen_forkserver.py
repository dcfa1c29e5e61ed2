"""`multiprocessing.popen_forkserver` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import popen_forkserver
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.popen_forkserver import *

sys.modules[__name__] = popen_forkserver
