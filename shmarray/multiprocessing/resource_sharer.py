"""`multiprocessing.resource_sharer` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import resource_sharer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.resource_sharer import *

sys.modules[__name__] = resource_sharer
