"The demo under load: 50 clients for a minute, and then more than may wait (`make campaign`)"
import os
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import soundfile as sf
from conftest import SER_NB

from ser_nb.audio import SR
from ser_nb.prediction import pretrained

pytestmark = pytest.mark.slow
CLIENTS, SECONDS = int(os.environ.get('CLIENTS', 50)), int(os.environ.get('SECONDS', 60))


@pytest.fixture
def server(tmp_path):
    running = subprocess.Popen(
        [SER_NB, 'demo', '--port', '0', '--run', pretrained()], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | dict(TMPDIR=str(tmp_path)))
    yield running, running.stdout.readline().strip()
    running.terminate()
    running.wait(30)


def asked(address, sound, seconds, n):
    "n clients, as patient as a browser, that send for so many seconds, once at least: times of replies, errors"
    from gradio_client import Client, handle_file
    clients, times, errors, end = (
        [Client(address, verbose=False, download_files=False, httpx_kwargs=dict(timeout=60)) for _ in range(n)],
        [], [], time.monotonic() + seconds)
    def ask(client):
        while True:
            start = time.monotonic()
            try:
                assert 'data-emotion' in str(client.predict(handle_file(sound), api_name='/answer'))
                times.append(time.monotonic() - start)
            except Exception as e:
                errors.append(f'{type(e).__name__}: {e}')
            if time.monotonic() > end: break
    threads = [threading.Thread(target=ask, args=(c,)) for c in clients]
    for t in threads: t.start()
    for t in threads: t.join(300)
    assert not any(t.is_alive() for t in threads)
    return times, errors


def test_the_demo_answers_many_at_once_with_steady_memory_and_tells_those_who_are_too_many(server, tmp_path, capsys):
    running, address = server
    (sound := tmp_path/'a.wav').write_bytes(b'')
    sf.write(sound, np.random.default_rng(0).normal(size=3 * SR) * np.hanning(3 * SR) * 0.1, SR)
    def mb():
        return psutil.Process(running.pid).memory_info().rss / 2 ** 20
    asked(address, sound, 5, CLIENTS)
    before = mb()
    times, errors = asked(address, sound, SECONDS, CLIENTS)
    after = mb()
    with capsys.disabled():
        print(
            f'\n{CLIENTS} clients for {SECONDS} s: {len(times)} answers, {len(errors)} errors; latency'
            f' {np.median(times):.2f} s, 95 % below {np.quantile(times, .95):.2f} s; memory {before:.0f} to'
            f' {after:.0f} MB')
    assert not errors and after - before < 100, errors[:3]
    answered, refused = asked(address, sound, 0, 3 * CLIENTS)
    with capsys.disabled():
        print(f'{3 * CLIENTS} at once: {len(answered)} answers, {len(refused)} refused: {set(refused)}')
    assert running.poll() is None and asked(address, sound, 0, 1)[0]
    # of an upload, which is refused when others wait, the client shows the status, a browser the words beside it
    assert all('full' in r.lower() or 'busy' in r.lower() or '503 Service Unavailable' in r for r in refused)


FIRST = """import sys, threading
import numpy as np
from ser_nb.model_files import load_openvino, read_model_json
from ser_nb.prediction import pretrained
network, together, said = load_openvino(pretrained()), threading.Barrier(8), []
columns = read_model_json(pretrained())['features']
sys.setswitchinterval(1e-6)
def ask(): together.wait(); said.append(network(np.zeros((1, len(columns)), np.float32)))
threads = [threading.Thread(target=ask) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(len(said))"""


def test_many_threads_ask_a_new_process_at_once_and_none_waits_forever():
    for _ in range(30):
        assert (
            subprocess.run([sys.executable, '-c', FIRST], capture_output=True, text=True, timeout=60).stdout
            == '8\n')
