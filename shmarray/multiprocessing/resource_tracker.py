"""`multiprocessing.resource_tracker` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.resource_tracker import *

sys.modules[__name__] = resource_tracker
