"""Malformed input for every entry point; and worker processes that it cannot hang, kill or bloat unseen

A door is a function of (kind, a random.Random, a folder) that yields an outcome for each input:
'works' or 'refused'. What it raises is a fault.
"""
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import tempfile
import zipfile
from collections import Counter, namedtuple
from functools import lru_cache
from pathlib import Path

from helpers import command

LONG = os.environ.get('SER_NB_CAMPAIGN') == 'long'
SEED = os.environ.get('SER_NB_SEED', '') # another one makes other inputs
SECONDS, MEMORY_MB = 30, 1024 # the most that one input may take, and that all of them may add


# mutations of bytes and of values

EXTREMES = (b'\0' * 4, b'\xff' * 4, b'\xff\xff\xff\x7f', b'\0\0\0\x80', b'\1\0\0\0', b'\0\0\0\1')


def mutated(data, rng, other=b''):
    "Bytes that were cut, flipped, overwritten, repeated, or mixed with others; more often near the start (headers)"
    data = bytearray(data)
    def place():
        return rng.randrange(max(len(data) if rng.random() < .4 else min(len(data), 200), 1))
    def flip(): data[place()] ^= 1 << rng.randrange(8)
    def extreme():
        i = place()
        data[i : i + 4] = rng.choice(EXTREMES)
    def noise():
        i = place()
        data[i : i + 8] = rng.randbytes(8)
    def cut(): del data[place():]
    def drop():
        i = place()
        del data[i : i + rng.randrange(1, 64)]
    def repeat():
        i = place()
        data[i:i] = data[i : i + rng.randrange(1, 2000)]
    def zeros():
        i = place()
        n = rng.randrange(1, 2000)
        data[i : i + n] = bytes(len(data[i : i + n]))
    def splice():
        i = place()
        data[i:] = other[min(i, len(other)) :] or rng.randbytes(50)
    def junk(): data.extend(rng.randbytes(rng.randrange(1, 500)))
    for _ in range(rng.choice((1, 1, 2, 4, 9))):
        if data: rng.choice((flip, flip, extreme, extreme, noise, cut, drop, repeat, zeros, splice, junk))()
    return bytes(data)


STRANGE = (
    None, True, 0, -1, 1, 2**70, 1e308, 1e-320, float('nan'), float('inf'), '', ' ', 'nan', '\0', '\ud800',
    '<script>alert(1)</script>', '../../x', '٣', 'x' * 70000, [], [[]], [None] * 40, {}, {'': {}},
    {'accuracy': 'x'})


def changed(value, rng):
    "A JSON value in which something, somewhere, is something else"
    if not isinstance(value, (dict, list)) or not value or rng.random() < .15: return rng.choice(STRANGE)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy = value.copy()
    if rng.random() < .15: del copy[key]
    else: copy[key] = changed(value[key], rng)
    return copy


BROKEN_JSON = (
    '', '{', '[' * 100_000, '{"a":' * 50_000, '1' * 5000, 'null', '[]', '"x"', '\ufeff{}', '{"a": 1}{',
    'NaN')


def json_text(value, rng):
    "Text of a changed value, or of nothing sensible"
    text = json.dumps(changed(value, rng))
    return (
        rng.choice(BROKEN_JSON).encode()
        if rng.random() < 0.1
        else mutated(text.encode(), rng) if rng.random() < 0.3 else text.encode())


def csv_bytes(table, rng):
    "A table with strange cells, columns or bytes"
    table = table.copy().astype(object)
    for _ in range(rng.choice((1, 1, 3))):
        table.iat[rng.randrange(len(table)), rng.randrange(table.shape[1])] = rng.choice(
            [s for s in STRANGE if isinstance(s, (str, int, float)) and s != '\ud800']
            + ['a,b', '"', 'a\nb', '=1+1', '/dev/zero', '/etc/passwd', '.', '1e999'])
    def drop(): return table.drop(columns=rng.choice(list(table)))
    def double(): return table[[*table, rng.choice(list(table))]]
    def shuffle(): return table[rng.sample(list(table), table.shape[1])]
    def rename():
        return table.rename(
            columns={rng.choice(list(table)): rng.choice(('', 'x', 'mfcc_99', 'Unnamed: 0', 'fn_x'))})
    def none(): return table[:0]
    way = rng.choice((None, None, None, drop, double, shuffle, rename, none))
    data = (way() if way else table).to_csv(index=False, lineterminator='\n').encode('utf-8', 'surrogatepass')
    return mutated(data, rng) if rng.random() < .3 else data


# doors

def said_no(args, name):
    "The outcome of a command: what it refuses, it refuses by name and in few lines"
    code, _, said = command(*args)
    if not code or code == 1 and not said: return 'works' # the linter ends with 1 where it has found something
    assert name in said and len(said.strip().splitlines()) <= 4 and len(said) < 4000, said[:4000]
    return 'refused'


def refused(do, name=''):
    "The outcome of a function: a ValueError or OSError in a line that has `name` in it is a refusal"
    try: do()
    except (ValueError, OSError) as e:
        assert name in str(e) and '\n' not in str(e).strip(), repr(e)
        return 'refused'
    return 'works'


FORMATS = {
    'wav': dict(format='WAV', subtype='PCM_16'), 'float.wav': dict(format='WAV', subtype='FLOAT'),
    '8bit.wav': dict(format='WAV', subtype='PCM_U8'), 'adpcm.wav': dict(format='WAV', subtype='IMA_ADPCM'),
    'flac': dict(format='FLAC'), 'ogg': dict(format='OGG', subtype='VORBIS'),
    'opus': dict(format='OGG', subtype='OPUS'), 'mp3': dict(format='MP3'), 'aiff': dict(format='AIFF'),
    'au': dict(format='AU'), 'caf': dict(format='CAF'), 'w64': dict(format='W64'),
    'rf64': dict(format='RF64')}


@lru_cache
def sounds():
    "Format -> the bytes of a short sound in it"
    import numpy as np
    import soundfile as sf
    t, found = np.arange(12000) / 24000, {}
    tone = .2 * sum(np.sin(2 * np.pi * 180 * k * t) / k for k in range(1, 9)) * np.hanning(len(t))
    for name, how in FORMATS.items():
        sf.write(file := io.BytesIO(), tone, 24000, **how)
        found[name] = file.getvalue()
    return found


