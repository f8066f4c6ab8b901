"Extraction where it is not ordinary: bad files, long ones, kills, full disks, a cluster, a lost worker"
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import no_traceback, ser_nb
from helpers import small_disk

from ser_nb.audio import SR, load_sound
from ser_nb.benchmark_extraction import recording_memory
from ser_nb.combining_datasets import scan
from ser_nb.feature_extraction import extract, split
from ser_nb.feature_store import FEATURE_FILES, write_features

pytestmark = pytest.mark.jobs

RNG = np.random.default_rng(0)
TONE = (.3 * np.sin(2 * np.pi * 220 * np.arange(SR) / SR) + .01 * RNG.normal(size=SR)).astype(np.float32)


@pytest.fixture(scope='module')
def some_clips(data):
    "A few dozen real clips"
    return scan(data/'flac22k'/'ravdess_song'/'Actor_01')[0]


@pytest.fixture(scope='module')
def undisturbed(some_clips, tmp_path_factory):
    "What a run writes that nothing disturbs"
    folder = tmp_path_factory.mktemp('undisturbed')
    _job(some_clips, 'none', folder)
    return folder


def _job(clips, cache, out): write_features(*split(extract(clips, n_jobs=1, batch_size=4, cache=cache)[0]), out)


def same_files(a, b):
    return all(
        (Path(a) / n).read_bytes() == (Path(b) / n).read_bytes()
        for n in ('train_features.csv', 'test_features.csv'))


def table_of(paths):
    return pd.DataFrame(
        [
            dict(
                file=Path(p).stem, path=str(p), corpus='tess', speaker='26', gender='female', emotion='sad',
                label='female_sad')
            for p in paths])


def test_every_kind_of_bad_file_gets_its_reason_and_the_others_come_out(tmp_path):
    good, ogg = tmp_path/'good.wav', tmp_path/'x.flac'
    sf.write(good, TONE, SR)
    sf.write(ogg, TONE, SR)
    whole = good.read_bytes()
    for name, content in dict(
        empty=b'', header=whole[:30], data=whole[:20000], text=b'Dear diary, ' * 99,
        image=b'\x89PNG\r\n\x1a\n' + bytes(500),
    ).items():
        (tmp_path/f'{name}.wav').write_bytes(content)
    (tmp_path/'flac.wav').write_bytes(ogg.read_bytes()[:9000])
    for name, x in dict(
        nan=np.where(np.arange(SR) == 9, np.nan, TONE), inf=np.where(np.arange(SR) == 9, np.inf, TONE),
        zeros=np.zeros(SR), nothing=np.zeros(0),
    ).items():
        sf.write(tmp_path/f'{name}.wav', x, SR, subtype='FLOAT')
    (tmp_path/'folder.wav').mkdir()
    (tmp_path/'broken.wav').symlink_to('nowhere')
    (tmp_path/'loop.wav').symlink_to('loop.wav')
    os.mkfifo(tmp_path/'pipe.wav')
    expected = dict(
        empty='an empty file', header='no sound that can be read', data='truncated: ',
        text='no sound that can be read', image='no sound that can be read', flac='', nan='not finite',
        inf='not finite', zeros='digital silence', nothing='0 samples', folder='a folder',
        broken='a link to a file that is not there', loop='leads back to itself', pipe='not a regular file',
        absent='there is no such file')
    paths = [tmp_path/f'{n}.wav' for n in expected]
    table, failed = extract(table_of([good, *paths, good]), n_jobs=1, cache=tmp_path/'cache')
    assert len(table) == 2 and failed.path.tolist() == [str(p) for p in paths]
    for (name, reason), said in zip(expected.items(), failed.reason):
        assert reason in said and said and '\n' not in said, (name, said)


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='only root can try it as somebody else')
def test_a_file_one_may_not_read_is_said_to_be_one(tmp_path):
    sf.write(tmp_path/'mine.wav', TONE, SR)
    (tmp_path/'mine.wav').chmod(0o600)
    for p in (tmp_path, *tmp_path.parents[:-2]): p.chmod(p.stat().st_mode | 0o011) # pytest's folders are private
    os.seteuid(65534)
    try:
        with pytest.raises(ValueError, match='cannot be opened .Permission denied'): load_sound(tmp_path/'mine.wav')
    finally: os.seteuid(0)


