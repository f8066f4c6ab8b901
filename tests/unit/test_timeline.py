"Segments and exports: what another tool reads is what the model predicted"
import io
import json

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from helpers import command, voice

from ser_nb.audio import SR
from ser_nb.timeline import EXPORTS, segments

pytestmark = pytest.mark.unit


@pytest.fixture
def windows():
    rng, rows = np.random.default_rng(0), []
    for start in np.arange(0, 60, 1.5):
        if 20 < start < 30: continue
        p = rng.dirichlet([1, 1, 1])
        best = ['angry', 'calm', 'sad'][p.argmax()]
        rejected = rng.random() < .2
        rows.append(
            dict(
                start_s=start, end_s=start + 3, answer='' if rejected else best,
                emotion='' if rejected else best, confidence=p.max(),
                reason='out of domain' if rejected else '', distance=2.0 if rejected else 0.5, angry=p[0],
                calm=p[1], sad=p[2]))
    return pd.DataFrame(rows)


def test_segments_cover_a_recording_without_gap_or_overlap_and_silence_has_a_row(windows):
    found = segments(windows, 70.)
    assert (
        found.start_s[0] == 0
        and found.end_s.iloc[-1] == 70
        and (found.start_s[1:].to_numpy() == found.end_s[:-1].to_numpy()).all())
    silent = found[found.reason == 'silence']
    assert {(22.5, 30.), (61.5, 70.)} <= {*zip(silent.start_s, silent.end_s)} and silent.angry.isna().all()
    spoken = found[found.reason == '']
    np.testing.assert_allclose(spoken[['angry', 'calm', 'sad']].sum(axis=1), 1)
    assert (spoken.answer != '').all() and (found.answer[found.reason != ''] == '').all()


def test_a_threshold_turns_unsure_segments_into_rows_with_that_reason(windows):
    found = segments(windows, 70., .6)
    assert 'unsure' in set(found.reason) and (found.confidence[found.reason == ''] >= .6).all()


@pytest.mark.parametrize('kind', EXPORTS)
def test_every_export_ends_its_lines_and_takes_a_recording_without_sound(windows, kind):
    for some in (windows, windows.iloc[:0]):
        text = EXPORTS[kind](segments(some, 70.), 'my talk.wav')
        assert text.endswith('\n')


def test_json_lines_hold_no_nan(windows):
    rows = [
        json.loads(line, parse_constant=pytest.fail)
        for line in EXPORTS['json'](segments(windows, 70.0), 'a').splitlines()]
    assert any(r['angry'] is None for r in rows)


@pytest.fixture(scope='module')
def talk(tmp_path_factory):
    "A voice of a machine for 9 s, silence until 24 s, the voice until 33 s"
    path = tmp_path_factory.mktemp('talk')/'talk.wav'
    sf.write(path, np.concatenate([voice(9), np.zeros(15 * SR), voice(9)]), SR)
    return path


def predicted(*args):
    code, out, said = command('predict', *args, '--model', 'functionals')
    assert code == 0, said
    return out


@pytest.mark.parametrize('kind', EXPORTS)
def test_silent_and_rejected_stretches_are_in_every_export_with_their_reason(talk, kind):
    text = predicted(talk, '--format', kind)
    assert 'silence' in text and ('out of domain' in text or 'out_of_domain' in text)


def test_a_timeline_of_windows_covers_the_recording_its_silence_included(talk, tmp_path):
    rows = [json.loads(line) for line in predicted(talk, '--timeline', '--json').splitlines()]
    silent, = [row for row in rows if row['reason'] == 'silence']
    assert silent['start_s'] > 8 and silent['end_s'] < 25 and silent['confidence'] is None
    assert all(a['end_s'] >= b['start_s'] for a, b in zip(rows, rows[1:])) and rows[-1]['end_s'] == 33
    table = pd.read_csv(io.StringIO(predicted(talk, '--timeline', '--csv')))
    assert (table.reason == 'silence').sum() == 1 and len(table) == len(rows)
    assert 'silence' in predicted(talk, '--timeline')
    predicted(talk, '--timeline', '--out', tmp_path/'a.jsonl')
    written = [json.loads(line) for line in (tmp_path/'a.jsonl').read_text().splitlines()]
    assert [row | dict(note=None) for row in rows] == written


def test_a_long_recording_is_summarised_and_the_timeline_mentioned(talk):
    row, shares, hint = predicted(talk).splitlines()
    assert 'of 33 s:' in shares and 'silence' in shares and '--timeline shows each' in hint
    assert len(predicted(talk, '--json').splitlines()) == 1


def test_a_recording_is_adapted_to_its_own_windows(talk, monkeypatch):
    from ser_nb.prediction import EmotionModel
    plain, own = (json.loads(predicted(talk, '--json', *more)) for more in ((), ('--adapt', 'self')))
    assert own['distance'] < plain['distance'] and own['emotions'] != plain['emotions']
    model = EmotionModel.load(model='functionals')
    assert model.adapt_windows is None
    monkeypatch.setattr(EmotionModel, 'load', lambda *a: without_reference(model))
    code, _, said = command('predict', talk, '--adapt', 'self')
    assert code == 2 and 'holds no reference' in said


def without_reference(model):
    model.about = model.about | dict(reference=None)
    return model


@pytest.fixture
def pair(tmp_path):
    "Two recordings of one name"
    paths = [tmp_path/folder/'rec.wav' for folder in 'ab']
    for path in paths:
        path.parent.mkdir()
        sf.write(path, np.random.default_rng(0).normal(size=SR) * .1, SR)
    return paths


def test_files_of_one_name_have_a_picture_each(pair, tmp_path):
    predicted(*pair, '--plot', tmp_path/'pictures')
    assert all((tmp_path/'pictures'/folder/'rec.wav.png').exists() for folder in 'ab')
    predicted(pair[0], '--plot', tmp_path/'one')
    assert [p.name for p in (tmp_path/'one').iterdir()] == ['rec.wav.png']


@pytest.mark.parametrize('kind', ['csv', 'audformat'])
def test_several_recordings_are_one_table_with_one_header(pair, kind):
    table = pd.read_csv(io.StringIO(predicted(*pair, '--format', kind)))
    assert table.file.tolist() == list(map(str, pair))


@pytest.mark.parametrize('kind', ['audacity', 'webvtt'])
def test_a_format_that_names_no_file_refuses_several_so_that_their_segments_are_not_mixed(pair, kind):
    code, _, said = command('predict', *pair, '--format', kind, '--model', 'functionals')
    assert code == 2 and 'give one recording, not 2' in said