def write_sounds(kind, rng, folder, n, name='{i:03}.{kind}'):
    "n mutated sounds of a format and a good one among them"
    others = list(sounds().values())
    paths = [folder/name.format(i=i, kind=kind) for i in range(n)]
    for path in paths: path.write_bytes(mutated(sounds()[kind], rng, rng.choice(others)))
    (good := folder/name.format(i=n // 2, kind=f'good.{kind}')).write_bytes(sounds()[kind])
    return paths, good


def with_shared_model():
    "The command loads its model once for all calls"
    import ser_nb.predict_commands as predict_commands
    predict_commands.chosen_model = lambda run, name: loaded()


@lru_cache
def loaded():
    from ser_nb.prediction import EmotionModel, pretrained
    return EmotionModel.load(pretrained())


def read_whole(path, seconds=None):
    "That a second reading of a file that worked has the same samples, and as many of them as a door told"
    found = read_twice(path)
    assert found is not None, f'{path}: works, but cannot be read'
    samples, sr, _ = found
    assert (
        seconds is None or abs(seconds - len(samples) / sr) < 0.05
    ), f'{path}: {seconds} s, {len(samples) / sr} by another reading'


def predict(kind, rng, folder, n):
    "`ser-nb predict FOLDER`: every bad file has its line, and the good one among them its answer"
    with_shared_model()
    paths, good = write_sounds(kind, rng, folder, n)
    _, out, told = command('predict', folder, '--json')
    answered = {r['file']: r['end_s'] for r in map(json.loads, out.splitlines())}
    lines = [line for line in told.splitlines() if not re.fullmatch(r'\d+ of \d+ files were skipped', line)]
    assert str(good) in answered and all(line.startswith(f'{folder}/') for line in lines), told[:2000]
    for path in paths:
        works = str(path) in answered
        assert works or f'{path}: ' in told, path
        if works: read_whole(path, answered[str(path)])
        yield 'works' if works else 'refused'


def extraction(kind, rng, folder, n):
    "From files to rows: scan and extract; the good clip comes out"
    from ser_nb.combining_datasets import scan
    from ser_nb.corpora import write_clips
    from ser_nb.feature_extraction import extract
    paths, good = write_sounds(kind, rng, folder, n)
    paths = [p.rename(folder/f'03-01-05-01-01-01-{1 + i:02}{p.suffix}') for i, p in enumerate(paths)]
    good = good.rename(folder/f'03-02-05-01-01-01-01{good.suffix}')
    clips, rejected = scan(folder, n_jobs=1)
    write_clips(clips, folder/'clips.csv')
    table, failed = extract(clips, n_jobs=1, more='functionals')
    assert (
        good.stem in set(table.file)
        and len(clips) + len(rejected) == n + 1
        and len(table) + len(failed) == len(clips))
    lost = set(rejected.path) | set(failed.path)
    seconds = dict(zip(clips.path, clips.duration_s))
    for path in paths:
        if str(path) not in lost: read_whole(path, seconds[str(path)])
        yield 'refused' if str(path) in lost else 'works'


def upload(kind, rng, folder, n):
    "The demo: an upload is answered, and is deleted"
    from ser_nb.demo import Uploads, answer_upload
    (folder/'uploads').mkdir(exist_ok=True)
    uploads = Uploads(folder/'uploads')
    for sound in write_sounds(kind, rng, folder, n)[0]:
        with open(sound, 'rb') as f: path = Path(uploads.add(f, sound.name))
        said = answer_upload(loaded(), str(path), uploads)
        assert not path.exists() and (
            'No prediction' in said or 'data-emotion' in said or 'Silence' in said
        ), said[-300:]
        if 'No prediction' not in said: read_whole(sound)
        yield 'refused' if 'No prediction' in said else 'works'


def bombs(rng):
    "The bytes of a sound that promises, or is made of, far too much"
    def forged(kind, *places):
        data = bytearray(sounds()[kind])
        for at in places: data[at:at + 4] = rng.choice(EXTREMES)
        return bytes(data)
    def long_ogg():
        data = bytearray(sounds()[rng.choice(('ogg', 'opus'))])
        last = data.rfind(b'OggS')
        data[last + 6:last + 14] = rng.randbytes(6) + bytes(2)
        return bytes(data)
    def long_flac(): # 36 bits of samples, 3 of channels, 20 of rate
        data = bytearray(sounds()['flac'])
        data[18:26] = rng.randbytes(8)
        return bytes(data) + bytes(rng.choice((0, 2_000_000)))
    def many_parts(): return sounds()[rng.choice(('flac', 'opus', 'mp3'))] * rng.choice((30, 300))
    def tags(): return b'ID3\4\0\0' + rng.choice((b'\x7f' * 4, b'\0\0\x7f\x7f')) + sounds()['mp3']
    def chunks(): return sounds()['wav'][:12] + b'JUNK\0\0\0\0' * rng.randrange(1, 60_000) + sounds()['wav'][12:]
    def channels(): return forged('wav', 22, 24) if rng.random() < .5 else forged('aiff', 20, 22)
    def table():
        return sounds()['mp3'].replace(b'Info\0\0\0', b'Info\0\0\0').replace(b'\0\0\0\x17', rng.randbytes(4), 1)
    return rng.choice((long_ogg, long_flac, many_parts, tags, chunks, channels, table))()


def odd_path(path, rng, good):
    "Something that is no file of sound, under the name of one"
    def fifo(): os.mkfifo(path)
    def device(): path.symlink_to(rng.choice(['/dev/zero', '/dev/urandom', '/dev/full', '/dev/null', '/dev/tty']))
    def loop(): path.symlink_to(path.name)
    def nowhere(): path.symlink_to('/nowhere/at/all')
    def folder(): path.mkdir()
    def of_itself(): path.symlink_to('.')
    def link(): path.symlink_to(good)
    def file_of_the_system():
        path.symlink_to(rng.choice(['/etc/passwd', '/proc/self/environ', '/proc/kmsg', '/proc/self/mem']))
    def socket():
        import socket as sockets
        with sockets.socket(sockets.AF_UNIX) as s:
            here = os.getcwd()
            os.chdir(path.parent) # its name may have 107 bytes
            try: s.bind(path.name)
            finally: os.chdir(here)
    def sparse():
        path.write_bytes(sounds()['wav'])
        os.truncate(path, rng.choice((2**30, 2**38, 2**43)))
    def zeros():
        path.touch()
        os.truncate(path, rng.choice((2**30, 2**38, 2**43)))
    rng.choice((fifo, device, loop, nowhere, folder, of_itself, link, file_of_the_system, socket, sparse, zeros))()


ODD_NAMES = (b'caf\xe9', b'\x1b[2J', b'a\nb', b'$(x)', b'-', b'--json', b'\xff\xfe', b"'", b'{{x}}', 'ü'.encode() * 50)


def odd_sounds(kind, rng, folder, n):
    "FIFOs, devices, links, bombs and odd names under the names of sounds, by `predict`, and by scan and extract"
    from ser_nb.combining_datasets import scan
    from ser_nb.feature_extraction import extract
    with_shared_model()
    (good := folder/'good.wav').write_bytes(sounds()['wav'])
    (inside := folder/'in').mkdir()
    paths = []
    for i in range(n):
        stem = f'03-01-05-01-01-01-{i + 1:02}'
        if kind == 'names':
            path = Path(
                os.fsdecode(os.fsencode(inside) + b'/' + rng.choice(ODD_NAMES) + f'{stem}.wav'.encode()))
        else:
            path = inside/f'{stem}.wav'
        paths.append(path)
        if kind == 'paths': odd_path(path, rng, good)
        else: path.write_bytes(bombs(rng) if kind == 'bombs' else mutated(sounds()['wav'], rng))
    code, out, told = command('predict', good, *paths, '--json')
    answered = out.splitlines()
    assert [json.loads(l)['file'] for l in answered][0] == str(good) and '\x1b' not in told, (out, told)
    assert len(answered) + len({l.partition('.wav')[0] for l in told.splitlines()}) >= n + 1 and code in (0, 1), told
    (inside/'03-01-05-01-01-01-24.wav').write_bytes(sounds()['wav'])
    clips, rejected = scan(inside, n_jobs=1)
    table, failed = extract(clips, n_jobs=1)
    assert '03-01-05-01-01-01-24' in set(table.file) and len(table) + len(failed) == len(clips)
    for i in range(n): yield 'works' if i < len(answered) - 1 else 'refused'


SECRET = b'the secret of this machine'
CALLS = [
    '/', '/config', '/theme.css', '/gradio_api/info', '/gradio_api/upload', '/gradio_api/queue/join',
    '/gradio_api/queue/data', '/gradio_api/call/answer', '/gradio_api/run/answer', '/gradio_api/api/answer',
    '/gradio_api/file={secret}', '/gradio_api/file/{secret}', '/gradio_api/deep_link?session_hash=x',
    '/gradio_api/stream/x/y/z/playlist.m3u8', '/gradio_api/proxy=http://127.0.0.1/',
    '/gradio_api/component_server', '/gradio_api/reset', '/gradio_api/cancel',
    '/gradio_api/upload_progress?upload_id=x', '/monitoring', '/login', '/docs', '/openapi.json',
    '/static/../{secret}', '/assets/..%2f..%2f..%2f{secret}', '/static/x.js', '/svelte/%00', '//{secret}',
    '/gradio_api/heartbeat/x']


@lru_cache
def served():
    "(port, uploads, cookie-less host) of a demo in a thread of this process"
    import socket
    import threading

    import uvicorn

    import ser_nb.demo as page
    root = Path(tempfile.mkdtemp(dir=os.environ['CAMPAIGN_DIR']))
    uploads = page.Uploads(root, 1, 3)
    app = page.guard(page.block_external_requests(page.demo_app(loaded(), uploads)), uploads)
    listening = socket.create_server(('127.0.0.1', 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level='critical', ws='none'))
    threading.Thread(target=server.run, kwargs=dict(sockets=[listening]), daemon=True).start()
    return listening.getsockname()[1], uploads


def sent(port, request, until=None):
    "What a server answers to bytes: to the end, as far as `until`, or to the first event of a stream"
    import socket
    with socket.create_connection(('127.0.0.1', port), timeout=20) as s:
        got = b''
        try:
            s.sendall(request)
            while block := s.recv(1 << 16):
                got += block
                if until in got if until else b'text/event-stream' in got: break
        except (ConnectionError, BrokenPipeError): pass # it hung up
        return got


def http_request(method, path, body=b'', **headers):
    headers = {'Host': 'localhost', 'Connection': 'close', 'Content-Length': len(body)} | headers
    lines = [f'{method} {path} HTTP/1.1', *(f'{k.replace("_", "-")}: {v}' for k, v in headers.items())]
    return '\r\n'.join(lines).encode('utf-8', 'surrogateescape') + b'\r\n\r\n' + body


def multipart(name, content):
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b'\r\n--x--\r\n'


FORM = {'Content-Type': 'multipart/form-data; boundary=x'}


def upload_by_http(port, content):
    got = sent(port, http_request('POST', '/gradio_api/upload', multipart('a.wav', content), **FORM), b'"]')
    return json.loads(got.partition(b'\r\n\r\n')[2])[0] if b' 200 ' in got[:20] else ''


def some_request(kind, rng, port, secret):
    "The bytes of a request, of its usual form, changed"
    method = rng.choice(('GET', 'POST', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'X'))
    path = rng.choice(CALLS).replace('{secret}', str(secret))
    if kind == 'routes':
        if rng.random() < 0.3:
            path = mutated(path.encode(), rng).decode('latin-1').replace('\r', '').replace('\n', '') or '/'
        return http_request(method, path, rng.choice((b'', b'{}', rng.randbytes(30))))
    if kind == 'headers':
        host = rng.choice(
            ('evil.example', 'localhost.evil', '127.0.0.1.nip.io', '', 'localhost@evil', '[::1', 'x' * 5000)
        )
        more = rng.choice(
            (dict(Host=host), dict(Origin=f'http://{host}'), dict(Origin='null'), dict(Host='localhost, evil'))
        )
        body = json.dumps(dict(data=[dict(path=str(secret))])).encode()
        return http_request('POST', rng.choice(('/gradio_api/queue/join', '/gradio_api/upload')), body, **more)
    if kind == 'uploads':
        body = multipart(
            rng.choice(('a.wav', '../../x', '/etc/x', '\0', 'x' * 3000, '"')),
            rng.choice((sounds()['wav'], b'', SECRET)))
        if rng.random() < .5: body = mutated(body, rng)
        return http_request(
            'POST', '/gradio_api/upload', body,
            **(FORM if rng.random() < 0.8 else {'Content-Type': 'text/plain'}))
    file = dict(path=str(secret), meta={'_type': 'gradio.FileData'})
    if rng.random() < .3: file['path'] = upload_by_http(port, mutated(sounds()['wav'], rng))
    if rng.random() < 0.2:
        file |= rng.choice((dict(is_stream=True), dict(url='file:///etc/passwd'), dict(orig_name='x')))
    body = dict(data=[file], fn_index=rng.choice((0, 1, 2, -1)), session_hash=f's{rng.randrange(10**9)}')
    content = json_text(body, rng) if rng.random() < .6 else json.dumps(body).encode()
    return http_request('POST', rng.choice(CALLS[5:10]), content, **{'Content-Type': 'application/json'})


def demo_http(kind, rng, folder, n):
    "The demo over HTTP: no error of the server, nothing of this machine in an answer, no other file deleted or left"
    from ser_nb.demo_gate import discard
    (secret := folder/'secret.wav').write_bytes(SECRET)
    port, uploads = served()
    for _ in range(n):
        request = some_request(kind, rng, port, secret)
        got = sent(port, request)
        status = int(got[9:12]) if got.startswith(b'HTTP/1.1 ') else 400
        assert status < 500 or status in (503, 507), (request[:300], got[:300])
        assert secret.read_bytes() == SECRET and SECRET not in got.partition(b'\r\n\r\n')[2], request[:300]
        if kind == 'requests' and status == 200 and b'queue/join' in request:
            session = re.search(rb'"session_hash": "([^"]*)"', request)
            assert session, request
            data = http_request('GET', f'/gradio_api/queue/data?session_hash={session[1].decode()}')
            assert b'process_completed' in sent(port, data, b'process_completed'), request[:600]
        for path in list(uploads.waiting): discard(uploads, path)
        assert not [p for p in uploads.root.rglob('*') if p.is_file()], request[:300]
        yield 'works' if status == 200 else 'refused'


@lru_cache
def every_sound():
    "FORMAT-SUBTYPE -> the bytes of a short noise, for all that libsndfile writes"
    import numpy as np
    import soundfile as sf
    noise, found = np.random.default_rng(0).uniform(-.3, .3, 6000), {}
    for format in set(sf.available_formats()) - {'RAW', 'SD2'}: # one needs parameters, the other a second file
        for subtype in sf.available_subtypes(format):
            try: sf.write(file := io.BytesIO(), noise, 8000, format=format, subtype=subtype)
            except sf.LibsndfileError: continue
            found[f'{format}-{subtype}'] = file.getvalue()
    return dict(sorted(found.items()))


def poisoned(path, frames):
    "What soundfile reads into a buffer of NaN, which shows memory that was never written; None where it cannot"
    import numpy as np
    import soundfile as sf
    try:
        with sf.SoundFile(path) as f:
            return f.read(out=np.full((frames, f.channels), np.nan, np.float32))
    except (sf.LibsndfileError, ValueError): # lengths that are not known, for instance
        return None


def by_ffmpeg(path):
    "(samples of a channel, the sum of their absolute values, rate) as FFmpeg decodes a file; None where it cannot"
    import av
    import numpy as np
    av.logging.set_level(av.logging.PANIC)
    n, total, resampler = 0, 0., av.AudioResampler(format='fltp')
    try:
        with av.open(str(path)) as f:
            for frame in [*f.decode(audio=0), None]:
                blocks = [part.to_ndarray() for part in resampler.resample(frame)]
                n += sum(b.shape[1] for b in blocks)
                total += sum(float(np.abs(b).sum(dtype='f8')) for b in blocks)
            return n, total, f.streams.audio[0].codec_context.sample_rate
    except (av.FFmpegError, IndexError): # a format, or a codec, that is none of its
        return None


EXACT = re.compile('PCM_|FLOAT|DOUBLE|ULAW|ALAW|ALAC') # subtypes that each decoder decodes alike


def agrees(name, samples, sr, theirs, times=1):
    "Whether a second decoder found as many samples, and of the same sum; both `times` as long as its own"
    import numpy as np
    n, total, their_sr = theirs
    n, total = times * n * sr / their_sr, times * total * sr / their_sr
    few, share = (0, 1e-5) if EXACT.search(name) else (times * 700, .05) # codecs round to blocks, and at their ends
    ours = float(np.abs(samples).sum(dtype='f8'))
    assert abs(len(samples) - n) <= few and abs(ours - total) <= share * total, (
        f'{name}: {len(samples)} samples of the sum {ours}, by FFmpeg {n} and {total}')


def is_mp3(path):
    from ser_nb.containers import ByteReader, mpeg_streams
    with open(path, 'rb') as f: return bool(mpeg_streams(ByteReader(f)))


def read_twice(path):
    "(samples, rate, whether there was a warning), after a second reading agreed with the first; None = refused"
    import warnings

    import numpy as np
    import pytest

    from ser_nb.audio import SoundWarning, load_sound, open_sound
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        try:
            with open_sound(path) as f: ours, sr = f.read(), f.samplerate
        except ValueError as e:
            assert str(e) and '\n' not in str(e)
            return None
    if not len(ours): # nothing is left of a cut file: every front door says so
        with pytest.raises(ValueError, match='no audio in it'): load_sound(path)
        return None
    # of MP3 libsndfile guesses the length, and reads by the guess
    theirs = None if is_mp3(path) else poisoned(path, len(ours))
    if theirs is not None:
        n = min(len(ours), len(theirs))
        assert np.array_equal(ours[:n], theirs[:n], equal_nan=True), f'{path}: other samples than soundfile reads'
    return ours, sr, any(w.category is SoundWarning for w in told)


CHAINED = ('FLAC-', 'OGG-', 'MP3-') # formats whose files can follow each other


@lru_cache
def reference(name):
    "What FFmpeg makes of a whole file, and our samples of it"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/f'x.{name.split("-")[0].lower()}'
        path.write_bytes(every_sound()[name])
        return by_ffmpeg(path), read_twice(path)


def with_flipped_samples(whole, rng):
    "A file of which only samples were changed, not the header"
    data = bytearray(whole)
    for _ in range(rng.randrange(1, 40)):
        data[rng.randrange(len(data) * 2 // 5, len(data) - 8)] ^= 1 << rng.randrange(8)
    return bytes(data)


def decoding(kind, rng, folder, n):
    "Whole, cut, doubled, headerless, flipped and mutated files of each libsndfile format, against a second decoder"
    for i in range(n):
        name = rng.choice(list(every_sound()))
        whole = every_sound()[name]
        content = dict(
            whole=lambda: whole, doubled=lambda: whole * 2, flipped=lambda: with_flipped_samples(whole, rng),
            cut=lambda: whole[: int(len(whole) * rng.uniform(0.02, 0.9))],
            headerless=lambda: whole[rng.randrange(1, 200) :],
            mutated=lambda: mutated(whole, rng, rng.choice(list(every_sound().values()))),
        )[kind]()
        (path := folder/f'{i}.{name.split("-")[0].lower()}').write_bytes(content)
        found = read_twice(path)
        if found is None:
            assert kind != 'whole' or 'ALAC_32' in name, f'{name}: a whole file is refused'
            yield 'refused'
            continue
        yield 'works, as a second decoder has it' if compared(kind, name, path, *found) else 'works'


def compared(kind, name, path, samples, sr, warned):
    "Whether a second decoder could be asked about a file, and agreed"
    import numpy as np
    theirs, ours = reference(name)
    if kind == 'whole': assert 6000 <= len(samples) <= 8048 and np.abs(samples).mean() > .02, (name, len(samples))
    if kind == 'cut': # what is left of it is how the whole one begins
        assert warned, f'{name}: a cut file works without a word'
        assert len(samples) < len(ours[0]) and np.array_equal(samples, ours[0][:len(samples)]), name
    if kind == 'doubled' and not name.startswith(CHAINED):
        assert warned, f'{name}: the second sound is left out without a word'
    if kind in ('headerless', 'mutated') or theirs is None: return False
    if kind in ('flipped', 'cut'):
        if kind == 'flipped' and (not re.search('PCM_|ULAW|ALAW', name) or name.startswith('FLAC')): return False
        theirs = by_ffmpeg(path)
    elif kind == 'doubled' and len(samples) > len(ours[0]) and not name.startswith(CHAINED): # no length in its header
        return False
    if theirs: agrees(name, samples, sr, theirs, 2 if kind == 'doubled' and name.startswith(CHAINED) else 1)
    return bool(theirs)


def archive_of(kind, rng, path):
    "A zip archive: of its usual form, changed; with names that lead out; larger inside than it seems"
    names = (
        ['Actor_01/03-01-05-01-01-01-01.wav', 'a/b.txt']
        if kind == 'bytes'
        else [
            rng.choice(
                (
                    '../x', '/x', 'a/../../x', 'C:/x', '..\\x', 'a//b', 'a', 'a/b', '.', '', 'x' * 300,
                    'ü\0y', 'a/' * 200 + 'b', 'con', '\x1b[31m'))
            for _ in range(rng.randrange(1, 5))])
    with zipfile.ZipFile(
        path, 'w', rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    ) as z:
        import warnings

        warnings.simplefilter('ignore')  # of two members with one name
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type = z.compression
            if kind == 'links': info.external_attr = 0o120777 << 16
            z.writestr(info, bytes(4_000_000) if kind == 'bombs' else sounds()['wav'][:3000])
    if kind == 'bytes' or rng.random() < .3:
        data = path.read_bytes()
        # the directory is at its end
        path.write_bytes(mutated(data, rng) if rng.random() < .5 else data[:-200] + mutated(data[-200:], rng))


def archives(kind, rng, folder, n):
    "unpack: nothing is written outside, no link, no half folder"
    from ser_nb.combining_datasets import unpack
    for i in range(n):
        path = folder/f'{i}.zip'
        archive_of(kind, rng, path)
        outcome = refused(lambda: unpack(path, folder/'in'/str(i)), path.name)
        found = list((folder/'in').rglob('*')) if (folder/'in').exists() else []
        assert (
            not any(p.is_symlink() or p.name.endswith('.part') for p in found)
            and sum(p.stat().st_size for p in found if p.is_file()) < 50e6)
        assert {p.name for p in folder.iterdir()} <= {f'{k}.zip' for k in range(n)} | {'in'} and not (
            folder.parent/'x'
        ).exists()
        yield outcome


@lru_cache
def some_clips():
    from ser_nb.combining_datasets import sample_corpus, scan
    return scan(sample_corpus(Path(tempfile.mkdtemp(dir=os.environ['CAMPAIGN_DIR']))/'corpus', words=0))[0][:24:2]


def clip_tables(kind, rng, folder, n):
    "A clip table by the linter's command, or read and extracted: the rows that are good come out"
    from ser_nb.corpora import CLIP_COLUMNS, read_clips
    from ser_nb.feature_extraction import extract, padded_clips
    clips = some_clips()[list(CLIP_COLUMNS)]
    if kind == 'audit': clips = clips.assign(split=['train', 'test'] * 6)
    for i in range(n):
        (path := folder/f'{i}.csv').write_bytes(csv_bytes(clips, rng))
        if kind == 'audit':
            yield said_no(['audit', path], path.name)
            continue
        found = []
        outcome = refused(lambda: found.append(read_clips(path)), str(path))
        if found:
            table, failed = extract(found[0], n_jobs=1)
            padded_clips(found[0])
            assert len(table) + len(failed) == len(found[0])
        yield outcome


@lru_cache
def some_features():
    from ser_nb.feature_store import read_features
    from ser_nb.functionals import FEATURES, META_COLUMNS
    tables = read_features(companions='')
    return tuple(t[[*META_COLUMNS, *FEATURES]].groupby('label').head(2).round(4) for t in tables)


def feature_files(kind, rng, folder, n):
    "Feature files, and the functionals beside them"
    import numpy as np

    from ser_nb.feature_store import companion_file, read_features, write_features
    from ser_nb.functionals import FUNCTIONALS
    for _ in range(n):
        tables = some_features()
        if kind == 'functionals': tables = [t.assign(**dict.fromkeys(FUNCTIONALS[:20], 1.)) for t in tables]
        write_features(*tables, folder)
        path = folder/'test_features.csv'
        if kind == 'csv':
            path.write_bytes(csv_bytes(tables[1], rng))
            yield said_no(['audit', folder], path.name)
            continue
        path = companion_file(path)
        if rng.random() < 0.5:
            path.write_bytes(
                mutated(path.read_bytes(), rng)
                if rng.random() < 0.5
                else path.read_bytes()[:-300] + mutated(path.read_bytes()[-300:], rng))
        else:
            np.savez_compressed(
                path,
                **{
                    k: rng.choice(
                        (
                            np.array(1), np.array(tables[1].file, str), np.array(['fn_a', 'fn_a']),
                            np.zeros((len(tables[1]), 2)), np.array([None, 1], object), np.zeros((0, 3)),
                            np.array([b'x'])))
                    for k in ('clips', 'columns', 'values')})
        yield refused(lambda: read_features(folder), str(folder))


def with_shared_charmap():
    "Hypothesis makes its table of Unicode, which takes seconds, for the first door that draws text"
    from hypothesis.configuration import set_hypothesis_home_dir
    set_hypothesis_home_dir(Path(os.environ['CAMPAIGN_DIR']).parent.parent/'hypothesis')


def parameters(kind, rng, folder, n):
    "Calls of `ser-nb run`, up to the point where the job would start"
    import click
    import hypothesis.strategies as st
    from hypothesis import HealthCheck, given, seed, settings

    from ser_nb.pipeline import JOBS, job_parameters, plan
    with_shared_charmap()
    outcomes, names = [], sorted({p for job in JOBS for p in job_parameters(job)})
    value = st.one_of(
        st.text(), st.integers().map(str), st.floats().map(str),
        st.sampled_from(
            [
                'true', '0', '-1', '1e999', 'nan', '/', '..', '~', '$HOME', '`id`', ';ls', "'", '٣', '\0',
                '\udcff', '{{x}}', '1' * 5000]))
    @settings(max_examples=n, database=None, deadline=SECONDS * 1000, suppress_health_check=list(HealthCheck))
    @seed(rng.randrange(10**9))
    @given(
        st.lists(st.sampled_from(list(JOBS)) if kind != 'jobs' else st.text(), min_size=1, max_size=3),
        st.lists(st.tuples(st.sampled_from(names) | st.text(max_size=9), value), max_size=3),
        st.none() | value)
    def called(jobs, given, data):
        try: plan(jobs, given, data, folder, True)
        except click.UsageError as e:
            assert str(e)
            outcomes.append('refused')
            return
        outcomes.append('works')
    called()
    yield from outcomes


def names(kind, rng, folder, n):
    "File names"
    import hypothesis.strategies as st
    from hypothesis import HealthCheck, given, seed, settings

    from ser_nb.corpora import LABELS, dataset_name, parse_name, published_name
    from ser_nb.leakage import parent_clip
    with_shared_charmap()
    part = st.integers(0, 99).map('{:02}'.format) | st.text('0123456789٣²', min_size=1, max_size=3)
    near = dict(
        ravdess=st.lists(st.sampled_from(['01', '02', '03', '08']) | part, min_size=6, max_size=8).map(
            '-'.join),
        text=st.text(),
        tess=st.tuples(
            st.sampled_from(['OAF', 'YAF', 'oa', 'XAF', '']),
            st.sampled_from(['back', 'youth', 'ſhout', '']) | st.text(max_size=5),
            st.sampled_from(['fear', 'ps', 'PS', 'calm', 'K']) | st.text(max_size=5),
        ).map('_'.join),
    )[kind]
    outcomes = []
    @settings(max_examples=n, database=None, deadline=SECONDS * 1000, suppress_health_check=list(HealthCheck))
    @seed(rng.randrange(10 ** 9))
    @given(near, st.sampled_from(['', '.wav', '.WAV', '.tar.gz', '/']))
    def read(stem, ending):
        parent_clip(stem + ending)
        try: said = parse_name(stem + ending)
        except ValueError as e:
            assert str(e)
            outcomes.append('refused')
            return
        assert said['label'] in LABELS and (dataset_name(said), published_name(said))
        outcomes.append('works')
    read()
    yield from outcomes


@lru_cache
def stored(name):
    from ser_nb.prediction import pretrained
    return (pretrained()/name).read_bytes()


def model_files(kind, rng, folder, n):
    "A model whose files were changed, with the fingerprints of the changed ones as a forger would have them"
    from ser_nb.files import fingerprint
    from ser_nb.prediction import pretrained
    for i in range(n):
        run = folder/f'run{i}'
        run.mkdir()
        for name in ('model.json', 'model.h5', 'model.xml', 'model.bin'):
            if name != kind: shutil.copyfile(pretrained()/name, run/name)
        if kind == 'model.json': (run/kind).write_bytes(json_text(json.loads(stored(kind)), rng))
        else:
            (run / kind).write_bytes(mutated(stored(kind), rng))
            (run/'model.json').unlink()
            about = json.loads(stored('model.json'))
            about = about | (
                dict(sha256=fingerprint(run / kind))
                if kind == 'model.h5'
                else dict(openvino=about['openvino'] | {kind: fingerprint(run / kind)}))
            (run/'model.json').write_text(json.dumps(about))
        tone = folder/'tone.wav'
        tone.write_bytes(sounds()['wav'])
        code, out, said = command('predict', tone, '--run', run, '--json')
        assert not code or (str(run) in said and len(said.strip().splitlines()) <= 4 and len(said) < 4000), said
        yield 'refused' if code else 'works'


def keras_files(kind, rng, folder, n):
    "The same, loaded into Keras"
    from ser_nb.files import fingerprint
    from ser_nb.model_files import load_model
    from ser_nb.prediction import pretrained
    for i in range(n):
        run = folder/f'run{i}'
        shutil.copytree(pretrained(), run)
        (run/'model.h5').write_bytes(mutated(stored('model.h5'), rng))
        (run/'model.json').write_text(
            json.dumps(json.loads(stored('model.json')) | dict(sha256=fingerprint(run/'model.h5'))))
        yield refused(lambda: load_model(run), str(run))


def odd_file(path, rng):
    "Something that is no regular file, or far too large, in the place of a run's file"
    path.unlink()
    def link(): path.symlink_to(rng.choice(['/dev/zero', '/dev/full', '/etc/passwd', '/nowhere', str(path)]))
    def fifo(): os.mkfifo(path)
    def folder(): path.mkdir()
    def sparse():
        path.touch()
        os.truncate(path, rng.randrange(2**30, 2**43))
    rng.choice((link, fifo, folder, sparse))()


def odd_graph(path, rng):
    "A network of other inputs, outputs, shapes or answers in the place of a run's"
    import numpy as np

    from ser_nb.speech_encoder import import_openvino
    ov = import_openvino() # reports nothing over the network
    import openvino.opset13 as op
    wanted = len(json.loads(stored('model.json'))['features'])
    width, rank, n_inputs = (
        rng.choice((wanted, wanted, wanted, 1, 180, wanted + 1)), rng.choice((2, 2, 2, 1, 3)),
        rng.choice((1, 1, 1, 2)))
    xs = [op.parameter([-1, *[width] * (rank - 1)], np.float32) for _ in range(n_inputs)]
    x = op.reduce_sum(xs[-1], np.array(range(1, rank), np.int64), False)
    labels = rng.choice((16, 16, 16, 1, 8, 4096))
    y = op.matmul(
        op.unsqueeze(x, np.array(1)),
        op.constant(np.full((1, labels), rng.choice((0, 1, 1e30, np.inf, np.nan)), np.float32)), False,
        False)
    y = rng.choice(
        (
            lambda: op.softmax(y, 1), lambda: y, lambda: op.log(y), lambda: op.convert(y, 'f64'),
            lambda: op.reduce_max(y, np.array([0])), lambda: op.tile(y, np.array([3, 1])))
    )()
    ov.save_model(ov.Model(rng.choice(([y], [y, x])), xs), path.with_suffix('.xml'), compress_to_fp16=False)


def odd_h5(path, rng):
    "Links, other files, bombs and circles in a run's h5 file"
    import h5py
    with h5py.File(path, 'a') as f:
        group, name = f['model_weights'], rng.choice(('x', 'kernel', 'a/b'))
        if name in group: del group[name]
        def external(): group.create_dataset(name, (16,), 'u1', external=[('/etc/passwd', 0, 16)])
        def soft(): group[name] = h5py.SoftLink(rng.choice(('/', '/nowhere', '.')))
        def hard(): group[name] = f['/']
        def away(): group[name] = h5py.ExternalLink('/etc/passwd', '/')
        def bomb(): group.create_dataset(name, (2 ** rng.randrange(30, 50),), 'f8', compression='gzip')
        def many(): [group.create_group(f'{name}{i}') for i in range(3000)]
        rng.choice((external, soft, hard, away, bomb, many))()


def hostile_runs(kind, rng, folder, n):
    "An untrusted run, with fingerprints that fit its files: refused in one line, or answered with finite numbers"
    from ser_nb.files import fingerprint
    from ser_nb.model_files import load_model
    from ser_nb.prediction import pretrained
    (tone := folder/'tone.wav').write_bytes(sounds()['wav'])
    make, names = dict(
        files=(odd_file, ['model.json', 'model.h5', 'model.xml', 'model.bin']),
        graphs=(odd_graph, ['model.bin']), h5=(odd_h5, ['model.h5']),
    )[kind]
    for i in range(n):
        run = folder/f'run{i}'
        shutil.copytree(pretrained(), run)
        make(run/rng.choice(names), rng)
        if kind != 'files':
            about = json.loads(stored('model.json'))
            (run/'model.json').write_text(
                json.dumps(
                    about
                    | dict(
                        sha256=fingerprint(run/'model.h5'),
                        openvino={n: fingerprint(run / n) for n in about['openvino']})))
        if kind == 'h5':
            yield refused(lambda: load_model(run), str(run))
            continue
        code, out, said = command('predict', tone, '--run', run, '--json')
        assert not code or (str(run) in said and len(said.strip().splitlines()) <= 4 and len(said) < 4000), said
        assert code or not {'Infinity', 'NaN'} & set(re.findall(r'Infinity|NaN', out)), out
        yield 'refused' if code else 'works'
        shutil.rmtree(run)


@lru_cache
def some_metrics():
    from ser_nb.files import read_json
    from ser_nb.run_folder import notebooks_dir
    return {n: read_json(notebooks_dir()/'results'/f'{n}.json') for n in ('metrics', 'baselines', 'ladder')}


def run_folders(kind, rng, folder, n):
    "`ser-nb report` of a run whose metrics.json was changed, and of two"
    for i in range(n):
        for run in ('a', 'b'): (folder/run/'figures').mkdir(parents=True, exist_ok=True)
        (folder/'a'/'metrics.json').write_bytes(json_text(some_metrics()[kind], rng))
        (folder/'b'/'metrics.json').write_text(json.dumps(some_metrics()['metrics']))
        args = ['report', folder/'a'] if i % 2 else ['report', folder/'a', folder/'b', '--out', folder/'both.html']
        yield said_no(args, str(folder/'a'))


def tuned_parameters(kind, rng, folder, n):
    "A file of tuned parameters"
    from ser_nb.baselines import collected_file, read_parameters
    whole = json.loads(collected_file().read_text())
    for i in range(n):
        (path := folder/f'{i}.json').write_bytes(json_text(whole, rng))
        yield refused(lambda: read_parameters(path), path.name)


def streams(kind, rng, folder, n):
    "Raw samples as they come from a pipe: any numbers, in any pieces"
    import numpy as np

    from ser_nb.streaming import pcm_blocks, stream_predictions
    from ser_nb.windowing import Windowing
    odd = [float(v) for v in ('nan', 'inf', '-inf', '1e38', '-1e38', '1e-45', '0')]
    for _ in range(n):
        samples = np.float32([rng.uniform(-1, 1) for _ in range(100)] * rng.choice((0, 1, 90, 300)))
        samples *= np.float32(10.) ** rng.choice((0, 0, -9, -38, 9))
        for at in rng.sample(range(len(samples)), min(len(samples), rng.choice((0, 0, 1, 50)))):
            samples[at] = rng.choice(odd)
        data = samples.tobytes() + rng.choice((b'', b'', rng.randbytes(rng.randrange(9))))
        pipe = io.BytesIO(mutated(data, rng) if rng.random() < .3 else data)
        piece, channels = rng.choice((7, 512, 9999)), rng.choice((1, 1, 2, 64))
        def answers():
            blocks = pcm_blocks(lambda most: pipe.read(min(piece, most)), kind, channels)
            for row, _ in stream_predictions(loaded(), blocks, rng.choice((8000, 16000, 48000)), Windowing(1., .5)):
                assert all(np.isfinite(row[e]).all() for e in loaded().emotions) or row['reason'][0], row
        yield refused(answers)


WORDS = ('happy', 'joy', 'sad', '', 'rabbia', '\x00', '=1', '../x', '\x1b[2J', 'n' * 300, '٣')


def corpora(kind, rng, folder, n):
    "Tables and databases in the formats of others, and patterns of names, by `ser-nb corpus`"
    import pandas as pd
    good = '{speaker}_{emotion}_{take}.wav'
    pieces = ['{speaker}', '{emotion}', '{take}', '{', '}', '_', '/', '.wav', '(', '*', '{emotion}', '{x y}', '\\']
    for i in range(n):
        root = folder/f'corpus{i}'
        (root/'wav').mkdir(parents=True)
        stems = [f's{k % 3}_{rng.choice(("happy", "sad", "fear"))}_{k}' for k in range(6)]
        for stem in stems: (root/'wav'/f'{stem}.wav').write_bytes(sounds()['wav'])
        words = [rng.choice(WORDS) if rng.random() < .2 else s.split('_')[1] for s in stems]
        files = [f'wav/{s}.wav' if rng.random() < .95 else rng.choice(('/dev/zero', '..', '', 'x')) for s in stems]
        rows = pd.DataFrame(dict(file=files, emotion=words, speaker=[s[:2] for s in stems]))
        args = [root]
        if kind == 'audformat':
            header = dict(name='x', schemes=dict(emotion=dict(dtype='str')), tables=dict(
                files=dict(type='filewise', columns=dict(emotion=dict(scheme_id='emotion')))))
            (root/'db.yaml').write_bytes(json_text(header, rng))
            (root/'db.files.csv').write_bytes(csv_bytes(rows, rng))
        elif kind == 'audiofolder':
            (root/'metadata.csv').write_bytes(csv_bytes(rows.rename(columns=dict(file='file_name')), rng))
        elif kind == 'emobox':
            told = [dict(wav=f, emo=w, dataset=rng.choice(('x', 'emodb')), length=1.) for f, w in zip(files, words)]
            lines = [json_text(line, rng) if rng.random() < .1 else json.dumps(line).encode() for line in told]
            args = [root/'fold_train_1.jsonl']
            args[0].write_bytes(b'\n'.join(lines))
        elif kind == 'table':
            args = [root/'clips.csv']
            args[0].write_bytes(csv_bytes(rows.rename(columns=dict(file='path')), rng))
        elif kind == 'pattern':
            args += ['--pattern', rng.choice((good, ''.join(rng.choices(pieces, k=rng.randrange(1, 8)))))]
        else:
            good_map = '{ happy = "joy", sad = "sad", fear = "fearful" }'
            emotion = rng.choice((good_map, good_map, '{ from = 1 }', '3', '"happy"', '{}'))
            pattern = rng.choice((good[:-4], *WORDS, '{speaker', '{emotion:[}_{x}', '(' * 200 + '{emotion}'))
            own = f'[x]\npattern = {json.dumps(pattern)}\nemotion = {emotion}\nlanguage = "en"\n'.encode()
            (root/'own.toml').write_bytes(mutated(own, rng) if rng.random() < .5 else own)
            args += ['--adapters', root/'own.toml']
        yield said_no(['corpus', *args], 'pattern' if kind == 'pattern' else root.name)


Door = namedtuple('Door', 'function kinds each short long') # inputs: of a batch, of the short and of the long form
DOORS = {
    'predict': Door(predict, list(FORMATS), 20, 60, 4200),
    'extraction': Door(extraction, list(FORMATS), 20, 60, 2000),
    'upload': Door(upload, list(FORMATS), 10, 20, 500),
    'decoding': Door(decoding, ['whole', 'cut', 'doubled', 'headerless', 'flipped', 'mutated'], 50, 600, 6000),
    'odd_sounds': Door(odd_sounds, ['paths', 'bombs', 'names'], 8, 24, 600),
    'demo_http': Door(demo_http, ['routes', 'requests', 'uploads', 'headers'], 20, 80, 2000),
    'archives': Door(archives, ['bytes', 'names', 'links', 'bombs'], 10, 40, 1000),
    'clip_tables': Door(clip_tables, ['extract', 'audit'], 10, 20, 600),
    'feature_files': Door(feature_files, ['csv', 'functionals'], 5, 10, 500),
    'parameters': Door(parameters, ['known', 'jobs'], 50, 100, 1200),
    'names': Door(names, ['ravdess', 'tess', 'text'], 50, 150, 1800),
    'model_files': Door(model_files, ['model.json', 'model.h5', 'model.xml', 'model.bin'], 5, 20, 400),
    'hostile_runs': Door(hostile_runs, ['files', 'graphs', 'h5'], 4, 12, 300),
    'keras_files': Door(keras_files, ['model.h5'], 3, 0, 30),
    'run_folders': Door(run_folders, ['metrics', 'baselines', 'ladder'], 10, 30, 900),
    'streams': Door(streams, ['s16le', 's32le', 'f32le'], 10, 30, 600),
    'corpora': Door(
        corpora, ['audformat', 'audiofolder', 'emobox', 'table', 'pattern', 'adapters'], 5, 30, 900),
    'tuned_parameters': Door(tuned_parameters, ['json'], 20, 20, 300)}


# workers

# a worker is forked from a process that has imported what most doors need; it has neither threads nor data of pytest's
IMPORTED = [
    'pandas', 'ser_nb.predict_commands', 'ser_nb.prediction', 'ser_nb.combining_datasets', 'ser_nb.feature_extraction',
    'ser_nb.leakage', 'ser_nb.report'] # not openvino: import_openvino leaves out its telemetry


def _status(key): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith(key)) / 1024 # MB


def _work(pipe, door, folder):
    "Serve batches (kind, seed): first one to warm up, then under a limit of memory"
    os.environ |= dict(CAMPAIGN_DIR=str(folder), SER_NB_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1')
    os.chdir(folder)
    function, n, base = DOORS[door].function, DOORS[door].each, 0
    while (batch := pipe.recv()) is not None:
        kind, seed = batch
        work = folder/f'{kind}-{seed}'
        work.mkdir()
        try:
            for outcome in function(kind, random.Random(f'{door} {kind} {seed} {SEED}'.strip()), work, n):
                pipe.send(outcome)
        except BaseException:
            import traceback
            pipe.send(f'fault: {traceback.format_exc()[-1500:]}'.encode('utf-8', 'replace').decode())
        shutil.rmtree(work)
        if not base:
            # address space is more than memory: 4 GB of it stop what asks for very much at once
            base, size = _status('VmHWM'), int((_status('VmSize') + 4 * MEMORY_MB) * 2 ** 20)
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        pipe.send(('done', _status('VmHWM') - base))


def run_batches(door, folder):
    """Feed a door: (kind, outcome) -> how many, and the most MB that a worker grew by.

    What hangs, dies or raises is an outcome, with the batch that does it again.
    """
    kinds, each, n = DOORS[door].kinds, DOORS[door].each, DOORS[door].long if LONG else DOORS[door].short
    batches, counts, most, worker = [(kinds[i % len(kinds)], i) for i in range(-(-n // each))], Counter(), 0., None
    forks = multiprocessing.get_context('forkserver')
    forks.set_forkserver_preload(IMPORTED)
    for batch in batches:
        if worker is None:
            pipe, theirs = forks.Pipe()
            worker = forks.Process(target=_work, args=(theirs, door, Path(tempfile.mkdtemp(dir=folder))))
            worker.start()
            theirs.close()
            limit = 120  # for its imports
        pipe.send(batch)
        while True:
            try: said = pipe.recv() if pipe.poll(limit) else 'fault: no answer in time'
            except EOFError:
                worker.join()
                said = f'fault: the process died ({worker.exitcode})'
            limit = SECONDS
            if isinstance(said, tuple):
                most = max(most, said[1])
                break
            counts[batch[0], f'{said}\n[{door} {batch}]' if said.startswith('fault') else said] += 1
            if said.startswith(('fault: no', 'fault: the')):
                worker.kill()
                worker.join()
                worker = None
                break
    if worker:
        pipe.send(None)
        worker.join(SECONDS)
    return counts, most
