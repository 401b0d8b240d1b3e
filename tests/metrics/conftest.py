import sys
from pathlib import Path

# The ladder of known damage that the benchmark measures.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
