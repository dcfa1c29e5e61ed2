"""`multiprocessing.process` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import process
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import *

sys.modules[__name__] = process
