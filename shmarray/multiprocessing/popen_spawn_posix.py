"""`multiprocessing.popen_spawn_posix` under this package's name: the very module of the standard library."""

import sys
from multiprocessing import popen_spawn_posix
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.popen_spawn_posix import *

sys.modules[__name__] = popen_spawn_posix
