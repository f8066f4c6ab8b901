"What the tests share: the real corpora, a smoke run, and the other environment"
import os, shutil, subprocess, sys, tempfile
from pathlib import Path

import pytest

from ser_nb.pipeline import JOBS

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get('SER_NB_DATA', ROOT.parent/'shared'/'data'))
SER_NB = Path(sys.executable).parent/'ser-nb'


@pytest.fixture(scope='session')
def data():
    "The folder with both real corpora"
    if not DATA.is_dir(): pytest.skip(f'the real corpora are not at {DATA} (SER_NB_DATA names another place)')
    return DATA


def ser_nb(*args, cwd=ROOT, **kw):
    "Call the command as a user does"
    return subprocess.run([SER_NB, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=900, **kw)


@pytest.fixture(scope='session')
def whole_way(tmp_path_factory):
    "A smoke run of every job, from sound to model, on the built-in sample of tones"
    out = tmp_path_factory.mktemp('whole_way')/'run'
    done = ser_nb('run', *JOBS, '--smoke', '--out', out)
    assert done.returncode == 0, done.stderr
    return out, done


def no_traceback(done):
    "What a user sees of a failure is a line or two, not a traceback"
    assert 'Traceback' not in done.stderr + done.stdout, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4, done.stderr
    return True


def pytest_configure(config):
    "Nothing is written to the user's cache: not here, not in workers, not in the processes that tests start"
    if not hasattr(config, 'workerinput'): os.environ['SER_NB_CACHE'] = config.cache_of_tests = tempfile.mkdtemp()


def pytest_unconfigure(config):
    if hasattr(config, 'cache_of_tests'): shutil.rmtree(config.cache_of_tests)
