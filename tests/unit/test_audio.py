"Sound that is cut, joined, guessed, forged or too faint: nobody gets other samples than those in the file"
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile as sf

from ser_nb.audio import (
    FAINTEST,
    SR,
    SoundWarning,
    inspect_sound,
    load_sound,
    open_sound,
    signal_blocks,
    temporary_sound,
    to_signal,
    trim,
)
from ser_nb.containers import OPEN_ENDED, ByteReader, mpeg_header, sound_end

pytestmark = pytest.mark.unit

NOISE = np.random.default_rng(0).uniform(-.3, .3, 32000)
NO_LENGTH = {'PAF', 'PVF', 'IRCAM', 'XI'} # their headers do not say it
SKIPPED = {'RAW', 'SD2'} # the one needs parameters, the other a second file


def written(samples, sr, format, subtype):
    sf.write(file := io.BytesIO(), samples, sr, format=format, subtype=subtype)
    return file.getvalue()


def everything():
    "(format, subtype, bytes) of all that libsndfile writes"
    for format in sf.available_formats():
        for subtype in sf.available_subtypes(format):
            if format in SKIPPED or subtype == 'ALAC_32': continue # the last is refused
            try:
                yield format, subtype, written(NOISE, 8000, format, subtype)
            except sf.LibsndfileError: # a pair that it cannot write
                pass


FILES = list(everything())


