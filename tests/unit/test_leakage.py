"What makes a score too optimistic is found and explained"
import json

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import DATA
from helpers import command

from ser_nb import leakage, shortcuts
from ser_nb.corpora import write_clips
from ser_nb.feature_store import read_features
from ser_nb.files import fingerprint

pytestmark = pytest.mark.unit


def clips(sentence_of=lambda t, e: f't{t}', corpus='mine'):
    rows = [
        dict(
            file=f'{s}-{t}-{e}', corpus=corpus, speaker=f's{s}', gender='', emotion=e, label=e,
            statement=sentence_of(t, e))
        for s in range(8)
        for t in range(4)
        for e in ('angry', 'happy', 'sad')]
    return pd.DataFrame(rows)


def kinds(findings): return [f['kind'] for f in findings]


def test_a_clip_on_both_sides_is_an_error_in_any_corpus():
    rows = clips()
    found = leakage.audit(rows[:60], rows[50:])
    assert [(f['kind'], f['severity'], f['clips']) for f in found][0] == ('same_clip', 'error', 10)


def test_equal_file_names_of_two_corpora_are_not_taken_for_one_clip():
    assert kinds(leakage.audit(clips(), clips(corpus='other'))) == []


def test_an_augmented_copy_of_a_test_clip_in_training_is_an_error():
    rows = clips()
    copy = rows[:1].assign(file=rows.file[:1] + '_noise10dB')
    assert 'augmented_sibling' in kinds(leakage.audit(pd.concat([rows[1:50], copy]), rows[:1]))


def test_every_finding_says_what_it_means_and_what_to_do():
    for meaning, what_to_do in leakage.EXPLANATIONS.values():
        assert meaning.endswith('.') and what_to_do.endswith('.')
    lines = leakage.finding_lines(leakage.audit(clips(), clips()))
    assert lines[0].startswith('error: same_clip') and 'Remove it' in lines[1]


def test_sentences_of_one_emotion_each_are_found_and_crossed_ones_are_not():
    assert kinds(leakage.audit_shortcuts(clips(lambda t, e: f'{e}-{t}'))) == ['sentence_gives_emotion']
    assert leakage.audit_shortcuts(clips()) == []


def test_a_run_folder_without_features_says_that_nothing_was_checked_again(tmp_path):
    run = record_run(tmp_path/'run', [finding('same_sound')])
    assert kinds(leakage.audit_file(run)) == ['same_sound', 'not_rechecked']


@pytest.mark.corpora
def test_sentences_of_ased_are_found_and_those_of_ravdess_are_not():
    if not DATA.is_dir(): pytest.skip(f'the real corpora are not at {DATA}')
    from ser_nb.corpora import parse_name
    emotions = dict(n='neutral', f='fearful', h='happy', s='sad', a='angry')
    ased = pd.DataFrame(
        [
            dict(
                file=p.stem, corpus='ased', speaker=p.stem.split('-')[4], gender='',
                emotion=emotions[p.stem[0]], label=emotions[p.stem[0]], statement=p.stem[:5])
            for p in sorted((DATA/'more' / 'ASED').rglob('*.opus'))])
    ravdess = pd.DataFrame(
        [
            dict(file=p.stem, **parse_name(p))
            for p in sorted((DATA/'flac22k' / 'ravdess_speech').rglob('*.flac'))])
    assert kinds(leakage.audit_shortcuts(ased)) == ['sentence_gives_emotion']
    assert leakage.audit_shortcuts(ravdess) == []


def record_run(folder, audit, **data):
    folder.mkdir()
    record = dict(schema=2, job='model', parameters={}, versions={}, machine={}, data=data, scores=[], timings={},
                  audit=audit, files={})
    (folder/'metrics.json').write_text(json.dumps(record))
    return folder


def finding(kind, severity='error', clips=3): return dict(kind=kind, severity=severity, clips=clips, example='x')


