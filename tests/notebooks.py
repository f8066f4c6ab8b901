"""Run the notebooks' own tests: `python tests/notebooks.py [--flags slow] NOTEBOOK...`

What `nbdev_test --path` does for one notebook, for many: two at a time, each in a process of its own, since
Intel's extension and OpenVINO in one process, in some orders of import, end in a segmentation fault in oneDNN.
The processes are forked from this one, which has imported what most notebooks import.
"""
import argparse
import gc
import os
import sys
import tempfile
import time
from multiprocessing import connection, get_context
from pathlib import Path

import matplotlib.pyplot  # noqa: F401
import pandas  # noqa: F401
import scipy.signal  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.decomposition  # noqa: F401
import sklearn.neighbors  # noqa: F401
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook

AT_ONCE = 2


def run(notebook, skipped):
    "In a process of its own: exit code 1 where a cell fails"
    passed, _ = run_notebook(notebook, skip_flags=skipped, basepath=get_config().config_path)
    sys.exit(not passed)


def run_all(notebooks, skipped):
    "Yields notebook, exit code and seconds, in the order in which they end"
    processes = get_context('fork' if sys.platform == 'linux' else 'spawn')
    waiting, running = list(notebooks), {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            notebook = waiting.pop(0)
            process = processes.Process(target=run, args=(notebook, skipped))
            process.start()
            running[process.sentinel] = process, notebook, time.monotonic()
        for ended in connection.wait(running):
            process, notebook, start = running.pop(ended)
            process.join()
            yield notebook, process.exitcode, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description='run the tests of notebooks')
    parser.add_argument('--flags', default='', help='flags of cells that are skipped else, such as slow')
    parser.add_argument('notebooks', nargs='+', type=lambda path: Path(path).absolute())
    given = parser.parse_args()
    skipped = sorted(set(get_config().tst_flags.split()) - set(given.flags.split()))
    gc.freeze() # what is imported here is not searched for garbage in each process
    largest_first = sorted(given.notebooks, key=lambda path: -path.stat().st_size)
    with tempfile.TemporaryDirectory() as folder: # a forked process does not delete what TensorFlow leaves there
        os.environ['TMPDIR'] = tempfile.tempdir = folder
        done = list(run_all(largest_first, skipped))
    for notebook, _, seconds in sorted(done, key=lambda row: -row[2])[:10]:
        print(f'{seconds:6.1f} s  {notebook.name}')
    failed = [f'{notebook.name} (exit code {code})' for notebook, code, _ in done if code]
    print(f'{len(done) - len(failed)} of {len(done)} notebooks passed' + ''.join(f'\nFAILED {name}' for name in failed))
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
