"""`multiprocessing.queues` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import queues
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.queues import *

sys.modules[__name__] = queues