def test_three_hours_of_noise_stay_under_500_mb(tmp_path):
    # the benchmark measures three hours; what is kept grows with the length
    short, long = (recording_memory(hours, tmp_path) for hours in (.05, .4))
    assert short['mb'] + (long['mb'] - short['mb']) / .35 * 2.95 < 500, (short, long)


def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_bytes(some_clips, undisturbed, tmp_path):
    fork, moments, cache, out, killed = (
        multiprocessing.get_context('fork'), random.Random(1), tmp_path/'cache', tmp_path/'out', 0)
    start = time.perf_counter()
    _job(some_clips, 'none', tmp_path/'timed')
    seconds = time.perf_counter() - start
    # what one leaves, the next goes on from; a run that came to its end before its moment is followed by a new one
    while killed < 20:
        child = fork.Process(target=_job, args=(some_clips, cache, out))
        child.start()
        child.join(moments.uniform(0, seconds))
        child.kill()
        child.join()
        for name in FEATURE_FILES:
            assert not (out / name).exists() or (out / name).read_bytes() == (undisturbed / name).read_bytes()
        if child.exitcode:
            killed += 1
            assert child.exitcode == -signal.SIGKILL
        else:
            assert same_files(out, undisturbed)
            shutil.rmtree(cache)
            shutil.rmtree(out)
    _job(some_clips, cache, out)
    assert same_files(out, undisturbed)


def test_two_processes_give_the_same_bytes_as_one(some_clips, undisturbed, tmp_path):
    from joblib.externals.loky import get_reusable_executor
    write_features(*split(extract(some_clips, n_jobs=2, batch_size=3)[0]), tmp_path/'out')
    get_reusable_executor().shutdown()
    assert same_files(tmp_path/'out', undisturbed)


def test_a_full_disk_ends_with_one_line_and_loses_nothing(some_clips, undisturbed, tmp_path, monkeypatch):
    import ser_nb.feature_store as fe
    opened, size = fe.FeatureCache.__init__, 6
    def small(self, folder):
        opened(self, folder)
        self.db.execute(f'pragma max_page_count={size}')
    monkeypatch.setattr(fe.FeatureCache, '__init__', small)
    with pytest.raises(OSError, match='features.sqlite: database or disk is full; what was kept stays') as e:
        extract(some_clips, n_jobs=1, batch_size=4, cache=tmp_path/'cache')
    assert '\n' not in str(e.value)
    size = 10 ** 6
    cache = fe.FeatureCache(tmp_path/'cache')
    assert cache.db.execute('select count(*) from features').fetchone()[0] > 0 and cache.db.execute(
        'pragma integrity_check'
    ).fetchone() == ('ok',)
    _job(some_clips, tmp_path/'cache', tmp_path/'out')
    assert same_files(tmp_path/'out', undisturbed)


def _disturbed(clips, out, cache):
    "A job on a disk that is too small: one line, and nothing but whole files under the final names"
    with pytest.raises(OSError) as e: _job(clips, cache, out)
    assert '\n' not in str(e.value) and str(out.parent) in str(e.value), e.value
    return str(e.value)


def _whole_or_absent(out, undisturbed):
    assert all(
        (out / n).read_bytes() == (undisturbed / n).read_bytes() for n in FEATURE_FILES if (out / n).exists()
    ) and not list(out.glob('.part-*'))
    return True


