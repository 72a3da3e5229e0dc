"""Every check in one command: `python tests/check_all.py [--no-tests]`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKS = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["pyright"],
    ["symbackprop", "generate", "--check"],
    ["pytest"],
]


def main() -> int:
    failed = []
    for name, *arguments in CHECKS:
        if name == "pytest" and "--no-tests" in sys.argv:
            continue
        print(f"-- {name} {' '.join(arguments)}", flush=True)
        if subprocess.run([sys.executable, "-m", name, *arguments], cwd=ROOT, check=False).returncode:
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all checks passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
