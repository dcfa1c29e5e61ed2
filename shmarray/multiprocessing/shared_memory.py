"""`multiprocessing.shared_memory` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import shared_memory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.shared_memory import *

sys.modules[__name__] = shared_memory
