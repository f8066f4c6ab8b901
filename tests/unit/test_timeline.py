"Segments and exports: what another tool reads is what the model predicted"
import json

import numpy as np
import pandas as pd
import pytest

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
    assert (
        'unsure' in set(segments(windows, 70.0, 0.6).reason)
        and (segments(windows, 70.0, 0.6).query("reason == ''").confidence > 0.5).all())


@pytest.mark.parametrize('kind', EXPORTS)
def test_every_export_ends_its_lines_and_takes_a_recording_without_sound(windows, kind):
    for some in (windows, windows.iloc[:0]):
        text = EXPORTS[kind](segments(some, 70.), 'my talk.wav')
        assert text.endswith('\n') or (kind == 'rttm' and not text)


def test_json_lines_hold_no_nan(windows):
    rows = [
        json.loads(line, parse_constant=pytest.fail)
        for line in EXPORTS['json'](segments(windows, 70.0), 'a').splitlines()]
    assert any(r['angry'] is None for r in rows)
