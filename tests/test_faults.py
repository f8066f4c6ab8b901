"""Runs that are stopped, doubled, starved or cut off

No half file under a final name, the same bytes by the same call again, and a line that says what to do.

The long form (`make campaign`) stops 50 runs of five jobs at random moments, the short one one of them.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import psutil
import pytest
import soundfile as sf
from campaign import LONG
from conftest import SER_NB, no_traceback, ser_nb
from helpers import small_disk, write_noise

from ser_nb.audio import SR
from ser_nb.combining_datasets import sample_corpus, scan
from ser_nb.command_line import _new_folder
from ser_nb.feature_extraction import extract, split
from ser_nb.feature_store import write_features
from ser_nb.files import read_json
from ser_nb.workers import in_processes

pytestmark = pytest.mark.jobs

TRAIN = [
    'model', '--smoke', '-p', 'model', 'functionals', '-p', 'folds', '0', '-p', 'splits', '4', '-p',
    'features_dir', '{features}']
RUNS = {
    'combine': (['combine', '--smoke'], ['clips.csv']),  # the call, and what is the same each time
    'extract': (
        ['extract', '--smoke', '-p', 'more', 'functionals'],
        ['train_features.csv', 'test_features.csv', 'train_functionals.npz', 'test_functionals.npz']),
    'train': (TRAIN, ['model.h5', 'model.json', 'model.xml', 'model.bin']),
    'benchmark': (['benchmark', '--smoke', '-p', 'n', '4'], []),
    'tune': (
        [
            'baselines', '--smoke', '-p', 'classifiers', 'dt knn', '-p', 'splits', '0', '-p', 'tune',
            'true', '-p', 'trials', '3', '-p', 'folds', '2', '-p', 'features_dir', '{features}'],
        [])}
STOPPED = list(RUNS) if LONG else ['combine']


def whole(path):
    "Whether a file is all there"
    data = path.read_bytes()
    if path.suffix in ('.json', '.ipynb'): return bool(json.loads(data))
    if path.suffix == '.npz': return zipfile.ZipFile(path).testzip() is None
    return {
        '.png': data.endswith(b'IEND\xaeB`\x82'), '.csv': data.endswith(b'\n'),
        '.html': data.rstrip().endswith(b'</html>'), '.h5': data.startswith(b'\x89HDF'),
    }.get(path.suffix, True)


def final_files(out):
    return [
        p
        for p in out.rglob('*')
        if p.is_file()
        and not p.name.startswith('.')
        and 'work' not in p.parts
        and p.suffix not in ('.db', '.db-journal')]


def untimed(value):
    "Scores without the seconds among them"
    return {k: untimed(v) for k, v in value.items() if not k.endswith('_s')} if isinstance(value, dict) else value


def same_outcome(a, b, names):
    first, second = (read_json(f/'metrics.json') for f in (a, b))
    if names: # what is tuned anew or measured is other numbers each time
        for key in ('job', 'parameters', 'versions', 'data', 'audit', 'files', 'scores'):
            assert untimed(first[key]) == untimed(second[key]), key
    for name in names: assert (a/name).read_bytes() == (b/name).read_bytes(), name
    assert {p.relative_to(a) for p in final_files(a)} == {p.relative_to(b) for p in final_files(b)}
    return True


@pytest.fixture(scope='module')
def features(tmp_path_factory):
    "Features of a small corpus of tones: 120 clips of two speakers"
    folder = tmp_path_factory.mktemp('features')
    write_features(
        *split(extract(scan(sample_corpus(folder/'corpus', words=0))[0], n_jobs=1, more='functionals')[0]),
        folder)
    return folder


def start(args, out):
    return subprocess.Popen(
        [SER_NB, 'run', *args, '--out', out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(running, sig):
    "Stop a run as its user or the system would; nothing of it goes on"
    children = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(sig)
    _, said = running.communicate(timeout=60)
    # a kernel that has just begun looks for its parent when it has started
    left = psutil.wait_procs(children, timeout=60)[1]
    assert not left, f'left behind: {[p.cmdline() for p in left]}'
    return said


@pytest.mark.parametrize('job', STOPPED)
def test_a_run_stopped_at_random_moments_leaves_whole_files_and_the_same_call_gives_the_same_bytes(
        job, tmp_path, features):
    args, names = [a.format(features=features) for a in RUNS[job][0]], RUNS[job][1]
    began = time.perf_counter()
    assert ser_nb('run', *args, '--out', tmp_path/'undisturbed').returncode == 0
    seconds, moments, stopped, n = time.perf_counter() - began, random.Random(job), 0, 10 if LONG else 1
    for i in range(3 * n):
        if stopped == n: break
        running = start(args, out := tmp_path/'out')
        try:
            running.wait(moments.uniform(0, seconds))
            running.communicate()
        except subprocess.TimeoutExpired:
            said = stop(running, [signal.SIGKILL, signal.SIGTERM][stopped % 2])
            stopped += bool(running.returncode)  # 0: it had just come to its end
            assert 'Traceback' not in said, said
        for path in final_files(out) if out.exists() else (): assert whole(path), path
        for name in names:
            assert (
                not (out / name).exists()
                or (out / name).read_bytes() == (tmp_path/'undisturbed' / name).read_bytes()
            ), name
        if i % 3 == 2:
            assert (done := ser_nb('run', *args, '--out', out)).returncode == 0, done.stderr
            assert same_outcome(tmp_path/'undisturbed', out, names)
            shutil.rmtree(out)
    assert stopped == n and (done := ser_nb('run', *args, '--out', out)).returncode == 0, done.stderr
    assert same_outcome(tmp_path/'undisturbed', out, names) and not list(out.rglob('.part-*'))


@pytest.mark.slow # several trainings
def test_a_training_that_was_stopped_does_not_train_again_what_it_had_finished(tmp_path, features):
    call = [a.format(features=features) for a in TRAIN]
    assert ser_nb('run', *call, '--out', tmp_path/'undisturbed').returncode == 0
    running, kept = start(call, tmp_path/'out'), tmp_path/'out'/'.finished'
    while not list(kept.rglob('[!.]*.npz')):
        assert running.poll() is None
        time.sleep(0.05)
    stop(running, signal.SIGKILL)
    finished = [np.load(p)['seconds'].item() for p in kept.rglob('[!.]*.npz')]
    assert (done := ser_nb('run', *call, '--out', tmp_path/'out')).returncode == 0, done.stderr
    assert same_outcome(tmp_path/'undisturbed', tmp_path/'out', RUNS['train'][1]) and not kept.exists()
    assert finished and set(finished) <= set(
        read_json(tmp_path/'out' / 'metrics.json')['timings']['model']['train_split'])


def test_a_training_of_a_benchmark_ends_with_the_one_that_started_it():
    child = (
        'from ser_nb.workers import end_with_parent; end_with_parent(); print("on", flush=True); import time;'
        ' time.sleep(600)')
    parent = subprocess.Popen(
        [
            sys.executable, '-c',
            'import subprocess, sys; subprocess.run([sys.executable, "-c", sys.argv[1]])', child],
        stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == 'on\n'
    children = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert children and not psutil.wait_procs(children, timeout=30)[1]


def test_a_measurement_of_a_benchmark_that_was_killed_says_nothing(tmp_path):
    call = dict(function='benchmark_extraction:write_noise', path=str(tmp_path/'noise.wav'), hours=5)
    measures = f'from ser_nb.timing import in_process; in_process(**{call!r})'
    parent = subprocess.Popen([sys.executable, '-c', measures], stderr=subprocess.PIPE, text=True)
    while not (tmp_path/'noise.wav').exists():
        assert parent.poll() is None
        time.sleep(0.05)
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    assert children and parent.communicate(timeout=30)[1] == '' and not psutil.wait_procs(children, timeout=30)[1]
    (tmp_path/'noise.wav').unlink()


def test_of_two_runs_started_together_on_one_folder_one_is_refused(tmp_path):
    both = [start(RUNS['combine'][0], tmp_path/'out') for _ in range(2)]
    said = [p.communicate(timeout=300)[1] for p in both]
    assert sorted(p.returncode for p in both) == [0, 1]
    refused = said[[p.returncode for p in both].index(1)]
    assert 'another run is writing into it' in refused and len(refused.strip().splitlines()) == 1
    assert all(map(whole, final_files(tmp_path/'out')))


def test_two_runs_of_the_same_second_get_folders_of_their_own(monkeypatch, tmp_path):
    import ser_nb.command_line as pipeline
    # a clock that was put back gives a name again, too
    monkeypatch.setattr(pipeline, 'project_dir', lambda: tmp_path)
    monkeypatch.setattr(time, 'strftime', lambda form: 'today')
    first = _new_folder('train')
    first.mkdir(parents=True)
    assert (first.name, _new_folder('train').name) == ('today-train', 'today-train-2')


def test_a_kernel_killed_for_its_memory_is_one_line(tmp_path):
    running = start(RUNS['combine'][0], tmp_path/'out')
    while not (
        kernels := [
            c
            for c in psutil.Process(running.pid).children(recursive=True)
            if 'ipykernel_launcher' in ' '.join(c.cmdline())]):
        assert running.poll() is None
        time.sleep(0.05)
    kernels[0].kill()
    _, said = running.communicate(timeout=60)
    assert (
        running.returncode == 1
        and 'Kernel died' in said
        and 'memory ran out' in said
        and no_traceback(subprocess.CompletedProcess([], 1, '', said)))


def test_a_worker_killed_for_its_memory_is_one_line_that_says_what_to_do():
    with pytest.raises(OSError, match='^a worker process was killed.*n_jobs 1[^\\n]*$'):
        list(in_processes(lambda _: os.kill(os.getpid(), signal.SIGKILL), range(4), 2))


@pytest.fixture
def three(tmp_path):
    "A clip table of three tones"
    rng = np.random.default_rng(0)
    for i in range(1, 4): sf.write(tmp_path/f'03-01-05-01-01-01-{i:02}.wav', rng.normal(size=SR) * .1, SR)
    return scan(tmp_path, n_jobs=1)[0]


def test_a_clip_that_vanishes_after_it_was_listed_has_its_reason_and_the_others_come_out(three):
    os.unlink(three.path[1])
    table, failed = extract(three, n_jobs=1)
    assert len(table) == 2 and failed.reason.tolist() == ['there is no such file']


def test_a_clip_that_changes_after_it_was_looked_up_is_not_kept_under_its_old_bytes(three, tmp_path, monkeypatch):
    import ser_nb.feature_extraction as fe
    looked_up, before = fe.cache_keys, extract(three, n_jobs=1)[0]
    old = open(three.path[1], 'rb').read()
    def grows(*args):
        keys = looked_up(*args)
        sf.write(three.path[1], np.random.default_rng(1).normal(size=2 * SR) * .2, SR)
        return keys
    monkeypatch.setattr(fe, 'cache_keys', grows)
    extract(three, n_jobs=1, cache=tmp_path/'cache')
    monkeypatch.setattr(fe, 'cache_keys', looked_up)
    open(three.path[1], 'wb').write(old)
    assert extract(three, n_jobs=1, cache=tmp_path/'cache')[0].equals(before)


@pytest.fixture
def read_only(tmp_path):
    "A disk that nothing can be written to, with a run on it"
    from ser_nb.run_folder import notebooks_dir
    with small_disk(tmp_path, '4m') as (disk, remount):
        (disk/'run').mkdir()
        shutil.copy(notebooks_dir()/'results'/'metrics.json', disk/'run')
        remount('ro')
        yield disk


def test_a_read_only_disk_is_one_line(read_only, tmp_path):
    sound = write_noise(tmp_path/'a.wav')
    from ser_nb.prediction import pretrained
    for args in (
        ['run', 'combine', '--smoke', '--out', read_only/'new'], ['report', read_only/'run'],
        ['report', read_only/'run', read_only/'run', '--out', read_only/'both.html'],
        ['predict', sound, '--plot', read_only, '--run', pretrained()]):
        done = ser_nb(*args)
        assert (
            done.returncode in (1, 2)
            and 'Read-only file system' in done.stderr
            and str(read_only) in done.stderr
            and no_traceback(done))
