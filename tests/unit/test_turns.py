"A conversation with known speakers: wrong calls are one line, every turn has its row"
import json

import pytest
import soundfile as sf
from helpers import command, voice

from ser_nb.audio import SR

pytestmark = pytest.mark.unit


def predicted(*args): return command('predict', *args, '--model', 'functionals')


@pytest.fixture
def talk(tmp_path):
    sf.write(tmp_path/'talk.wav', voice(10), SR)
    (tmp_path/'talk.rttm').write_text('SPEAKER talk 1 0 4 <NA> <NA> A\nSPEAKER talk 1 4 6 <NA> <NA> B\n')
    return tmp_path


def test_each_turn_is_a_row_with_its_speaker(talk):
    _, out, said = predicted(talk/'talk.wav', '--turns', talk/'talk.rttm', '--json')
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(r['speaker'], r['start_s'], r['end_s']) for r in rows] == [('A', 0, 4), ('B', 4, 10)], said


@pytest.mark.parametrize('rttm, code, reason', [
    ('SPEAKER talk 1 0', 1, 'not a line of RTTM'), ('', 1, 'no line of it starts with SPEAKER'),
    ('SPEAKER talk 1 50 4 <NA> <NA> A', 1, 'begins at 50 s')])
def test_a_wrong_file_of_turns_is_one_line(talk, rttm, code, reason):
    (talk/'talk.rttm').write_text(rttm)
    found, _, said = predicted(talk/'talk.wav', '--turns', talk/'talk.rttm')
    assert found == code and reason in said and len(said.splitlines()) == 1


def test_turns_of_another_recording_in_the_same_file_are_left_out_and_windows_are_refused(talk):
    (talk/'talk.rttm').write_text((talk/'talk.rttm').read_text() + 'SPEAKER other 1 50 4 <NA> <NA> C\n')
    _, out, said = predicted(talk/'talk.wav', '--turns', talk/'talk.rttm', '--json')
    assert [json.loads(line)['speaker'] for line in out.splitlines()] == ['A', 'B'], said
    (talk/'talk.wav').rename(talk/'third.wav')
    code, _, said = predicted(talk/'third.wav', '--turns', talk/'talk.rttm')
    assert code == 1 and "2 recordings (talk, other), none of them named 'third'" in said
    assert predicted(talk/'third.wav', '--turns', talk/'talk.rttm', '--hop', 1)[0] == 2
