"""Call the public interface with many small random inputs and report the outcomes.

``python tests/fuzz --inputs 20000 --seed 0`` runs inputs 0 to 19,999 of seed 0, in another process: a crash or
a hang is reported with its input, and the run continues. ``--start 5000`` starts there; ``--only 123`` runs one input.
"""

import argparse
import faulthandler
import importlib
import json
import queue
import re
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Limits of an input in seconds: of processor time, beyond which it is a violation, and of wall time, beyond which it is
# stopped. The last is the limit of wall time for the imports before the first input.
SLOW, HANGS, STARTS = 5, 30, 300
KINDS = ("result", "ValueError", "TypeError", "warning", "VIOLATION")


def run_one(seed, number, announce=print):
    """Return the outcome of an input: subject, kind, message and a description of the input."""
    import numpy as np
    from outcome import Refused, Violation, Watch
    from subjects import SUBJECTS

    rng, watch = np.random.default_rng([seed, number]), Watch(announce)
    part, start = SUBJECTS[rng.integers(len(SUBJECTS))], time.process_time()
    kind, message = "result", ""
    announce(watch.note)
    try:
        part(rng, watch)
        kind = "warning" if watch.warned else "result"
    except Refused as refusal:
        kind = str(refusal)
    except Violation as violation:
        kind, message = "VIOLATION", str(violation)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind, message = "VIOLATION", f"{type(error).__name__} in a check, {last.name}:{last.lineno}: {error}"
    seconds = time.process_time() - start
    if seconds > SLOW and kind != "VIOLATION":
        kind, message = "VIOLATION", f"takes {seconds:.0f} s"
    return part.__name__, kind, message, " ".join(watch.note.split())


def work(seed, start, stop):
    """Run inputs. Each is announced before the call, and its outcome is written afterwards."""
    faulthandler.enable()
    importlib.import_module("subjects")
    print(json.dumps([start, "the start"]), flush=True)
    for number in range(start, stop):
        outcome = run_one(seed, number, lambda note, number=number: print(json.dumps([number, note]), flush=True))
        print(json.dumps([number, *outcome]), flush=True)


def watched(seed, start, stop):
    """Yield the outcomes of inputs run in another process, which is restarted if it crashes or hangs."""
    while start < stop:
        command = [
            sys.executable,
            str(HERE),
            "--work",
            f"--seed={seed}",
            f"--start={start}",
            f"--inputs={stop - start}",
        ]
        note = ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = queue.Queue()
            threading.Thread(target=read, args=(process.stdout, lines), daemon=True).start()
            while True:
                try:
                    line = lines.get(timeout=HANGS if note else STARTS)
                except queue.Empty:
                    process.kill()
                    yield start, "?", "VIOLATION", f"hangs for more than {HANGS} s", note
                    break
                if line is None:
                    if start < stop:
                        yield start, "?", "VIOLATION", f"crash: the process ended with {process.wait()}", note
                    break
                start, *outcome = json.loads(line)
                note = outcome[0]
                if len(outcome) > 1:
                    yield start, *outcome
                    start += 1
        start += 1


def read(stream, lines):
    """Put lines on a queue, and None at the end."""
    for line in stream:
        lines.put(line)
    lines.put(None)


def report(seed, outcomes):
    """Print a table of outcomes and the first input of each kind of violation; return the number of violations."""
    table, violations = defaultdict(Counter), defaultdict(list)
    for number, part, kind, message, note in outcomes:
        table[part][kind] += 1
        if kind == "VIOLATION":
            violations[part, re.sub(r"\d+", "#", message.split(": ")[0])].append((number, message, note))
            print(f"VIOLATION {number} {part}: {message}", file=sys.stderr, flush=True)
        if number % 1000 == 999:
            print(f"{number + 1:,} inputs of seed {seed} are done", file=sys.stderr, flush=True)
    total = sum(table.values(), Counter())
    print(f"{'':24}", *(f"{kind:>10}" for kind in KINDS))
    for part, row in [*sorted(table.items()), ("all", total)]:
        print(f"{part:24}", *(f"{row[kind]:10,}" for kind in KINDS))
    for (part, _), found in sorted(violations.items(), key=lambda item: -len(item[1])):
        number, message, note = found[0]
        print(f"\n{len(found)} x {part}: {message}\n    python tests/fuzz --seed {seed} --only {number}  # {note}")
    return total["VIOLATION"]


def main():
    """Run the inputs of the command line; exit with an error if there is a violation."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of all inputs")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, help="run this one alone, in this process")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only is not None:
        faulthandler.enable()
        outcome = run_one(asked.seed, asked.only)
        print(*outcome, sep="\n")
        return outcome[1] == "VIOLATION"
    if asked.work:
        return work(asked.seed, asked.start, asked.start + asked.inputs)
    start = time.time()
    n_violations = report(asked.seed, watched(asked.seed, asked.start, asked.start + asked.inputs))
    print(f"\n{asked.inputs:,} inputs of seed {asked.seed}, {n_violations} violations, {time.time() - start:.0f} s")
    return n_violations > 0


if __name__ == "__main__":
    sys.exit(main())
