"From sound to an answer: the command, the notebook, the page in a real browser, and models that are not what they say"
import io
import json
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import soxr
from conftest import SER_NB, no_traceback, ser_nb
from helpers import write_noise

from ser_nb.audio import SR, load_sound
from ser_nb.corpora import EMOTIONS, LABELS
from ser_nb.corpus_adapters import recognise
from ser_nb.corruptions import sounds_without_speech
from ser_nb.feature_store import read_features
from ser_nb.files import fingerprint, read_json, write_json
from ser_nb.model_files import load_model
from ser_nb.prediction import REJECTED, EmotionModel, predict_files, pretrained, windowed_features

pytestmark = pytest.mark.jobs

MODEL = ('--model', 'functionals')


@pytest.fixture(scope='module')
def model(): return EmotionModel.load(model='functionals')


@pytest.fixture(scope='module')
def espeak(tmp_path_factory):
    "Sentences spoken by a machine"
    if not shutil.which('espeak-ng'): pytest.skip('espeak-ng is not installed (Debian: apt-get install espeak-ng)')
    folder = tmp_path_factory.mktemp('espeak')
    for i, (voice, text) in enumerate(
        (v, t)
        for v in ('en', 'en+f3', 'de', 'fr+f2')
        for t in ('Kids are talking by the door', 'Dogs are sitting by the door')):
        subprocess.run(['espeak-ng', '-v', voice, '-s', str(130 + 15 * i), '-w', folder/f'{i}.wav', text], check=True)
    return sorted(map(str, folder.glob('*.wav')))


def from_json(done): return [json.loads(line) for line in done.stdout.splitlines()]


# the network in OpenVINO

PROBABILITIES = '''
import sys, numpy as np
from ser_nb.feature_extraction import read_features
from ser_nb.keras_tools import predict_proba, values_of
from ser_nb.model_files import load_model, load_openvino, read_model_json
test, run = read_features(companions='functionals')[1], sys.argv[1]
columns = read_model_json(run)['features']
np.save(sys.argv[2], [load_openvino(run)(values_of(test, columns)), predict_proba(load_model(run), test, columns)])
'''


@pytest.mark.environment
def test_openvino_gives_the_probabilities_of_keras_on_the_whole_test_set(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', PROBABILITIES, pretrained('functionals'), tmp_path/'proba.npy'],
        capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    openvino, keras = np.load(tmp_path/'proba.npy')
    assert openvino.shape == (1051, 16) and abs(openvino - keras).max() < 1e-3, abs(openvino - keras).max()


def test_the_button_of_the_notebook_answers_with_the_sound_and_its_picture(model, one_of_each, capsys):
    from ser_nb.demo import upload_widget
    button = upload_widget(model).children[0]
    def send(name, content):
        button.value = [dict(
            name=name, type='audio/flac', size=len(content), content=memoryview(content),
            last_modified=datetime.now())]
    send('a.flac', open(one_of_each[0], 'rb').read())
    assert 'Audio' in (said := capsys.readouterr().out) and 'Figure' in said
    send('b.flac', b'no sound')
    assert re.search('b.flac: .+', capsys.readouterr().out)


# broken and hostile models

@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(pretrained('functionals'), tmp_path/'copied'))


@pytest.mark.parametrize('name', ['model.h5', 'model.xml', 'model.bin'])
def test_files_of_two_runs_are_not_mixed(copied, name, one_sound):
    with open(copied/name, 'ab') as f: f.write(b' ')
    done = ser_nb('predict', one_sound, '--run', copied)
    assert done.returncode == 2 and f'model.json does not belong to {name}' in done.stderr and no_traceback(done)


@pytest.fixture
def one_sound(tmp_path): return write_noise(tmp_path/'a.wav')


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda f: (f/'model.json').write_text('{"x"'), 'not valid JSON'),
        (lambda f: (f/'model.json').unlink(), 'there is no such file'),
        (lambda f: (f/'model.xml').unlink(), 'model.xml: there is no such file'),
        (
            lambda f: write_json(
                {k: v for k, v in read_json(f/'model.json').items() if k != 'temperature'}, f/'model.json'),
            "'temperature' is missing")])
def test_a_broken_run_is_one_clear_line(copied, change, message, one_sound):
    change(copied)
    done = ser_nb('predict', one_sound, '--run', copied)
    assert done.returncode == 2 and message in done.stderr and no_traceback(done)