@pytest.mark.parametrize('format,subtype,content', FILES, ids=[f'{f}-{s}' for f, s, _ in FILES])
def test_a_whole_file_has_all_its_samples_and_a_cut_one_is_refused_or_warned_of(format, subtype, content, tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        with open_sound(content) as f: samples = f.read()
    assert len(NOISE) <= len(samples) <= len(NOISE) + 2048 and bool(told) == (format in NO_LENGTH)
    (path := tmp_path/'cut').write_bytes(content[:len(content) * 55 // 100])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        try:
            with open_sound(path) as f: part = f.read()
        except ValueError as e:
            assert '\n' not in str(e)
            with pytest.raises(ValueError): inspect_sound(path)
            return
    assert format in NO_LENGTH and told[0].category is SoundWarning and 's are there' in str(told[0].message)
    assert len(part) < len(samples) * .6 and np.array_equal(part, samples[:len(part)])


@pytest.mark.parametrize('kind', ['FLAC', 'VORBIS', 'OPUS', 'MP3'])
def test_a_chained_file_is_read_to_its_last_part(kind):
    format, subtype, content = next(x for x in FILES if kind in x[:2])
    one = load_sound(content)
    two = load_sound(content + content)
    assert abs(len(two) - 2 * len(one)) <= 1
    assert np.abs(two[-8000:-100] - one[-8000:-100]).max() < (1e-2 if kind == 'MP3' else 1e-3)


@pytest.mark.parametrize('format', ['WAV', 'AIFF', 'AU', 'W64', 'RF64', 'CAF'])
def test_a_second_file_behind_the_first_is_told_and_left_out(format):
    content = written(NOISE, 8000, format, 'PCM_16')
    with pytest.warns(SoundWarning, match='another sound follows'):
        assert np.array_equal(load_sound(content + content), load_sound(content))


def without_table(mp3):
    "An MP3 without the frame that holds its Xing table"
    return mp3[mpeg_header(ByteReader(io.BytesIO(mp3)).at(0, 4)).length:]


def test_an_mp3_without_a_table_has_all_its_frames_though_its_length_is_only_guessed():
    loud, faint = (written(x * NOISE, 44100, 'MP3', 'MPEG_LAYER_III') for x in (1, 0))
    for content in (loud + faint, faint + loud): # the guess is too short, or too long
        parts = without_table(content)
        assert len(load_sound(parts)) >= 2 * len(NOISE) * SR / 44100 - 2000
    with pytest.warns(SoundWarning, match='last MP3 frame is cut'):
        load_sound(without_table(loud)[:-50])


def test_flac_of_unknown_length_and_blocks_of_codecs_are_whole():
    flac = bytearray(written(NOISE, 16000, 'FLAC', 'PCM_16'))
    flac[21] &= 0xf0
    flac[22:26] = bytes(4) # samples: not known, as `ffmpeg -f flac -` writes it
    with open_sound(bytes(flac)) as f: assert np.abs(f.read()[:, 0] - NOISE).max() < 1e-3 and f.frames == len(NOISE)
    for subtype in ('GSM610', 'IMA_ADPCM', 'MS_ADPCM'):
        assert inspect_sound_of(written(NOISE, 8000, 'WAV', subtype))['duration_s'] >= 4


def test_the_last_block_of_gsm_is_no_noise_and_alac_that_libsndfile_cannot_decode_is_refused():
    tone = .3 * np.sin(2 * np.pi * 200 * np.arange(6000) / 8000)
    with open_sound(written(tone, 8000, 'WAV', 'GSM610')) as f: samples = f.read()[:, 0]
    assert len(samples) == 6080 and np.abs(samples[-80:]).max() < .1 # libsndfile gives 320 more, of noise
    with pytest.raises(ValueError, match='ALAC of 32 bits'): load_sound(written(tone, 8000, 'CAF', 'ALAC_32'))


def inspect_sound_of(content):
    with temporary_sound(content) as path: return inspect_sound(path)


def ogg_checksum(page):
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8): crc = (crc << 1 ^ 0x04c11db7 if crc & 0x80000000 else crc << 1) & 0xffffffff
    return crc


@pytest.mark.parametrize('subtype', ['VORBIS', 'OPUS'])
@pytest.mark.parametrize('seconds', [50 * 60, 6 * 3600])
def test_a_forged_length_gives_no_hours_takes_no_minutes_and_no_memory(subtype, seconds):
    content = bytearray(written(NOISE, 8000, 'OGG', subtype))
    last = content.rfind(b'OggS')
    content[last + 6:last + 14] = struct.pack('<q', seconds * (48000 if subtype == 'OPUS' else 8000))
    content[last + 22:last + 26] = bytes(4)
    content[last + 22:last + 26] = struct.pack('<I', ogg_checksum(content[last:]))
    tracemalloc.start()
    for read in (load_sound, lambda x: list(signal_blocks(x)), inspect_sound_of):
        with pytest.raises(ValueError, match='truncated: '): read(bytes(content))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20_000_000


def test_sizes_that_no_file_has_are_no_places_to_look_at():
    caf, rf64 = (written(NOISE, 8000, f, 'PCM_16') for f in ('CAF', 'RF64'))
    for content, at in ((caf, 12), (caf, 40), (rf64, 20), (rf64, 28)):
        for size in (b'\xff' * 8, b'\x7f' + b'\xff' * 7, b'\x80' + bytes(7)):
            end = sound_end(ByteReader(io.BytesIO(content[:at] + size + content[at + 8:])))
            assert end in (None, OPEN_ENDED) or 0 <= end <= len(content), (at, size)


@pytest.mark.parametrize('bits', [0, 1, 8, 255])
def test_a_broken_header_is_no_division_by_zero(bits):
    content = bytearray(written(NOISE, 8000, 'SDS', 'PCM_16'))
    content[6] = bits
    assert (sound_end(ByteReader(io.BytesIO(bytes(content)))) is None) == (bits == 0)


def test_a_short_read_never_leaves_what_was_in_memory(monkeypatch):
    monkeypatch.setattr('ser_nb.audio.LONG', 4000)
    content = written(NOISE, 8000, 'MP3', 'MPEG_LAYER_III')
    with open_sound(content) as f: whole = f.read()
    with open_sound(content) as f: assert np.array_equal(np.concatenate(list(f.blocks(777))), whole)


@pytest.mark.parametrize('make', [np.ones, lambda n: (-1.) ** np.arange(n), lambda n: np.arange(n) == 0],
                         ids=['constant', 'alternating', 'click'])
@pytest.mark.parametrize('n', [1, 2, 3, 3000])
def test_every_amplitude_and_the_shortest_clips_have_a_result_or_a_reason(make, n):
    from ser_nb.feature_extraction import clip_features
    for amplitude in [10. ** e for e in range(-45, 39)] + [np.nan, np.inf]:
        with np.errstate(all='ignore'): samples = np.float32(amplitude) * make(n).astype(np.float32)
        try:
            signal = to_signal(samples, 16000)
            assert np.isfinite(signal).all() and len(trim(signal, 30.)) <= len(signal)
        except ValueError as e:
            assert not FAINTEST <= amplitude < 1e9 or not samples.any(), e
        with temporary_sound(written(samples, 16000, 'WAV', 'FLOAT')) as path:
            try: assert np.isfinite(clip_features(path, '', 30.)).all()
            except ValueError as e: assert str(e)


def test_a_segment_is_the_same_samples_in_every_format():
    for format, subtype in (
        ('WAV', 'PCM_16'), ('FLAC', 'PCM_16'), ('OGG', 'VORBIS'), ('OGG', 'OPUS'),
        ('MP3', 'MPEG_LAYER_III')):
        content = written(NOISE, 8000, format, subtype)
        with open_sound(content) as f: whole = f.read()
        with open_sound(content) as f:
            f.skip(12000)
            assert np.array_equal(f.read(8000), whole[12000:20000]), format
        assert len(load_sound(content, start=1.5, end=2.5)) == SR


@pytest.mark.skipif(os.name == 'nt', reason='names are text there')
def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.wav')
    with open(path, 'wb') as f: f.write(written(NOISE, 8000, 'WAV', 'PCM_16'))
    assert np.array_equal(load_sound(path), load_sound(written(NOISE, 8000, 'WAV', 'PCM_16')))


def test_a_file_that_is_there_is_not_said_to_be_missing(tmp_path):
    for content in (b'\xff\xfb\x90\x64' + bytes(2000), b'ID3\x04' + bytes(3000), b'Dear diary, ' * 99):
        for suffix in ('mp3', 'wav', 'au', 'snd'):
            (path := tmp_path/f'x.{suffix}').write_bytes(content)
            with pytest.raises(ValueError) as told: load_sound(path)
            assert 'not exist' not in str(told.value) and 'no such file' not in str(told.value)


@pytest.mark.skipif(not shutil.which('ffmpeg'), reason='ffmpeg is not on PATH')
@pytest.mark.parametrize(
    'how',
    [
        '-q:a 4 -write_xing 0 x.mp3', '-b:a 48k -ar 44100 -write_xing 0 x.mp3', '-f flac x.flac', 'x.ogg',
        '-c:a libopus -ar 24000 x.opus', '-c:a adpcm_ms x.wav'])
def test_a_second_decoder_finds_as_many_samples(how, tmp_path):
    sf.write(tmp_path/'in.wav', NOISE, 24000)
    run = dict(cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(['ffmpeg', '-loglevel', 'error', '-i', 'in.wav', *how.split()], **run)
    name = how.split()[-1]
    with open_sound(tmp_path/name) as f: ours = f.read()
    as_floats = ['-ar', str(f.samplerate), '-f', 'f32le', '-']
    theirs = subprocess.run(['ffmpeg', '-loglevel', 'error', '-i', name, *as_floats], **run).stdout
    theirs = np.frombuffer(theirs, np.float32)
    assert abs(len(ours) - len(theirs)) < 400 and abs(np.abs(ours).mean() / np.abs(theirs).mean() - 1) < .05


# what takes too long

HOLDER = """import fcntl, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN) # the system asks for it back, in vain
f = open(sys.argv[1])
fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
time.sleep(600)"""


@contextmanager
def held(path):
    "A file that another process has leased: to open it takes as long as the system waits, which is 45 s"
    holder = subprocess.Popen([sys.executable, '-c', HOLDER, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)
    try:
        if holder.stdout.readline() != 'held\n': pytest.skip(f'no lease: {holder.stderr.read()[-200:]}')
        yield
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture
def two(tmp_path):
    "Two clips of which one cannot be opened"
    names = [tmp_path/f'03-01-05-01-01-01-{i:02}.wav' for i in (1, 2)]
    for path in names: path.write_bytes(written(NOISE, 16000, 'WAV', 'PCM_16'))
    with held(names[0]): yield names


def patiences(): return {thread for thread in threading.enumerate() if thread.name == 'patience'}


def still_opening(before):
    "Whether a file is waited for in a thread that was not there before: nobody else has waited for it"
    new = patiences() - before
    for thread in new: thread.join(.2)
    return any(thread.is_alive() for thread in new)


linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='leases are a call of Linux')


@linux
def test_a_file_that_does_not_open_gets_its_reason_and_the_others_are_predicted(two, monkeypatch):
    from ser_nb.prediction import EmotionModel, predict_sources
    model = EmotionModel.load(model='functionals')
    monkeypatch.setattr('ser_nb.workers.MAX_WAIT', 1)
    before = patiences()
    (_, reason, none, _), (_, row, windows, _) = predict_sources(model, list(map(str, two)))
    assert still_opening(before)
    assert reason == 'takes too long: nothing came for 1 s' and none is None and len(windows['start_s']) == 1


@linux
def test_a_file_that_does_not_open_gets_its_reason_and_the_others_are_extracted(two, monkeypatch, tmp_path):
    from ser_nb.combining_datasets import scan
    from ser_nb.feature_extraction import extract
    monkeypatch.setattr('ser_nb.workers.MAX_WAIT', 1)
    before = patiences()
    clips, rejected = scan(tmp_path, n_jobs=1)
    assert len(clips) == 1 and 'takes too long' in rejected.reason[0]
    assert still_opening(before)
    before = patiences()
    both = clips.loc[[0, 0]].assign(path=list(map(str, two)))
    table, failed = extract(both, n_jobs=1, cache=tmp_path/'cache')
    assert len(table) == 1 and failed.reason.tolist() == ['takes too long: nothing came for 1 s']
    assert still_opening(before)


STUCK = """import time, ser_nb.audio as audio, ser_nb.workers as workers
from ser_nb.audio import load_sound
content, read, workers.MAX_WAIT = open({!r}, 'rb').read(), audio._Part.readinto, 1
def slow(part, buffer):
    if part.place > 100_000: time.sleep(600)
    return read(part, buffer)
audio._Part.readinto = slow
try: load_sound(content)
except ValueError as e: print(e, flush=True)
audio._Part.readinto = read
print(len(load_sound(content)), flush=True)"""


def test_a_decoder_that_hangs_in_the_middle_is_left_and_the_process_can_go_on_and_end(tmp_path):
    (tmp_path/'a.wav').write_bytes(written(np.tile(NOISE, 4), SR, 'WAV', 'PCM_16'))
    call = [sys.executable, '-c', STUCK.format(str(tmp_path/'a.wav'))]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert done.stdout == f'takes too long: nothing came for 1 s\n{4 * len(NOISE)}\n' and not done.returncode, done


def test_a_source_that_drips_is_stopped_after_the_time_for_its_size(monkeypatch):
    import ser_nb.audio as audio
    content, read = written(np.tile(NOISE, 20), SR, 'WAV', 'PCM_16'), audio._Part.readinto
    def drips(part, buffer):
        time.sleep(.02)
        return read(part, buffer)
    monkeypatch.setattr('ser_nb.workers.MAX_WAIT', .5)
    monkeypatch.setattr('ser_nb.workers._BYTES_A_SECOND', 10 ** 7)
    monkeypatch.setattr(audio, 'LONG', 8000)
    monkeypatch.setattr(audio._Part, 'readinto', drips)
    with pytest.raises(ValueError, match='takes too long: reading it takes more than 1 s'): load_sound(content)


def test_a_file_of_terabytes_is_refused_before_it_is_read(tmp_path):
    (tmp_path/'a.wav').write_bytes(written(NOISE, 8000, 'WAV', 'PCM_16'))
    os.truncate(tmp_path/'a.wav', 2 ** 43)
    for read in (inspect_sound, load_sound):
        with pytest.raises(ValueError, match='8,796 GB are too large'): read(tmp_path/'a.wav')


def test_a_file_of_very_many_parts_is_refused_before_each_has_a_decoder():
    one = written(np.zeros(16), 8000, 'FLAC', 'PCM_16')
    with pytest.raises(ValueError, match='20,000 sounds in one file'): load_sound(one * 20_000)


def test_a_small_file_that_claims_a_day_of_many_fast_channels_is_refused_at_once():
    content = bytearray(written(np.zeros((65536, 8)), 655350, 'FLAC', 'PCM_16'))
    frames = 20 * 3600 * 655350
    content[21] = content[21] & 0xf0 | frames >> 32
    content[22:26] = struct.pack('>I', frames & 0xffffffff)
    with pytest.raises(ValueError, match='samples are too many'): load_sound(bytes(content) + bytes(8_000_000))


@pytest.mark.parametrize('read', [load_sound, lambda path: np.concatenate(list(signal_blocks(path)))])
def test_channels_that_cancel_each_other_are_not_taken_for_silence(read, tmp_path):
    path = str(tmp_path/'opposed.wav')
    sf.write(path, np.stack([NOISE, -NOISE, .5 * NOISE, -.5 * NOISE], axis=1), SR)
    with pytest.warns(SoundWarning, match=f'{re.escape(path)}: its channels cancel'):
        assert np.abs(read(path) - NOISE).max() < 1e-4
