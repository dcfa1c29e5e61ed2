"""`multiprocessing.popen_spawn_win32` under this package's name; it loads on Windows alone, as the original."""

import sys
from multiprocessing import popen_spawn_win32

sys.modules[__name__] = popen_spawn_win32