def test_a_really_full_disk_ends_with_one_line_and_the_same_call_goes_on_when_there_is_room(
        some_clips, undisturbed, tmp_path):
    with small_disk(tmp_path, '16k') as (disk, remount):
        said = []
        # one after the other: the cache cannot begin, not go on, the files cannot be written
        for size in (16, 32, 64, 96):
            remount(f'size={size}k')
            said.append(_disturbed(some_clips, disk/'out', disk/'cache'))
            assert _whole_or_absent(disk/'out', undisturbed)
        assert (
            'features.sqlite: database or disk is full; what was kept stays' in said[0]
            and 'No space left on device' in said[-1])
        # and the command, with nothing left at all
        (disk/'filler').write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
        done = ser_nb('run', 'extract', '--data', Path(some_clips.path[0]).parent, '--out', disk/'run')
        assert done.returncode == 1 and no_traceback(done) and 'No space left on device' in done.stderr
        (disk/'filler').unlink()
        remount('size=4m')
        _job(some_clips, disk/'cache', disk/'out')
        assert same_files(disk/'out', undisturbed)


def _limited(clips, undisturbed, out, size):
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    assert 'File too large' in _disturbed(clips, out, 'none') and _whole_or_absent(out, undisturbed)


@pytest.mark.skipif(not hasattr(signal, 'SIGXFSZ'), reason='files cannot be limited here')
@pytest.mark.parametrize('size', [0, 30_000])
def test_a_file_that_cannot_grow_is_not_left_half_written(size, some_clips, undisturbed, tmp_path):
    child = multiprocessing.get_context('fork').Process(
        target=_limited, args=(some_clips, undisturbed, tmp_path/'out', size))
    child.start()
    child.join()
    assert child.exitcode == 0
    _job(some_clips, 'none', tmp_path/'out')
    assert same_files(tmp_path/'out', undisturbed)


@pytest.fixture
def cluster(tmp_path):
    "A scheduler and two worker processes on loopback: its address, and the workers"
    pytest.importorskip('distributed')
    address, environ = tmp_path/'scheduler.json', os.environ | dict(DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH='0')
    def run(*args):
        return subprocess.Popen(
            [sys.executable, '-m', 'dask', *args, '--scheduler-file', str(address), '--no-dashboard'],
            cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = [run('scheduler', '--host', '127.0.0.1', '--port', '0')]
    while not address.exists():
        time.sleep(0.1)
        assert started[0].poll() is None
    started += [run('worker', '--no-nanny', '--nthreads', '1', '--host', '127.0.0.1') for _ in range(2)]
    from distributed import Client
    with Client(scheduler_file=str(address)) as client:
        client.wait_for_workers(2, timeout=120)
        where = client.scheduler.address
    yield where, started[1:]
    for p in started:
        p.kill()
        p.wait()


def test_an_address_without_a_scheduler_is_said():
    dask = pytest.importorskip('dask')
    pytest.importorskip('distributed')
    with (
        dask.config.set({'distributed.comm.timeouts.connect': '1s'}),
        pytest.raises(OSError, match="no scheduler answers at 'tcp://127.0.0.1:9'")):
        extract(table_of(['x.wav']), dask='tcp://127.0.0.1:9')


def test_a_cluster_gives_the_same_bytes_and_so_it_does_when_a_worker_is_killed(
        some_clips, undisturbed, cluster, tmp_path):
    import ser_nb.feature_extraction as fe
    address, workers = cluster
    write_features(*split(extract(some_clips, dask=address, batch_size=8)[0]), tmp_path/'whole')
    assert same_files(tmp_path/'whole', undisturbed)
    rows = dict()
    for i, row in fe._rows([(path, 0., np.inf) for path in some_clips.path], 1, 2, tmp_path/'cache', address):
        if len(rows) == 20: workers[0].kill()
        rows[i] = row
    assert workers[0].wait() and len(rows) == len(some_clips)
    _job(some_clips, tmp_path/'cache', tmp_path/'out') # from what the cluster has put into the cache
    assert same_files(tmp_path/'out', undisturbed)