HOSTILE = '''
import sys, numpy as np, keras
L = keras.layers
class Own(L.Layer):
    def call(self, x): return x
saving = getattr(keras, 'saving', None) or keras.utils
own = saving.register_keras_serializable('mine')(Own)
for kind, layer in [('lambda', L.Lambda(lambda x: x)), ('own', own())]:
    keras.Sequential([L.Input((3,)), L.Dense(2), layer]).save(f'{sys.argv[1]}/{kind}.h5')
'''


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
    "A folder with lambda.h5 and own.h5, models that hold code, and pickle.h5, which is none"
    import pickle
    folder = tmp_path_factory.mktemp('hostile')
    (folder/'pickle.h5').write_bytes(pickle.dumps(dict(weights=[1, 2, 3])))
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', HOSTILE, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.environment
@pytest.mark.parametrize('kind', ['lambda', 'own', 'pickle'])
def test_a_model_that_holds_code_is_refused(copied, kind, hostile, one_sound):
    shutil.copy(hostile/f'{kind}.h5', copied/'model.h5')
    write_json(read_json(copied/'model.json') | dict(sha256=fingerprint(copied/'model.h5')), copied/'model.json')
    for load_it in (load_model, EmotionModel.load):
        with pytest.raises(ValueError, match='refused, it holds code'): load_it(copied)
    done = ser_nb('predict', one_sound, '--run', copied)
    assert done.returncode == 2 and 'refused, it holds code' in done.stderr and no_traceback(done)


# the command

def test_json_csv_and_python_give_the_same_numbers_for_a_real_clip_of_each_emotion_and_a_machines_voice(
        model, one_of_each, espeak):
    sounds = [*one_of_each, *espeak]
    rows = from_json(ser_nb('predict', *sounds, '--json', *MODEL))
    table = pd.read_csv(io.StringIO(ser_nb('predict', *sounds, '--csv', *MODEL).stdout), keep_default_na=False)
    assert [r['file'] for r in rows] == table.file.tolist() == sounds
    for row, (_, line), sound in zip(rows, table.iterrows(), sounds):
        own = model.predict(sound).iloc[0]
        assert (row['answer'] or '', row['gender'] or '') == (own.answer, own.gender) == (line.answer, line.gender)
        for l in LABELS:
            assert row['labels'][l] == pytest.approx(own[l], abs=2e-6)
            assert float(line[l]) == pytest.approx(own[l], abs=2e-6)
        assert sum(row['emotions'].values()) == pytest.approx(1, abs=1e-4)
    assert sum(max(EMOTIONS, key=r['emotions'].get) == e for r, e in zip(rows, EMOTIONS)) >= 6


def test_bad_files_are_named_and_the_others_done(tmp_path, one_sound):
    (tmp_path/'text.wav').write_text('Dear diary')
    (tmp_path/'empty.wav').touch()
    (tmp_path/'nothing').mkdir()
    done = ser_nb(
        'predict', tmp_path/'text.wav', one_sound, tmp_path/'empty.wav', tmp_path/'absent.wav',
        tmp_path/'nothing', '--json', *MODEL)
    assert (
        done.returncode == 1
        and [r['file'] for r in from_json(done)] == [str(one_sound)]
        and 'Traceback' not in done.stderr)
    for text in (
        'text.wav: no sound that can be read', 'empty.wav: an empty file',
        'absent.wav: there is no such file', 'nothing: no sound file in it'):
        assert text in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 5 and lines[-1] == '4 of 5 files were skipped'


@pytest.mark.environment
def test_standard_input_gives_what_the_file_gives(one_sound):
    for text in ('--json', '--csv'):
        piped = subprocess.run(
            [SER_NB, 'predict', '-', text, *MODEL], input=one_sound.read_bytes(), capture_output=True)
        of_file = ser_nb('predict', one_sound, text, *MODEL).stdout
        assert piped.returncode == 0 and piped.stdout.decode() == of_file.replace(str(one_sound), '-')
    empty = subprocess.run([SER_NB, 'predict', '-'], input='', capture_output=True, text=True)
    assert empty.returncode == 1 and '-: an empty file' in empty.stderr


@pytest.mark.parametrize(
    'args, message',
    [
        ([], 'Missing argument'),
        (['x.wav', '--run', 'nowhere'], 'nowhere/model.json: there is no such file'),
        (['x.wav', '--jsn'], 'No such option')])
def test_a_wrong_call_ends_with_code_2(args, message):
    done = ser_nb('predict', *args)
    assert done.returncode == 2 and message in done.stderr and no_traceback(done)


def test_a_folder_is_predicted_on_two_cores_as_file_by_file(data, model):
    folder = data/'flac22k'/'ravdess_song'/'Actor_01'
    paths = sorted(map(str, folder.iterdir()))
    one, two = ([t.iloc[0] for _, t, _ in predict_files(model, paths, n)] for n in (1, 2))
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(two))
    assert len(from_json(ser_nb('predict', folder, '--json', *MODEL))) == len(paths) == 44


# long recordings

