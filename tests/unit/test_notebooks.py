"The script that runs the notebooks' own tests tells what failed"
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

pytestmark = pytest.mark.unit
CELLS = {
    'right': 'assert 1 + 1 == 2',
    'wrong': 'assert 1 + 1 == 3',
    'killed': 'import os; os.kill(os.getpid(), 9)',
    'left_out': '#| slow\nassert False'}


def test_a_cell_that_fails_and_a_process_that_dies_are_named(tmp_path):
    for name, source in CELLS.items():
        cell = nbformat.v4.new_code_cell(source)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path/f'{name}.ipynb')
    call = [sys.executable, 'tests/notebooks.py', *map(str, tmp_path.glob('*.ipynb'))]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and '2 of 4 notebooks passed' in done.stdout, done.stderr
    failed = {line for line in done.stdout.splitlines() if line.startswith('FAILED')}
    assert failed == {'FAILED wrong.ipynb (exit code 1)', 'FAILED killed.ipynb (exit code -9)'}
    assert 'assert 1 + 1 == 3' in done.stderr
