"""Compare the committed records of two states of the repository, number by number.

    python tools/compare_records.py REVISION       the records of a revision with those in the working tree

A number is what claim it answers, under which protocol and decision rule, its value and interval, on how many images.
Where it stands (row, column, epoch) may be said differently by the two. Exits 1 if a number is changed, lost or new.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIELDS = ("claim", "protocol", "decision", "value", "low", "high", "n")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def numbers(record: str) -> Counter:
    return Counter(tuple(cell.get(field) for field in FIELDS) for cell in json.loads(record)["cells"])


def main(revision: str) -> int:
    listed = [
        path for path in git("ls-tree", "-r", "--name-only", revision, "results").splitlines() if path.endswith(".json")
    ]
    changed = compared = 0
    for path in listed:
        before = numbers(git("show", f"{revision}:{path}"))
        after = numbers((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).exists() else Counter()
        lost, new = before - after, after - before
        compared += before.total()
        changed += lost.total() + new.total()
        print(f"{path}: {before.total()} numbers before, {after.total()} now, {lost.total()} lost, {new.total()} new")
        for sign, some in (("-", lost), ("+", new)):
            for number in list(some)[:5]:
                print(f"  {sign} {dict(zip(FIELDS, number, strict=True))}")
    print(f"{len(listed)} records, {compared} numbers: {changed or 'no'} difference{'' if changed == 1 else 's'}")
    return int(changed > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
