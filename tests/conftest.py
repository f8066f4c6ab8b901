"What the tests share: the real corpora, the command, and a cache of their own"
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

# jsonschema, which nbformat imports, does without this grammar of web addresses; to compile it takes seconds a process
sys.modules.setdefault('rfc3987_syntax', None)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get('SER_NB_DATA', ROOT.parent/'shared'/'data'))
SER_NB = Path(sys.executable).parent/'ser-nb'


@pytest.fixture(scope='session')
def data():
    "The folder with both real corpora"
    if not DATA.is_dir(): pytest.skip(f'the real corpora are not at {DATA} (SER_NB_DATA names another place)')
    return DATA


@pytest.fixture(scope='session')
def one_of_each(data):
    "A real clip of each emotion, spoken by another actor each"
    from ser_nb.corpora import EMOTIONS
    from ser_nb.corpus_adapters import recognise
    clips = recognise(data/'flac22k'/'ravdess_speech')[1].sort_values('file') # by their names: none is read
    return [
        str(clips.path[(clips.emotion == e) & (clips.speaker == f'{3 + 2 * i:02}')].iloc[0])
        for i, e in enumerate(EMOTIONS)]


def ser_nb(*args, cwd=ROOT, **kw):
    "Call the command as a user does"
    return subprocess.run([SER_NB, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=900, **kw)


def run_here(jobs, out, *given, data=None):
    "`ser-nb run JOBS` without kernels: the cells that it runs, one after the other, in this process"
    import matplotlib

    from ser_nb.pipeline import notebook_path, plan, setup_code, skipped_cells
    from ser_nb.run_folder import read_metrics
    matplotlib.use('Agg')
    for job, parameters in plan(jobs, given, data=data, out=out):
        cells = json.loads(notebook_path(job).read_text())['cells']
        skipped, names = skipped_cells(cells), dict(display=lambda *shown: None)
        for i, cell in enumerate(cells):
            source = ''.join(cell['source'])
            if cell['cell_type'] != 'code' or source.startswith('#| default_exp'):
                continue
            exec(compile(setup_code(source) if i in skipped else source, f'{job}, cell {i}', 'exec'), names)
            if 'parameters' in cell['metadata'].get('tags', []):
                names.update(parameters)
    return read_metrics(out)


def pythons():
    "This environment's Python, and that of the other where it is there"
    return sorted(
        {Path(sys.executable)}
        | {
            ROOT / f/'bin/python'
            for f in ('.venv', '.venv-stock', '.venv-intel')
            if (ROOT / f/'.ready').exists()})


@contextmanager
def chromium(*flags):
    "Chromium without a window, as Playwright drives it; who uses it is skipped where it is missing"
    found = shutil.which('chromium') or shutil.which('chromium-browser')
    if not found: pytest.skip('Chromium is not installed (Debian: apt-get install chromium)')
    sync_api = pytest.importorskip('playwright.sync_api', reason='the package playwright is missing')
    quiet = (
        '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking'
        ' --disable-component-update --disable-sync'.split())
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found, args=[*quiet, *flags])
        yield browser
        browser.close()


def no_traceback(done):
    "What a user sees of a failure is a line or two, not a traceback"
    assert 'Traceback' not in done.stderr + done.stdout, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4, done.stderr
    return True


TIERS = 'unit', 'jobs', 'browser', 'corpora', 'slow'
# a worker takes a file at a time: those that take minutes come first, or one worker ends them alone
LONGEST = (
    'test_jobs', 'test_demo', 'test_real_corpora', 'test_prediction', 'test_quality', 'test_campaign', 'test_faults',
    'test_docs', 'test_folders', 'test_extraction', 'test_lab', 'test_speech_encoder', 'test_security',
    'test_features', 'test_proposed_system', 'test_wheel', 'test_leakage', 'test_baselines', 'test_listen')


def only_environment(config):
    "Whether only what depends on the environment is tested (`make test-environment`)"
    return 'environment' in config.option.markexpr


@pytest.hookimpl(tryfirst=True) # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    "Each test is in a tier; what takes real sound is in `corpora`; long files come first"
    for item in items:
        if 'data' in item.fixturenames: item.add_marker(pytest.mark.corpora)
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            raise pytest.UsageError(f'{item.nodeid} is in none of the tiers {", ".join(TIERS)}')
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_configure(config):
    "Nothing is written to the user's cache: not here, not in workers, not in the processes that tests start"
    if hasattr(config, 'workerinput'): return
    from ser_nb.speech_encoder import encoder_dir
    kept = encoder_dir()
    os.environ['SER_NB_CACHE'] = config.cache_of_tests = tempfile.mkdtemp()
    if kept.is_dir(): shutil.copytree(kept, Path(config.cache_of_tests)/'encoder') # so that nothing is fetched


def pytest_unconfigure(config):
    if hasattr(config, 'cache_of_tests'): shutil.rmtree(config.cache_of_tests)
