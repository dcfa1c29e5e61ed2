"""`multiprocessing.managers` under this package's name."""

import sys
from multiprocessing import managers
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.managers import *

sys.modules[__name__] = managers
