"""What each stage of the study does, one sub-package per stage, in the order of the graph.

Importing it asks Intel MKL, which torch uses on x86 CPUs, for the same bytes from run to run. Without that, products of
a few rows differ by rounding from one run to the next (seen in the class token's row of the last block: one image in a
hundred, by one unit of float16). MKL reads the setting at its first call; it costs no time that could be measured.
"""

import os

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
