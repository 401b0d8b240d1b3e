"""Which steps of a ladder of known damage the metrics see: `python benchmarks/ladder.py`.

Truth, JPEG of quality 50, blur, wrong caption, shuffled tiles, on scenes of the miniature that its recogniser has not
seen. Writes benchmarks/results/ladder.json with the value and interval of each metric on each step, and the claims of
`damage.CLAIMS` that the numbers do not keep: there should be none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from damage import CLAIMS, broken_claims, write_ladder
from report import RESULTS, conditions, write

from urae.metrics import plan_evaluation
from urae.statistics import Table

ALSO = ("repetition", "detail", "glcm_score", "glcm_entropy", "compression", "spectrum_slope")
"""Without a claim on this ladder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=24, help="scenes")
    parser.add_argument("--size", type=int, default=256, help="px")
    parser.add_argument("--out", type=Path, default=RESULTS / "ladder.json")
    options = parser.parse_args()
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        folders = write_ladder(folder, num=options.num, size=options.size)
        plan = plan_evaluation(folders, metrics=(*CLAIMS, *ALSO), against={"truth": folders["truth"]})
        table = plan.run()
    broken = broken_claims(table)
    print(table.to_markdown(), *broken, sep="\n")
    seconds = round(time.process_time() - started, 1)
    write(
        options.out,
        {
            **conditions("ladder", num_scenes=options.num, size=options.size),
            "cpu_seconds": seconds,
            "broken_claims": broken,
            "rows": rows(table),
        },
    )


def rows(table: Table) -> list[dict]:
    return [
        {
            "step": name,
            "metric": metric,
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "mark": cell.mark,
        }
        for name, row in table.cells.items()
        for metric, cell in row.items()
    ]


if __name__ == "__main__":
    main()
