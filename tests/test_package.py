"The package as exported: a notebook's other cells may define what an exported one forgot to import"
import subprocess, sys

from conftest import ROOT


def test_no_exported_name_is_undefined_outside_its_notebook():
    said = subprocess.run([sys.executable, '-m', 'pyflakes', ROOT/'ser_nb'], capture_output=True, text=True)
    assert said.returncode in (0, 1) and 'No module' not in said.stderr, said.stderr
    assert not [line for line in said.stdout.splitlines() if 'undefined name' in line]
