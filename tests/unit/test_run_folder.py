"What a run leaves: version 2 of the record, version 1 still read, workers that end with their parent"
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT

from ser_nb.files import read_json, read_regular
from ser_nb.run_folder import METRICS_KEYS, find_score, nested_scores, read_metrics, record

pytestmark = pytest.mark.unit


@pytest.mark.parametrize('name', ['metrics', 'ladder', 'baselines', 'robustness', 'benchmark'])
def test_a_record_of_version_1_is_read_as_version_2_and_loses_nothing(name):
    path = ROOT/'nbs'/'results'/f'{name}.json'
    given, read = read_json(path), read_metrics(path)
    assert tuple(read) == METRICS_KEYS and read['schema'] == 2
    if 'schema' in given: return
    kept = {
        p: {m: {k: v for k, v in s.items() if k != 'ci'} for m, s in of.items()}
        for p, of in nested_scores(read).items()}
    assert kept == given['scores']


def test_a_later_job_keeps_the_scores_of_an_earlier_one(tmp_path):
    record(tmp_path, 'train', {}, scores={'random_80_20': {'article': dict(uar=.8)}})
    record(tmp_path, 'baselines', {}, scores=[dict(protocol='random_80_20', model='knn', uar=.7)])
    read = read_metrics(tmp_path)
    assert [find_score(read, 'random_80_20', m)['uar'] for m in ('article', 'knn')] == [.8, .7]
    assert read['job'] == 'train baselines'


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    (tmp_path/'a').write_bytes(bytes(11))
    with pytest.raises(ValueError, match='larger than'): read_regular(tmp_path/'a', 10)


WORKERS = '''import os, time
from ser_nb.workers import in_processes
def work(seconds): print(os.getpid(), flush=True); time.sleep(seconds)
list(in_processes(work, [600, 600], 2))'''


def test_workers_end_when_their_parent_is_killed():
    quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with subprocess.Popen([sys.executable, '-c', WORKERS], **quiet) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        deadline = time.monotonic() + 30
        while alive := [w for w in workers if running(w)]:
            assert time.monotonic() < deadline, alive
            time.sleep(.1)


def running(pid):
    "Whether a process is there and not only waiting to be reaped"
    try: return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return False