def test_an_audit_of_a_run_shows_what_was_recorded_and_names_what_could_not_be_checked_again(tmp_path):
    run = record_run(tmp_path/'run', [finding('same_clip'), finding('noise_gives_emotion', 'warning')])
    found = leakage.audit_file(run)
    assert kinds(found) == ['same_clip', 'not_rechecked', 'noise_gives_emotion', 'not_rechecked']
    lines = '\n'.join(leakage.finding_lines(found))
    assert 'same_clip: the rows of its split are not here' in lines
    assert 'noise_gives_emotion: its sounds are not here' in lines
    code, out, _ = command('audit', run)
    assert code == 1 and 'error: same_clip, 3 clips' in out


def test_an_audit_of_a_run_on_the_packages_features_checks_its_split_again(tmp_path):
    train, test = read_features()
    run = record_run(tmp_path/'run', [finding('same_sound'), finding('scaled_with_test_rows')],
                     train_fingerprint=fingerprint(train), test_fingerprint=fingerprint(test))
    found = leakage.audit_file(run)
    assert kinds(found) == ['same_sound', 'shared_speaker', 'shared_sentence', 'no_longer_found']
    assert found[0]['clips'] == 1 and found[3]['example'] == 'scaled_with_test_rows'


def test_an_audit_of_a_run_measures_the_shortcuts_of_its_clips_again_and_finds_noise_by_emotion(tmp_path):
    rng, rows = np.random.default_rng(0), clips()
    for row in rows.itertuples():
        noise = rng.normal(size=11025) * dict(angry=.001, happy=.004, sad=.016)[row.emotion]
        sf.write(tmp_path/f'{row.file}.wav', noise + .1 * np.sin(np.arange(11025) / 9), 22050)
    run = record_run(tmp_path/'run', [])
    write_clips(rows.assign(path=[str(tmp_path/f'{f}.wav') for f in rows.file]), run/'clips.csv')
    assert 'noise_gives_emotion' in kinds(leakage.audit_file(run))


def test_the_noise_of_a_segment_is_that_of_the_segment(tmp_path):
    loud, soft = (np.random.default_rng(0).normal(size=22050) * level for level in (.1, .001))
    sf.write(tmp_path/'long.wav', np.concatenate([loud, soft]), 22050)
    floors = [shortcuts.recording_traits(tmp_path/'long.wav', start, start + 1)['floor_db'] for start in (0, 1)]
    assert floors[0] - floors[1] > 30


def write_fold(folder, train, test):
    folder.mkdir()
    for part, files in dict(train=train, test=test).items():
        lines = [json.dumps(dict(dataset='savee', wav=f'downloads/savee/{f}.wav', emo=f[3], length=3.)) for f in files]
        (folder/f'savee_{part}_fold_1.jsonl').write_text('\n'.join(lines))
    return folder


def test_an_audit_of_a_fold_of_emobox_names_what_its_sides_share(tmp_path):
    fold = write_fold(tmp_path/'fold_1', ['DC_a01', 'DC_h01', 'JK_a01'], ['KL_a01', 'KL_h02'])
    assert [(f['kind'], f['clips']) for f in leakage.audit_file(fold)] == [('shared_sentence', 1)]
    fold = write_fold(tmp_path/'fold_2', ['DC_a01', 'DC_h01'], ['DC_a02', 'DC_h01'])
    assert kinds(leakage.audit_file(fold)) == ['same_clip', 'shared_speaker', 'shared_sentence']
    (fold/'savee_train_fold_1.jsonl').unlink()
    with pytest.raises(ValueError, match='needs a ..._train'): leakage.audit_file(fold)


@pytest.mark.filterwarnings('error')
def test_files_that_cannot_be_read_are_not_called_free_of_leakage(tmp_path):
    rows = clips().head(8)
    rows = rows.assign(path=[str(tmp_path/f'{name}.wav') for name in rows.file])
    (tmp_path/f'{rows.file[0]}.wav').write_text('Dear diary')
    found = leakage.audit_sound(rows[:4], rows[4:])
    assert [(f['kind'], f['clips']) for f in found] == [('not_compared', 8)]