def test_a_recording_has_a_timeline_that_names_its_silence_and_a_picture(data, model, tmp_path, one_of_each):
    angry, sad = (load_sound(one_of_each[EMOTIONS.index(e)]) for e in ('angry', 'sad'))
    sound = np.concatenate([angry, angry, angry, np.zeros(30 * SR, np.float32), sad, sad, sad])
    sf.write(tmp_path/'long.flac', sound, SR)
    call = ['predict', tmp_path/'long.flac', '--json', *MODEL]
    line = from_json(ser_nb(*call, '--timeline', '--plot', tmp_path/'pictures'))
    row, = from_json(ser_nb(*call))
    quiet = len(angry) * 3 / SR
    silent, = [w for w in line if w['reason'] == 'silence']
    assert silent['start_s'] >= quiet - 1.5 and silent['end_s'] - silent['start_s'] > 24
    line.remove(silent)
    assert (
        len(line) > 8
        and not [w for w in line if quiet < w['start_s'] < quiet + 26]
        and row['end_s'] == pytest.approx(len(sound) / SR, abs=0.01))
    assert (tmp_path/'pictures'/'long.flac.png').stat().st_size > 5000
    first, last = ([w['emotions'] for w in line if (w['start_s'] < quiet) == early] for early in (True, False))
    def mean(part, e): return np.mean([w[e] for w in part])
    assert mean(first, 'angry') > mean(last, 'angry') and mean(last, 'sad') > mean(first, 'sad')
    pd.testing.assert_frame_equal(model.timeline((sound, SR)), model.timeline(tmp_path/'long.flac'), atol=.05)


MEMORY = '''
import sys
from ser_nb.prediction import EmotionModel, windowed_features
from ser_nb.timing import peak_mb
model = EmotionModel.load(sys.argv[1])
_, starts, _, X, _ = windowed_features(sys.argv[2], model.columns)
model.predict_features(X)
print(len(starts), peak_mb())
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='peak memory is read from /proc')
def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path):
    peaks, rng = {}, np.random.default_rng(0)
    minute = (rng.normal(size=SR * 60) * .1 * (np.sin(np.arange(SR * 60) / SR) > 0)).astype(np.float32)
    for minutes in (2, 12):
        with sf.SoundFile(tmp_path/'long.wav', 'w', SR, 1, 'PCM_16') as f:
            for _ in range(minutes): f.write(minute)
        done = subprocess.run(
            [sys.executable, '-c', MEMORY, pretrained('functionals'), tmp_path/'long.wav'],
            capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        windows, peaks[minutes] = map(float, done.stdout.split())
        assert windows >= minutes * 20
    assert peaks[12] - peaks[2] < 30, peaks # MB; the sound of 10 minutes is 53


# what is no speech

def test_silence_noise_tones_and_music_are_not_forced_into_an_emotion_and_speech_is_not_rejected(model):
    rejected = {
        kind: np.mean([model.predict((x, SR)).reason[0] in (*REJECTED, 'silence') for x in some])
        for kind, some in sounds_without_speech(10, seed=1).items()}
    assert np.mean(list(rejected.values())) > .9 and min(rejected.values()) >= .5, rejected
    test = read_features(companions='functionals')[1]
    reason = model.predict(test).reason
    assert reason.isin(REJECTED).mean() < .03 and reason[test.corpus == 'tess'].isin(REJECTED).mean() < .03
    assert model.predict((np.zeros(SR), SR)).reason[0] == 'silence'


def at_rate(sound, hz): return soxr.resample(load_sound(sound), SR, hz), hz


def test_a_file_at_16_khz_gets_the_answers_of_the_whole_sound_and_clips_of_the_corpora_are_not_touched(
        model, one_of_each, data):
    paths = recognise(data/'flac22k'/'ravdess_speech')[1].sort_values('file').path[::12] # 120 of them
    whole = pd.concat([model.predict(p) for p in paths])
    cut = pd.concat([model.predict(at_rate(p, 16000)) for p in paths])
    same = whole[list(EMOTIONS)].to_numpy().argmax(axis=1) == cut[list(EMOTIONS)].to_numpy().argmax(axis=1)
    assert not cut.reason.isin(REJECTED).any() and same.mean() > .9, same.mean()
    for s in one_of_each:
        np.testing.assert_array_equal(
            windowed_features(s, model.columns, model.domain)[3], windowed_features(s, model.columns)[3])
    narrow = at_rate(one_of_each[0], 16000)
    extended = windowed_features(narrow, model.columns, model.domain)[3]
    assert (extended != windowed_features(narrow, model.columns)[3]).any()


def test_who_calls_from_a_telephone_is_told_why_there_is_no_answer(model, one_of_each, tmp_path):
    for i, s in enumerate(one_of_each): sf.write(tmp_path/f'{i}.wav', *at_rate(s, 8000))
    rows = from_json(ser_nb('predict', tmp_path, '--json', *MODEL))
    assert [r['reason'] for r in rows].count('narrow band') >= 7 and not any(
        r['answer'] for r in rows if r['reason'] == 'narrow band')
    assert 'narrow band (distance' in ser_nb('predict', tmp_path/'0.wav', *MODEL).stdout
    long = np.tile(load_sound(one_of_each[0]), 4)
    assert model.predict((soxr.resample(long, SR, 8000), 8000)).reason[0] == 'narrow band'
