"""`multiprocessing.sharedctypes` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import sharedctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import *

sys.modules[__name__] = sharedctypes
