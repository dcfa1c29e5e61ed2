"""`multiprocessing.connection` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import *

sys.modules[__name__] = connection
