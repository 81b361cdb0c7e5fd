"""The mutation score of a kernel's tests: how many small wrong changes do they notice?

    python tests/cuda_on_cpu/mutate.py csrc/kernels/cuda/x.cu csrc/kernels/x.h -- \
        tests/ops/test_x.py -k cuda_on_cpu

Each mutant (mutants.py) is built from a changed copy of the C++ sources, and the pytest arguments
after `--` are run against it. At least 90 % must be killed. A file too small for 40 mutants that
count is examined with the headers that no other kernel includes. Results are kept in build/mutation
and taken up again when the script is started anew with the same sources, tests and options. Mutants
that provably change nothing are listed, with the proof, in equivalent_mutants.toml; at most 10 % of
a run's mutants may be.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cuda_on_cpu import compiling
from cuda_on_cpu.mutants import Mutant, mutants_of

EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
RESULTS = compiling.REPOSITORY / "build" / "mutation"
SOURCE_FOLDERS = ("csrc", "tests/cuda_on_cpu")  # what a mutant's tree holds

WALL_SECONDS = 600  # for a run that waits without using the processor
FEWEST_MUTANTS = 40
LOWEST_SCORE = 0.9
LARGEST_EQUIVALENT_SHARE = 0.1

KILLED = ("checker", "values", "crash", "time limit")
SURVIVED = "survived"
NOT_COUNTED = ("does not compile", "same code")  # the compiler itself proves the latter equivalent


@dataclass(frozen=True)
class Result:
    """What became of a mutant, and the message that killed it."""

    outcome: str
    message: str = ""


class Laboratory:
    """Runs the tests against changed copies of the sources."""

    def __init__(self, kernels: Sequence[str], tests: Sequence[str]) -> None:
        self._kernels = kernels
        self._tests = tests
        self._cpu_seconds = WALL_SECONDS
        root = compiling.source_root()
        self._objects = {name: compiling.compile_object(name, root) for name in kernels}

    def check_baseline(self) -> None:
        """Sets the time limit from a run without a change, which must pass.

        Raises:
            SystemExit: it does not pass.
        """
        with self._tree() as tree:
            self._run(tree)  # fills the cache of objects
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            result = self._run(tree)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if result.outcome != SURVIVED:
            raise SystemExit(f"the tests fail without any change: {result.message}")
        self._cpu_seconds = max(10, math.ceil(4 * (after.ru_utime - before.ru_utime)))

    def examine(self, mutant: Mutant) -> Result:
        """Builds a mutant and runs the tests against it."""
        with self._tree() as tree:
            changed = Path(tree, mutant.file)
            changed.write_text(mutant.apply(changed.read_text()))
            try:
                built = {name: compiling.compile_object(name, Path(tree)) for name in self._kernels}
            except compiling.CompileError:
                return Result("does not compile")
            if all(path.read_bytes() == self._objects[n].read_bytes() for n, path in built.items()):
                return Result("same code")
            return self._run(tree)

    @staticmethod
    def _tree() -> tempfile.TemporaryDirectory:
        RESULTS.mkdir(parents=True, exist_ok=True)
        tree = tempfile.TemporaryDirectory(dir=RESULTS, prefix="tree-")
        ignore = shutil.ignore_patterns("__pycache__")
        for folder in SOURCE_FOLDERS:
            source = compiling.REPOSITORY / folder
            shutil.copytree(source, Path(tree.name, folder), ignore=ignore)
        return tree

    def _run(self, tree: str) -> Result:
        # Processor time, so that a busy machine kills no mutant.
        limited = ["sh", "-c", 'ulimit -t "$0"; exec "$@"', str(self._cpu_seconds), sys.executable]
        pytest = ["-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider", *self._tests]
        environment = os.environ | {
            "FASTSSL_SOURCE_ROOT": tree,
            "FASTSSL_REQUIRE_CUDA_ON_CPU": "1",
            "OMP_NUM_THREADS": "1",
        }
        try:
            done = subprocess.run(
                [*limited, *pytest],
                cwd=compiling.REPOSITORY,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=WALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Result("time limit")
        if done.returncode == -signal.SIGXCPU or done.returncode == -signal.SIGKILL:
            return Result("time limit")
        if done.returncode == 0:
            return Result(SURVIVED)
        reasons = re.findall(r"^E  +(\S.*)", done.stdout, re.MULTILINE)
        message = reasons[0] if reasons else done.stdout.strip()[-300:]
        if done.returncode < 0:
            return Result("crash", message)
        if "CompileError" in message:
            return Result("does not compile", message)
        if done.returncode != 1:
            raise SystemExit(f"pytest could not run the tests:\n{done.stdout[-3000:]}")
        return Result("checker" if "KernelError" in message else "values", message)


class Ledger:
    """The results so far, one JSON line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[str, Result] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                self._results[record["key"]] = Result(record["outcome"], record["message"])

    def get(self, mutant: Mutant) -> Result | None:
        return self._results.get(self._key(mutant))

    def add(self, mutant: Mutant, result: Result) -> None:
        self._results[self._key(mutant)] = result
        with self._path.open("a") as file:
            file.write(json.dumps({"key": self._key(mutant)} | asdict(result)) + "\n")

    @staticmethod
    def _key(mutant: Mutant) -> str:
        return f"{mutant.file}:{mutant.start}-{mutant.end}:{mutant.replacement}"


