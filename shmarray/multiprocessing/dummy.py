"""`multiprocessing.dummy` under this package's name: the standard library's threads with a process's face."""

import sys
from multiprocessing import dummy
from multiprocessing.dummy import connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.dummy import *

sys.modules[__name__] = dummy
# Named here, or the import system would load the file a second time under this name.
sys.modules[__name__ + ".connection"] = connection
