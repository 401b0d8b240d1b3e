import sys
from pathlib import Path

# The local server of the judge's tests.
sys.path.append(str(Path(__file__).parents[1] / "judge"))