def test_clips_that_are_numbered_in_each_folder_are_not_taken_for_one_clip():
    rows = pd.DataFrame([
        dict(file=f'{i:03}', path=f'{s}/{e}/{i:03}.wav', corpus='mine', speaker=s, gender='', emotion=e, label=e)
        for s in ('s1', 's2', 's3') for e in ('angry', 'happy') for i in range(3)])
    train, test = rows[rows.speaker != 's3'], rows[rows.speaker == 's3']
    copy = test[:1].assign(file='000_noise', path='s3/angry/000_noise.wav')
    assert leakage.audit(train, test) == []
    assert [(f['kind'], f['clips']) for f in leakage.audit(pd.concat([train, test[:2]]), test)] == [
        ('same_clip', 2), ('shared_speaker', 6)]
    assert kinds(leakage.audit(pd.concat([train, copy]), test)) == ['augmented_sibling', 'shared_speaker']


def test_a_copy_in_another_folder_is_found_by_its_name_where_names_are_told_apart():
    rows = clips().assign(path=lambda t: 'clips/' + t.file + '.wav')
    copy = rows[:1].assign(file=rows.file[:1] + '_noise', path='augmented/' + rows.file[:1] + '_noise.wav')
    assert 'augmented_sibling' in kinds(leakage.audit(pd.concat([rows[1:50], copy]), rows[:1]))


def write_split(path, rows, **changed):
    rows[['path', 'emotion', 'speaker', 'split']].assign(**changed).to_csv(path, index=False)
    return path


def test_a_table_that_is_enough_for_a_corpus_is_enough_for_an_audit_which_names_what_it_could_not_check(tmp_path):
    rows = clips()
    rows = rows.assign(path='sounds/' + rows.file + '.wav', split=np.where(rows.speaker == 's1', 'test', 'train'))
    assert kinds(leakage.audit_file(write_split(tmp_path/'mine.csv', rows))) == ['not_compared']
    unknown = leakage.audit_file(write_split(tmp_path/'mine.csv', rows, speaker=''))
    assert [f['example'] for f in unknown if f['kind'] == 'shortcuts_not_checked'] == [
        'mine: the speaker of 96 clips is unknown']
    assert [f['clips'] for f in unknown if f['kind'] == 'speaker_not_compared'] == [12]
    rows.drop(columns=['split', 'path']).assign(speaker='s1').to_csv(tmp_path/'one.csv', index=False)
    assert [f['example'] for f in leakage.audit_file(tmp_path/'one.csv')] == ['mine: all clips are by one speaker']
    rows.drop(columns='emotion').to_csv(tmp_path/'bare.csv', index=False)
    with pytest.raises(ValueError, match="bare.csv: column 'emotion' is missing"):
        leakage.audit_file(tmp_path/'bare.csv')


def test_segments_of_one_recording_are_the_same_sound_only_where_they_overlap(tmp_path):
    rng = np.random.default_rng(0)
    sf.write(tmp_path/'talk.wav', np.concatenate([rng.normal(size=22050) * level for level in (.1, .02) * 4]), 22050)
    rows = pd.DataFrame(dict(
        file=[f'talk_{i}' for i in range(8)], path=str(tmp_path/'talk.wav'), corpus='talk', speaker=['a', 'b'] * 4,
        gender='', emotion='x', label='x', start_s=np.arange(8.), end_s=np.arange(8.) + 1))
    parts = [rows[rows.speaker == s].reset_index(drop=True) for s in 'ab']
    assert leakage.audit_sound(*parts) == []
    parts[1].loc[0, 'start_s'] = .9
    assert [(f['kind'], f['clips'], f['example']) for f in leakage.audit_sound(*parts)] == [('same_bytes', 1, 'talk_1')]


@pytest.mark.parametrize('broken', [['x'], [{}], 5, [dict(kind='a', severity='grave', clips=1, example='b')]])
def test_a_broken_audit_of_a_run_is_named_in_one_line(tmp_path, broken):
    run = record_run(tmp_path/'run', broken)
    code, _, said = command('audit', run)
    assert code == 2 and 'metrics.json: audit' in said.splitlines()[-1]
