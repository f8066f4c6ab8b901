"Jobs side by side: what needs something waits for it, and no failure takes what others did with it"
import os
import signal
import time
from pathlib import Path

import pytest

from ser_nb.parallel_jobs import run_in_parallel, run_in_turn
from ser_nb.pipeline import JobFailed
from ser_nb.run_folder import read_metrics, record

pytestmark = pytest.mark.unit

SCORE = dict(protocol='random_80_20', part='', model='1nn', n_classes=16)
UAR = dict(train=.1, model=.2, baselines=.3)


def job(name, parameters):
    "A job that takes as long, fails or dies as its parameters say"
    out = Path(parameters['out'])
    (out/f'{name}.began').touch()
    time.sleep(parameters.get('seconds', 0))
    if 'fails' in parameters: raise JobFailed(parameters['fails'])
    if 'dies' in parameters: os.kill(os.getpid(), signal.SIGKILL)
    record(out, name, {}, scores=[SCORE | dict(uar=UAR[name])], timings=dict(began=[time.time()]))


@pytest.fixture
def of_two(monkeypatch):
    "Two cores, however many there are: one process a core"
    monkeypatch.setattr('ser_nb.parallel_jobs.machine', lambda: dict(cores=2))


def call(folder, train={}, model={}):
    folder.mkdir(exist_ok=True)
    return [('train', dict(out=folder, **train)), ('model', dict(out=folder, **model)), ('baselines', dict(out=folder))]


def test_the_record_is_that_of_jobs_in_turn_whichever_ends_first(tmp_path, of_two):
    run_in_turn(call(tmp_path/'turn'), print, job)
    run_in_parallel(call(tmp_path/'beside', train=dict(seconds=2)), tmp_path/'beside', print, job)
    turn, beside = read_metrics(tmp_path/'turn'), read_metrics(tmp_path/'beside')
    began = {name: t['began'][0] for name, t in beside['timings'].items()}
    assert began['model'] < began['train'] < began['baselines']
    assert beside['machine'].pop('parallel_jobs') == 2
    for metrics in (turn, beside): del metrics['timings'], metrics['machine']
    assert beside == turn and turn['job'] == 'train model baselines'


@pytest.mark.parametrize('trouble, message', [
    (dict(fails='cell 3: no clips'), 'train failed: cell 3: no clips'),
    (dict(dies=True), 'the process of a job was killed')])
def test_a_job_that_fails_is_named_and_what_needs_it_does_not_start(tmp_path, of_two, trouble, message):
    with pytest.raises(JobFailed, match=message):
        run_in_parallel(call(tmp_path, train=dict(seconds=.5, **trouble)), tmp_path, print, job)
    assert not (tmp_path/'baselines.began').exists() and not list(tmp_path.glob('.record-*'))
    if 'fails' in trouble: assert read_metrics(tmp_path)['job'] == 'model'
