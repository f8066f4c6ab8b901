"Baselines: what only whole runs and processes that die can show"
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ser_nb

from ser_nb.baselines import SPACES, read_parameters, tune_classifier
from ser_nb.feature_store import read_features
from ser_nb.files import fingerprint, read_json
from ser_nb.functionals import FEATURES

pytestmark = pytest.mark.jobs

TUNE = '''
import sys
from ser_nb.baselines import tune_classifier
from ser_nb.feature_extraction import read_features
tune_classifier('dt', read_features(companions='')[0][::8], trials=int(sys.argv[2]), storage=sys.argv[1])
'''


def test_a_study_that_was_killed_goes_on_where_it_was(tmp_path):
    url, some = f'sqlite:///{tmp_path/"studies.db"}', read_features(companions='')[0][::8]
    running = subprocess.Popen([sys.executable, '-c', TUNE, url, '1000'])
    def trials():
        return tune_classifier('dt', some, trials=1, storage=url).trials
    def kept(ts):
        return {t.number: t.value for t in ts if t.state.is_finished()}
    end = time.monotonic() + 60
    while not (tmp_path/'studies.db').exists() or len(kept(trials())) < 4:
        assert time.monotonic() < end and running.poll() is None
        time.sleep(.3)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = kept(trials())
    done = subprocess.run([sys.executable, '-c', TUNE, url, str(len(before) + 3)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = kept(trials())
    assert len(after) == len(before) + 3 and before.items() <= after.items()


def test_the_collected_parameters_come_from_fifty_trials_of_each_classifier_on_the_shipped_training_rows():
    collected = read_parameters()
    assert set(collected) == set(SPACES)
    rows = fingerprint(read_features(companions='')[0][['label', *FEATURES]])[:8]
    for name, study in collected.items():
        assert (
            study['trials'] >= 50 and len(study['history']) == study['trials'] and study['study'].endswith(rows)
        ), name
        assert {'date', 'versions', 'score', 'score_sd'} <= set(study)


@pytest.mark.slow # Tuning tests itself, and the job is in tests/test_jobs.py
def test_tuning_in_a_job_writes_parameters_that_can_be_read_again(tmp_path):
    done = ser_nb(
        'run', 'baselines', '--smoke', '-p', 'classifiers', 'dt knn', '-p', 'splits', 0, '-p', 'tune',
        'true', '-p', 'trials', 3, '--out', tmp_path/'a')
    assert done.returncode == 0, done.stderr
    assert {'studies.db', 'baselines_parameters.json', 'baseline.skops', 'baseline.json'} <= set(
        os.listdir(tmp_path/'a'))
    found = read_json(tmp_path/'a'/'baselines_parameters.json')['article']
    assert {n: s['trials'] for n, s in found.items()} == dict(dt=3, knn=3)
    assert set(read_parameters(tmp_path/'a'/'baselines_parameters.json')) == {'dt', 'knn'}
