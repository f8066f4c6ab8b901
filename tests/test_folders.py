"A table of many files: nothing is lost when it is stopped, workers share it, memory stays flat"
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile as sf
from conftest import SER_NB, no_traceback, ser_nb

from ser_nb.audio import SR

pytestmark = pytest.mark.jobs
MODEL = ('--model', 'functionals')
KILLED_BEFORE = """
import os, signal, sys
from ser_nb.command_line import main_entry

last = sys.argv.pop(1)
def kill(event, arguments): # this part is written and has not got its name yet
    if event == 'os.rename' and os.path.basename(arguments[1]).startswith(last): os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
sys.exit(main_entry())
"""


@pytest.fixture(scope='module')
def sounds(tmp_path_factory):
    "520 short files, two of which are none"
    folder, rng = tmp_path_factory.mktemp('sounds'), np.random.default_rng(0)
    for i in range(520):
        t = np.arange(SR // 4) / SR
        tone = sum(np.sin(2 * np.pi * k * rng.uniform(90, 250) * t) / k for k in range(1, 6))
        sf.write(folder/f'{i:03}.wav', .1 * tone + .01 * rng.normal(size=len(t)), SR)
    for i in (7, 400): (folder/f'{i:03}.wav').write_text('no sound')
    return folder


@pytest.fixture(scope='module')
def undisturbed(sounds, tmp_path_factory):
    "The table that nothing disturbs"
    out = tmp_path_factory.mktemp('undisturbed')/'answers.csv'
    done = ser_nb('predict', sounds, '--out', out, *MODEL)
    assert done.returncode == 1 and '520 files, 2 of them failed' in done.stdout, done.stderr
    return out.read_bytes()


def test_a_call_that_is_killed_goes_on_and_gives_the_same_table(sounds, undisturbed, tmp_path):
    out, parts = tmp_path/'answers.csv', tmp_path/'answers.csv.parts'
    (tmp_path/'sounds').mkdir()
    sf.write(tmp_path/'sounds'/'other.wav', np.zeros(SR), SR)
    call = ['predict', sounds, '--out', out, *MODEL]
    for n in (1, 2):
        killed = subprocess.run([sys.executable, '-c', KILLED_BEFORE, f'part-{n:06}', *map(str, call), '--resume'])
        assert killed.returncode == -signal.SIGKILL and not out.exists()
        assert len(list(parts.glob('part-*'))) == n
    kept = {p: p.stat().st_mtime_ns for p in parts.glob('part-*')}
    refused = ser_nb(*call)
    assert refused.returncode == 2 and '--resume goes on from there' in refused.stderr and no_traceback(refused)
    other = ser_nb(*call, '--resume', '--timeline')
    assert other.returncode == 1 and 'has timeline False, this call True' in other.stderr and no_traceback(other)
    other = ser_nb('predict', tmp_path/'sounds', *call[2:], '--resume')
    assert other.returncode == 1 and f"this call ['{tmp_path}/sounds']" in other.stderr and no_traceback(other)
    assert kept == {p: p.stat().st_mtime_ns for p in parts.glob('part-*')}
    sf.write(sounds/'999.wav', np.zeros(SR), SR) # came since
    try:
        done = ser_nb(*call, '--resume')
    finally:
        (sounds/'999.wav').unlink()
    assert '1 files came since' in done.stderr and '520 files, 2 of them failed' in done.stdout
    assert out.read_bytes() == undisturbed and sorted(p.name for p in tmp_path.iterdir()) == ['answers.csv', 'sounds']
    whole = ser_nb(*call, '--resume')
    assert whole.returncode == 0 and 'is complete' in whole.stdout


def test_the_three_formats_hold_what_the_command_prints(sounds, undisturbed, tmp_path):
    some = sorted(sounds.glob('*.wav'))[:9]
    printed = [json.loads(line) for line in ser_nb('predict', *some, '--json', *MODEL).stdout.splitlines()]
    for ending in ('jsonl', 'parquet'):
        assert ser_nb('predict', *some, '--out', tmp_path/f'a.{ending}', *MODEL).returncode == 1
    written = [json.loads(line) for line in (tmp_path/'a.jsonl').read_text().splitlines()]
    failed = written.pop(7)
    assert (failed['reason'], failed['answer']) == ('failed', None) and failed['note']
    for row in written: assert row.pop('note') is None
    assert written == printed
    table = pd.read_parquet(tmp_path/'a.parquet')
    assert table.file.tolist() == [str(p) for p in some]
    np.testing.assert_allclose(table.distance.drop(7), [row['distance'] for row in printed], rtol=1e-5)


def test_two_dask_workers_share_the_files_and_give_the_same_table(sounds, undisturbed, tmp_path):
    pytest.importorskip('distributed')
    from distributed import Client, LocalCluster
    def batches_done(dask_worker): return dask_worker.state.executed_count
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host='127.0.0.1', dashboard_address=None) as cluster:
        with Client(cluster) as client:
            out = tmp_path/'answers.csv'
            done = ser_nb('predict', sounds, '--out', out, '--dask', cluster.scheduler_address, *MODEL)
            batches = client.run(batches_done)
    assert done.returncode == 1 and '520 files, 2 of them failed' in done.stdout, done.stderr
    assert out.read_bytes() == undisturbed
    assert len(batches) == 2 and min(batches.values()) > 0, batches


def test_an_address_without_a_scheduler_is_one_line_and_leaves_no_table(sounds, tmp_path):
    pytest.importorskip('distributed')
    environ = os.environ | dict(DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT='1s')
    done = ser_nb('predict', sounds, '--out', tmp_path/'a.csv', '--dask', 'tcp://127.0.0.1:9', *MODEL, env=environ)
    assert done.returncode == 1 and 'no scheduler answers' in done.stderr and no_traceback(done)
    assert not (tmp_path/'a.csv').exists()


PEAK = '''
import sys
from ser_nb.command_line import main
from ser_nb.timing import peak_mb
try: main(sys.argv[1:], standalone_mode=False)
except SystemExit: pass
print(peak_mb())
'''


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='peak memory is read from /proc')
def test_memory_does_not_grow_with_the_number_of_files(sounds, tmp_path):
    peaks, good = {}, [p for p in sorted(sounds.glob('*.wav')) if p.stem not in ('007', '400')]
    for n in (1_000, 10_000):
        (folder := tmp_path/f'{n}').mkdir()
        for i in range(n): os.link(good[i % len(good)], folder/f'{i:06}.wav')
        call = [sys.executable, '-c', PEAK, 'predict', folder, '--out', tmp_path/f'{n}.parquet', *MODEL]
        done = subprocess.run(call, capture_output=True, text=True)
        assert f'{n:,} files' in done.stdout, done.stderr
        peaks[n] = float(done.stdout.splitlines()[-1])
        assert len(pd.read_parquet(tmp_path/f'{n}.parquet', columns=['file'])) == n
    assert peaks[10_000] - peaks[1_000] < 25, peaks # MB


def test_a_killed_call_leaves_no_process_behind(sounds, tmp_path):
    many = tmp_path/'many' # so that it is far from its end when the first part is there
    many.mkdir()
    for sound in sounds.glob('*.wav'):
        for i in range(10): os.link(sound, many/f'{i}-{sound.name}')
    running = subprocess.Popen([SER_NB, 'predict', str(many), '--out', str(tmp_path/'a.csv'), *MODEL])
    while not list(tmp_path.glob('a.csv.parts/part-*')):
        assert running.poll() is None
        time.sleep(.02)
    workers = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    running.wait()
    assert not psutil.wait_procs(workers, timeout=10)[1]
