"""Fuzz the parsers, guided by the code that their inputs reach.

    python tests/fuzz.py -runs=20000            # all of them
    python tests/fuzz.py calib -runs=1000000    # one

More flags are libFuzzer's. Needs atheris: pip install -e ".[fuzz]". A finding ends with the
exception, and libFuzzer says where it left the input.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
OURS = ("checkpoint", "datasets", "options", "states", "tools", "utils")

with atheris.instrument_imports(include=list(OURS)):
    from parsers import PARSERS, attempt


def fuzz_all(flags: list[str]) -> None:
    """One after the other, each in a process of its own; exit status 1 if any fails."""
    failed = []
    for name in PARSERS:
        start = time.perf_counter()
        command = [sys.executable, __file__, name, *flags, "-verbosity=0", "-print_final_stats=1"]
        result = subprocess.run(command, capture_output=True, text=True)
        stats = dict(
            line[6:].split(": ") for line in result.stderr.splitlines() if "stat::" in line
        )
        runs = stats.get("number_of_executed_units", "0").strip()
        print(f"{name}: {runs} inputs, {time.perf_counter() - start:.0f} s", flush=True)
        if result.returncode:
            failed.append(name)
            print(result.stdout + result.stderr)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def fuzz(name: str, flags: list[str]) -> None:
    """Until libFuzzer's flags are fulfilled, or the parser breaks its promise."""
    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as folder:
        corpus, place = Path(folder, "corpus"), Path(folder, "place")
        for each in (corpus, place):
            each.mkdir()
        for mend in (b"\0", b"\1"):
            (corpus / mend.hex()).write_bytes(parser.good + mend)

        def try_one(data: bytes) -> None:
            """The last byte says whether checksums are mended."""
            content = data[:-1]
            attempt(parser, parser.mend(content) if data[-1:] == b"\1" else content, place)

        # The time of each input is limited by `attempt`, and shows as an exception does.
        atheris.Setup([__file__, *flags, "-timeout=0", "-max_len=100000", str(corpus)], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        if sys.argv[1] not in PARSERS:
            sys.exit(f"{sys.argv[0]}: no parser '{sys.argv[1]}', but {', '.join(PARSERS)}")
        fuzz(sys.argv[1], sys.argv[2:])
    else:
        fuzz_all(sys.argv[1:])
