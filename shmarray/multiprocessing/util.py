"""`multiprocessing.util` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.util import *

sys.modules[__name__] = util