def ledger_for(sources: Sequence[str], tests: Sequence[str]) -> Ledger:
    """The ledger of these very sources, tests and checker, and of what they include or import."""
    state = hashlib.sha256(json.dumps([sources, tests]).encode())
    files = {compiling.REPOSITORY / name for name in sources}
    files |= {header for path in files for header in _included(path)}
    for name in tests:
        path = compiling.REPOSITORY / name.partition("::")[0]
        if path.is_file():
            support = (p for p in path.parent.glob("*.py") if not p.name.startswith("test_"))
            files |= {path, *support}
    files |= {*(compiling.REPOSITORY / compiling.RUNTIME).iterdir()}
    for path in sorted(files):
        state.update(path.read_bytes())
    RESULTS.mkdir(parents=True, exist_ok=True)
    return Ledger(RESULTS / f"{Path(sources[0]).stem}-{state.hexdigest()[:12]}.jsonl")


def examine_enough(
    mutants: Sequence[Mutant], count: int, jobs: int, laboratory: Laboratory, ledger: Ledger
) -> dict[Mutant, Result]:
    """Examines mutants in order until `count` of them count, or none are left."""
    results: dict[Mutant, Result] = {}
    waiting = iter(mutants)
    with _interruptible(jobs) as pool, tqdm(total=count, disable=None, unit="mutant") as bar:
        while len(counted(results)) < count:
            missing = count - len(counted(results))
            batch = [mutant for mutant, _ in zip(waiting, range(missing), strict=False)]
            if not batch:
                break
            unknown = [mutant for mutant in batch if ledger.get(mutant) is None]
            for mutant, result in zip(unknown, pool.map(laboratory.examine, unknown), strict=True):
                ledger.add(mutant, result)
                bar.update(result.outcome not in NOT_COUNTED)
            results |= {mutant: ledger.get(mutant) for mutant in batch}
            bar.n = len(counted(results))
            bar.refresh()
    return results


def shuffled(files: Sequence[str], seed: int) -> list[Mutant]:
    """All mutants of the files, in the order of a seed."""
    texts = {name: (compiling.REPOSITORY / name).read_text() for name in files}
    mutants = [mutant for name, text in texts.items() for mutant in mutants_of(name, text)]
    random.Random(seed).shuffle(mutants)
    return mutants


@contextlib.contextmanager
def _interruptible(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that, when interrupted, does not first finish all that waits."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def counted(results: dict[Mutant, Result]) -> dict[Mutant, Result]:
    """Without the mutants that do not compile or compile to the same code."""
    return {m: result for m, result in results.items() if result.outcome not in NOT_COUNTED}


def own_headers(kernel: str) -> list[str]:
    """The headers of csrc that this .cu file includes, also through others, and no other does."""
    folder = (compiling.REPOSITORY / kernel).parent
    others = [path for path in folder.glob("*.cu") if path.name != Path(kernel).name]
    shared = {header for path in others for header in _included(path)}
    own = _included(compiling.REPOSITORY / kernel) - shared
    return sorted(str(path.relative_to(compiling.REPOSITORY)) for path in own)


def _included(path: Path) -> set[Path]:
    found: set[Path] = set()
    for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE):
        header = (path.parent / name).resolve()
        if header.exists():
            found |= {header} | _included(header)
    return found


