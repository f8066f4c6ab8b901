"What the tests share: the real corpora, a smoke run, and the other environment"
import os, subprocess, sys
from pathlib import Path

import pytest

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
    done = ser_nb('run', 'combine', 'extract', 'train', '--smoke', '--out', out)
    assert done.returncode == 0, done.stderr
    return out, done


def no_traceback(done):
    "What a user sees of a failure is a line or two, not a traceback"
    assert 'Traceback' not in done.stderr + done.stdout, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4, done.stderr
    return True


def pytest_collection_modifyitems(items):
    "Tests that share an expensive fixture run in one worker"
    for item in items:
        for shared in ('whole_way', 'all_clips'):
            if shared in item.fixturenames: item.add_marker(pytest.mark.xdist_group(shared))
