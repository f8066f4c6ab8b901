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

LONG = os.environ.get('SER_NB_CAMPAIGN') == 'long'
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

def command(*args):
    "The command in this process: (exit code, output, complaints); what a user would see as a traceback is raised"
    from click.testing import CliRunner

    from ser_nb.command_line import main
    done = CliRunner().invoke(main, [str(a) for a in args], prog_name='ser-nb')
    if done.exception and not isinstance(done.exception, SystemExit): raise done.exception
    assert done.exit_code in (0, 1, 2) and 'Traceback' not in done.stderr, done.stderr
    return done.exit_code, done.stdout, done.stderr


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


@lru_cache
def loaded():
    from ser_nb.prediction import EmotionModel, pretrained
    return EmotionModel.load(pretrained())


def predict(kind, rng, folder, n):
    "`ser-nb predict FOLDER`: every bad file has its line, and the good one among them its answer"
    import ser_nb.predict_commands as commands
    commands._load_model = lambda run, name='': loaded() # the same for every call, loaded once
    paths, good = write_sounds(kind, rng, folder, n)
    _, out, said = command('predict', folder, '--json')
    answered = [json.loads(line)['file'] for line in out.splitlines()]
    assert str(good) in answered and len(answered) + len(said.strip().splitlines()) == n + 1, said[:2000]
    for path in paths:
        assert str(path) in answered or f'{path}: ' in said, path
        yield 'works' if str(path) in answered else 'refused'


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
    for path in paths: yield 'refused' if str(path) in lost else 'works'


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
        yield 'refused' if 'No prediction' in said else 'works'


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


def ffmpeg_frames(path, sr):
    "How many samples ffmpeg decodes; None where it is not there or cannot"
    import subprocess
    if not shutil.which('ffmpeg'): return None
    done = subprocess.run(
        ['ffmpeg', '-v', 'error', '-i', path, '-ac', '1', '-ar', str(sr), '-f', 's16le', '-'],
        capture_output=True)
    return len(done.stdout) // 2 if done.stdout and not done.returncode else None


def read_twice(path):
    "(samples, rate, whether there was a warning), after a second reading agreed with the first; None = refused"
    import warnings

    import numpy as np

    from ser_nb.audio import open_sound
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        try:
            with open_sound(path) as f: ours, sr = f.read(), f.samplerate
        except ValueError as e:
            assert str(e) and '\n' not in str(e)
            return None
    theirs = poisoned(path, len(ours))
    if theirs is not None:
        n = min(len(ours), len(theirs))
        assert np.array_equal(ours[:n], theirs[:n], equal_nan=True), f'{path}: other samples than soundfile reads'
    return ours, sr, bool(told)


def decoding(kind, rng, folder, n):
    "Whole, cut, doubled, headerless and mutated files of each libsndfile format, against a second decoder"
    import numpy as np
    for i in range(n):
        name = rng.choice(list(every_sound()))
        whole = every_sound()[name]
        changed = dict(
            whole=lambda: whole, doubled=lambda: whole * 2,
            cut=lambda: whole[: int(len(whole) * rng.uniform(0.02, 0.9))],
            headerless=lambda: whole[rng.randrange(1, 200) :],
            mutated=lambda: mutated(whole, rng, rng.choice(list(every_sound().values()))),
        )[kind]()
        (path := folder/f'{i}.{name.lower()}').write_bytes(changed)
        found = read_twice(path)
        if found is None:
            assert kind != 'whole', f'{name}: a whole file is refused'
            yield 'refused'
            continue
        samples, sr, warned = found
        few = len(samples) < 8000
        if kind == 'whole':
            assert 6000 <= len(samples) <= 8048 and np.abs(samples).mean() > .02, (name, len(samples))
        if kind == 'cut': assert warned and few, f'{name}: a cut file works without a word'
        if kind == 'doubled': assert warned or not few, f'{name}: the second half is left out without a word'
        # ffmpeg keeps the encoder's delay of a second MP3
        # ffmpeg mistakes some
        known = name.split('-')[0] in ('WAV', 'FLAC', 'OGG', 'AIFF', 'AU', 'CAF', 'MP3') and 'ADPCM' not in name
        if known and kind in ('whole', 'doubled') and not warned and rng.random() < .1:
            theirs = ffmpeg_frames(path, sr)
            assert theirs is None or abs(theirs - len(samples)) < (
                3000 if 'MP3' in name else 1500
            ), f'{name}: {len(samples)} samples, {theirs} by ffmpeg'
        yield 'works'


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
    return tuple(t[[*META_COLUMNS, *FEATURES]].groupby('label').head(2).round(4) for t in read_features())


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


def parameters(kind, rng, folder, n):
    "Calls of `ser-nb run`, up to the point where the job would start"
    import click
    import hypothesis.strategies as st
    from hypothesis import HealthCheck, given, seed, settings

    from ser_nb.pipeline import JOBS, job_parameters, plan
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
    import openvino as ov
    import openvino.opset13 as op
    width, rank, n_inputs = (
        rng.choice((660, 660, 660, 1, 180, 661)), rng.choice((2, 2, 2, 1, 3)), rng.choice((1, 1, 1, 2)))
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
    "A run of a stranger, with the fingerprints that he wants: refused in one line, or answered with finite numbers"
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


Door = namedtuple('Door', 'function kinds each short long') # inputs: of a batch, of the short and of the long form
DOORS = {
    'predict': Door(predict, list(FORMATS), 20, 60, 4200),
    'extraction': Door(extraction, list(FORMATS), 20, 60, 2000),
    'upload': Door(upload, list(FORMATS), 10, 20, 500),
    'decoding': Door(decoding, ['whole', 'cut', 'doubled', 'headerless', 'mutated'], 50, 500, 6000),
    'archives': Door(archives, ['bytes', 'names', 'links', 'bombs'], 10, 40, 1000),
    'clip_tables': Door(clip_tables, ['extract', 'audit'], 10, 20, 600),
    'feature_files': Door(feature_files, ['csv', 'functionals'], 5, 10, 500),
    'parameters': Door(parameters, ['known', 'jobs'], 50, 100, 1200),
    'names': Door(names, ['ravdess', 'tess', 'text'], 50, 150, 1800),
    'model_files': Door(model_files, ['model.json', 'model.h5', 'model.xml', 'model.bin'], 5, 20, 400),
    'hostile_runs': Door(hostile_runs, ['files', 'graphs', 'h5'], 4, 12, 300),
    'keras_files': Door(keras_files, ['model.h5'], 3, 0, 30),
    'run_folders': Door(run_folders, ['metrics', 'baselines', 'ladder'], 10, 30, 900),
    'tuned_parameters': Door(tuned_parameters, ['json'], 20, 20, 300)}


# workers

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
            for outcome in function(kind, random.Random(f'{door} {kind} {seed}'), work, n): pipe.send(outcome)
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
    spawn = multiprocessing.get_context('spawn')
    for batch in batches:
        if worker is None:
            pipe, theirs = spawn.Pipe()
            worker = spawn.Process(target=_work, args=(theirs, door, Path(tempfile.mkdtemp(dir=folder))))
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