def declared_equivalent(sources: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """The (file, before, after) of the listed mutants of these files; each must have a proof."""
    entries = tomllib.loads(EQUIVALENT.read_text()).get("mutant", []) if EQUIVALENT.exists() else []
    for entry in entries:
        if not entry["proof"].strip() or "\n" in entry["proof"].strip():
            raise SystemExit(f"{EQUIVALENT.name}: a proof is one line: {entry}")
        if entry["file"] in sources:
            yield entry["file"], entry["before"], entry["after"]


def report(results: dict[Mutant, Result], declared: set[tuple[str, str, str]]) -> list[str]:
    """Prints the score and the survivors; gives what is wrong with the run."""
    tested = counted(results)
    is_declared = {m for m in tested if (m.file, m.before, m.after) in declared}
    equivalent = {m for m in is_declared if tested[m].outcome == SURVIVED}
    survivors = [m for m in tested if tested[m].outcome == SURVIVED and m not in equivalent]
    outcomes = Counter(result.outcome for result in results.values())
    for outcome in (*KILLED, SURVIVED, *NOT_COUNTED):
        kind = "killed by " if outcome in KILLED else ""
        print(f"{outcomes[outcome]:5d} {kind}{outcome}")
    rest = len(tested) - len(equivalent)
    share = (rest - len(survivors)) / rest if rest else 0.0
    print(f"score {share:.1%}: {rest - len(survivors)} of {rest} killed, ", end="")
    print(f"beside {len(equivalent)} declared equivalent")
    for mutant in survivors:
        print(f"survived {mutant}")
    problems = [
        f"declared equivalent, but killed by {tested[mutant].outcome}: {mutant}"
        for mutant in is_declared - equivalent
    ]
    if share < LOWEST_SCORE:
        problems.append(f"less than {LOWEST_SCORE:.0%} are killed")
    if len(equivalent) > LARGEST_EQUIVALENT_SHARE * len(tested):
        problems.append(f"more than {LARGEST_EQUIVALENT_SHARE:.0%} are declared equivalent")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources", nargs="+", help=".cu file, and headers of it, to mutate")
    parser.add_argument("--seed", type=int, default=0, help="which mutants are drawn")
    parser.add_argument("--count", type=int, default=60, help="how many mutants count, >= 40")
    parser.add_argument("--jobs", type=int, default=2, help="tests run at a time")
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    options, tests = parser.parse_args(given[:split]), given[split + 1 :]
    if not tests:
        parser.error("which tests? pytest arguments come after --")
    if options.count < FEWEST_MUTANTS:
        parser.error(f"--count is at least {FEWEST_MUTANTS}")

    sources = options.sources
    kernels = [name for name in sources if name.endswith(".cu")]
    laboratory = Laboratory(kernels, tests)
    laboratory.check_baseline()
    ledger = ledger_for(sources, tests)
    mutants = shuffled(sources, options.seed)
    results = examine_enough(mutants, options.count, options.jobs, laboratory, ledger)
    if (tested := len(counted(results))) < FEWEST_MUTANTS:
        headers = sorted({name for kernel in kernels for name in own_headers(kernel)} - {*sources})
        print(f"only {tested} mutants of {', '.join(sources)} count: with {headers or 'no header'}")
        mutants += shuffled(headers, options.seed)
        results = examine_enough(mutants, options.count, options.jobs, laboratory, ledger)
        sources = [*sources, *headers]
        if (tested := len(counted(results))) < FEWEST_MUTANTS:
            print(f"the rules give no more: {tested} count")
    problems = report(results, set(declared_equivalent(sources)))
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
