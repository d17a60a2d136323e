"""Programs that run in the kernel: C sources, and the objects compiled from them."""

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
GENERATE: Final = HERE / "generate.bpf.o"
COUNT: Final = HERE / "count.bpf.o"
