"Live sound by command: a line a hop, in bounded memory, and a clean end however it ends"
import json
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.jobs
RATE = 16000
LISTEN = [sys.executable, '-c', 'from ser_nb.command_line import main_entry; main_entry()', 'listen', '--model',
          'functionals']
NOISE = np.random.default_rng(0).integers(-3000, 3000, 2 * RATE).astype('<i2').tobytes() # 2 s


def obey_ctrl_c():
    "What a shell starts in the background ignores SIGINT, and so do its children"
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*args):
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    return subprocess.Popen([*LISTEN, *args], **pipes, preexec_fn=obey_ctrl_c)


def test_every_hop_of_a_file_that_is_piped_in_has_its_line_although_it_comes_faster_than_sound():
    out, err = start('--json').communicate(NOISE * 30, timeout=60)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row['start_s'] for row in rows] == list(np.arange(0, 58, 1.5)) and rows[-1]['end_s'] == 60, err


def test_a_line_comes_while_the_pipe_stays_open():
    running = start('--json')
    running.stdin.write(NOISE * 2)
    running.stdin.flush()
    assert json.loads(running.stdout.readline())['end_s'] == 3
    running.communicate(timeout=30)
    assert running.returncode == 0


def test_ctrl_c_ends_it_without_a_traceback():
    running = start()
    running.stdin.write(NOISE * 2)
    running.stdin.flush()
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    err = running.stderr.read()
    assert (running.wait(timeout=10), err) == (0, b'')


def test_a_reader_that_ends_is_no_failure():
    running = start()
    running.stdin.write(NOISE * 2)
    running.stdin.flush()
    running.stdout.readline()
    running.stdout.close()
    try:
        for _ in range(40):
            running.stdin.write(NOISE)
            running.stdin.flush()
    except BrokenPipeError:
        pass
    err = running.stderr.read()
    assert (running.wait(timeout=10), err) == (0, b'')


@pytest.mark.parametrize('data, reason', [
    (b'', 'no audio in it'), (NOISE[:-1], 'the last sample is cut'), (b'RIFF' + NOISE, 'a WAV file')])
def test_what_is_no_raw_sound_is_one_line(data, reason):
    running = start()
    out, err = running.communicate(data, timeout=60)
    assert running.returncode == 1 and reason in err.decode() and len(err.splitlines()) == 1, err


@pytest.mark.parametrize('rounds', [3, pytest.param(120, marks=pytest.mark.slow)]) # of five minutes: ten hours
def test_memory_does_not_grow_with_the_hours(rounds):
    running, sizes = start('--hop', '3'), []
    process = psutil.Process(running.pid)
    for _ in range(rounds):
        for _ in range(150): # five minutes of sound, faster than real time
            running.stdin.write(NOISE)
        for _ in range(100 if sizes else 95): # as many lines; those of the last seconds come with the next sound
            running.stdout.readline()
        sizes.append(process.memory_info().rss / 2 ** 20)
    running.communicate(timeout=30)
    assert running.returncode == 0 and sizes[-1] - sizes[0] < 20, sizes


def test_sound_that_a_slow_model_cannot_take_is_skipped_and_told():
    from ser_nb.streaming import SoundBuffer
    live = SoundBuffer(RATE, most=1, overrun='auto')
    start = time.monotonic()
    for k in range(15): # in real time, and nobody takes it
        live.put(np.full(RATE // 10, k))
        time.sleep(max(0, start + (k + 1) / 10 - time.monotonic()))
    live.close()
    skipped, *kept = live
    assert skipped + sum(map(len, kept)) == 1.5 * RATE and kept[-1][0] == 14


def test_sound_that_is_skipped_at_the_end_of_a_stream_is_told_too(capsys):
    from ser_nb.predict_commands import print_stream
    from ser_nb.prediction import EmotionModel
    noise = np.float32(.1 * np.random.default_rng(0).normal(size=3 * RATE))
    print_stream(EmotionModel.load(model='functionals'), [noise, RATE], RATE)
    out, told = capsys.readouterr()
    assert out.count('\n') == 1 and told == 'overrun: 1.0 s were skipped\n'


class Microphone:
    "Stands for sounddevice: blocks of noise, then the cable is pulled; one block was lost"
    class PortAudioError(Exception): pass

    def __init__(self): self.n = 0

    def query_devices(self, device, kind):
        if device == 'none': raise ValueError("No input device matching 'none'")
        return dict(default_samplerate=48000.)

    def InputStream(self, sr, **settings): return self
    def __enter__(self): return self
    def __exit__(self, *error): pass

    def read(self, n):
        self.n += 1
        if self.n > 250: raise self.PortAudioError('Device unavailable')
        return np.random.default_rng(self.n).normal(0, .1, (n, 1)).astype(np.float32), self.n == 240


def test_a_microphone_gives_samples_and_lost_ones_are_told(monkeypatch):
    from ser_nb.streaming import buffered, microphone
    monkeypatch.setitem(sys.modules, 'sounddevice', Microphone())
    sr, blocks = microphone()
    found = buffered(blocks, sr, most=60, overrun='skip')
    with pytest.raises(OSError, match='microphone: Device unavailable'):
        taken = []
        for block in found: taken.append(block)
    assert sr == 48000 and sum(isinstance(b, int) for b in taken) == 1 and len(taken) == 251
    with pytest.raises(OSError, match="microphone: No input device matching 'none'"):
        microphone('none')


def test_without_sounddevice_the_missing_package_is_named(monkeypatch):
    from ser_nb.streaming import microphone
    monkeypatch.setitem(sys.modules, 'sounddevice', None)
    with pytest.raises(OSError, match='sounddevice is missing: pip install sounddevice'):
        microphone()
