"Both corpora, as they are: every oddity, every clip"
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run_here, ser_nb

from ser_nb.audio import inspect_sound, load_sound
from ser_nb.augmentation import augmented_columns
from ser_nb.combining_datasets import combine, coverage, expected_clips, oddities, scan, unpack
from ser_nb.corpora import parse_name, published_name, read_clips, write_clips
from ser_nb.corpus_adapters import recognise
from ser_nb.feature_extraction import extract
from ser_nb.feature_store import read_features
from ser_nb.files import fingerprint
from ser_nb.functionals import FEATURES, FUNCTIONALS
from ser_nb.leakage import audit_features, audit_sound
from ser_nb.report import report_html, score_notes, score_table
from ser_nb.run_folder import find_score

pytestmark = pytest.mark.corpora


@pytest.fixture(scope='module', autouse=True)
def decoded_once():
    "Tests scan the same clips, and links to them: the bytes of a clip are decoded for the first of them"
    known, patch = {}, pytest.MonkeyPatch()
    def inspected(path):
        try: key = Path(path).suffix, fingerprint(path)
        except OSError: return inspect_sound(path)
        if key not in known: known[key] = inspect_sound(path) # what it refuses is not kept
        return dict(known[key])
    patch.setattr('ser_nb.combining_datasets.inspect_sound', inspected)
    yield
    patch.undo()


@pytest.fixture(scope='module')
def reference(data):
    return pd.read_csv(data/'article_features.csv.gz', index_col=['corpus', 'file'])


@pytest.mark.environment
def test_features_of_the_original_files_are_those_of_the_articles_calls(data, reference):
    clips, rejected = scan(data/'originals')
    table, failed = extract(clips, n_jobs=1)
    assert (len(table), len(rejected), len(failed)) == (38, 0, 0)
    expected = reference.loc[list(zip(table.corpus, table.file))]
    off = np.abs(table[list(FEATURES)].to_numpy() - expected.to_numpy()) / reference.std().to_numpy()
    assert off.max() < 1e-3, (off.max(), table.file[off.max(axis=1).argmax()], FEATURES[off.max(axis=0).argmax()])


def test_every_oddity_of_the_published_files_is_found(data):
    odd = oddities(scan(data/'originals')[0]).set_index(['what', 'corpus']).clips
    assert odd[('2 channels, not 1', 'ravdess_speech')] == 5 and odd[('2 channels, not 1', 'ravdess_song')] == 1
    assert odd[('AIFF inside .wav', 'tess')] == 2 and odd[('96000 Hz, not 24414', 'tess')] == 1
    assert odd[('misspelt speaker (OA for OAF)', 'tess')] == 1


@pytest.fixture(scope='module')
def all_clips(data):
    return scan(data/'flac22k')


def test_all_clips_of_both_corpora_are_placed(all_clips):
    clips, rejected = all_clips
    assert len(clips) == 5252 and len(rejected) == 0 and clips.label.nunique() == 16
    assert clips.corpus.value_counts().to_dict() == dict(tess=2800, ravdess_speech=1440, ravdess_song=1012)
    assert coverage(clips).missing.sum() == 0 and set(clips.speaker) == {f'{a:02}' for a in range(1, 25)} | {'26', '28'}


def test_features_of_other_settings_are_named(all_clips):
    some = all_clips[0].sample(60, random_state=0)
    assert audit_features(extract(some)[0]) == []
    assert [f['kind'] for f in audit_features(extract(some, trim_db=35.)[0])] == ['features_of_other_settings']


def test_the_embedded_features_are_those_of_the_original_files(reference, all_clips):
    train, test = read_features(companions='')
    assert (len(train), len(test)) == (4201, 1051)
    both = pd.concat([train, test])
    np.testing.assert_allclose(both[list(FEATURES)], reference.loc[list(zip(both.corpus, both.file))], rtol=1e-5)
    assert set(zip(both.corpus, both.file, both.label)) == set(
        all_clips[0][['corpus', 'file', 'label']].itertuples(index=False, name=None))
    from sklearn.model_selection import train_test_split
    rows = sorted(
        both[['corpus', 'file', 'label']].itertuples(index=False, name=None),
        key=lambda r: published_name(parse_name(r[1])))
    drawn, _ = train_test_split(rows, test_size=.2, stratify=[r[2] for r in rows], random_state=42)
    assert set(r[1] for r in drawn) == set(train.file)


def test_the_embedded_functionals_are_those_of_the_clips(all_clips):
    embedded = pd.concat(read_features(companions='functionals')).set_index(['corpus', 'file'])
    some = all_clips[0][::700]
    table, _ = extract(some, n_jobs=1, more='functionals functionals_0.9 functionals_noise')
    columns = [*FUNCTIONALS, *augmented_columns('0.9'), *augmented_columns('noise')]
    expected = embedded.loc[list(zip(table.corpus, table.file)), columns]
    off = (table[columns].to_numpy() - expected.to_numpy()) / embedded[columns].std().to_numpy()
    assert abs(off).max() < .01


def test_a_copy_at_another_level_with_its_silence_cut_is_found_and_an_actor_repeating_a_sentence_is_not(data, tmp_path):
    actor = scan(data/'flac22k'/'ravdess_speech'/'Actor_05')[0]
    first, again = (actor[actor.repetition == r].reset_index(drop=True).head(20) for r in sorted(set(actor.repetition)))
    assert audit_sound(first, again) == []
    import soundfile as sf

    from ser_nb.audio import SR, trim
    x = trim(load_sound(first.path[7]), 40.)
    sf.write(tmp_path/'copy.wav', np.pad(.4 * x, (1234, 77)), SR, subtype='PCM_16')
    again.loc[3, 'path'] = str(tmp_path/'copy.wav')
    assert [(f['kind'], f['clips'], f['example']) for f in audit_sound(first, again)] == [
        ('near_identical_sound', 1, again.file[3])]


def test_dataset_folder_is_made_again_the_same_after_a_kill(all_clips, tmp_path):
    clips = all_clips[0].query("corpus == 'ravdess_song'").reset_index(drop=True)
    script = (
        'import sys; from ser_nb.combining_datasets import combine; from ser_nb.corpora import read_clips;'
        ' combine(read_clips(sys.argv[1]), sys.argv[2])')
    write_clips(clips.drop(columns=['container', 'samples']), tmp_path/'clips.csv') # scanned already
    child = subprocess.Popen([sys.executable, '-c', script, tmp_path/'clips.csv', tmp_path/'killed'])
    while (
        not (tmp_path/'killed' / 'DATASET').exists() or len(os.listdir(tmp_path/'killed' / 'DATASET')) < 200
    ):
        time.sleep(0.02)
        assert child.poll() is None
    child.kill()
    child.wait()
    done = len(os.listdir(tmp_path/'killed'/'DATASET'))
    combine(clips, tmp_path/'killed')
    combine(clips, tmp_path/'whole')
    names = {n: sorted(p.name for p in (tmp_path/n/'DATASET').iterdir()) for n in ('killed', 'whole')}
    assert (
        done < len(clips)
        and names['killed'] == names['whole']
        and {Path(n).stem for n in names['whole']} == expected_clips('ravdess_song'))
    assert (tmp_path/'killed'/'clips.csv').read_bytes() == (tmp_path/'whole'/'clips.csv').read_bytes()
    assert scan(tmp_path/'whole'/'DATASET')[0].label.tolist() == clips.label.tolist() # the same rows in the same order
    assert read_clips(tmp_path/'whole'/'clips.csv').duration_s.sum() == pytest.approx(clips.duration_s.sum())


def test_every_clip_of_the_other_corpora_is_recognised(data):
    found, clips, unplaced = recognise(data/'more')
    assert len(unplaced) == 0 and (found.sure == 1).all()
    assert dict(zip(found.corpus, found.clips)) == dict(nemo=2006, emovo=588, ased=1237, turev=1735)
    assert dict(zip(found.corpus, found.speakers)) == dict(nemo=9, emovo=6, ased=65, turev=6)
    main = (
        clips.groupby(['corpus', 'speaker']).gender.agg(lambda g: g.mode()[0]).reset_index()
    )  # three names of ASED contradict their speaker's others
    gender = main.groupby(['corpus', 'gender']).speaker.nunique()
    assert gender['nemo'].to_dict() == dict(female=4, male=5) and gender['ased'].to_dict() == dict(female=25, male=40)
    assert gender['emovo'].to_dict() == dict(female=3, male=3) and set(clips.gender[clips.corpus == 'turev']) == {''}
    emotions = clips.groupby('corpus').emotion.unique().map(set)
    assert emotions['emovo'] == {'neutral', 'happy', 'sad', 'angry', 'fearful', 'disgust', 'surprised'}
    assert emotions['nemo'] == emotions['emovo'] - {'disgust'} and emotions['turev'] == {
        'angry', 'calm', 'happy', 'sad'}
    assert emotions['ased'] == {'neutral', 'fearful', 'happy', 'sad', 'angry'}
    assert not len(clips.query("corpus == 'nemo' and speaker == 'MK0' and emotion == 'surprised'"))


def test_another_corpus_goes_through_the_combine_job(data, tmp_path):
    clips, rejected = scan(data/'more'/'EMOVO')
    again = combine(clips, tmp_path)
    assert (len(clips), len(rejected), clips.label.nunique(), set(clips.language)) == (588, 0, 14, {'it'})
    assert (
        scan(tmp_path/'DATASET')[0].label.tolist()
        == again.label.tolist()
        == read_clips(tmp_path/'clips.csv').label.tolist())


def test_archives_in_any_layout_give_the_same_table(data, tmp_path):
    originals = data/'originals'
    flat = tmp_path/'flat'
    flat.mkdir()
    for p in (originals/'tess').rglob('*.wav'): shutil.copy(p, flat/p.name.lower())
    shutil.make_archive(tmp_path/'TESS', 'zip', originals/'tess')
    tables = [scan(f)[0] for f in (originals/'tess', flat, unpack(tmp_path/'TESS.zip', tmp_path/'un'))]
    for t in tables[1:]:
        pd.testing.assert_frame_equal(
            t.drop(columns=['path', 'file']), tables[0].drop(columns=['path', 'file']))


def test_a_damaged_clip_is_named_and_the_others_come_out(data, tmp_path):
    shutil.copytree(data/'originals'/'ravdess_song', tmp_path/'song', copy_function=shutil.copy)
    cut = tmp_path/'song'/'Actor_24'/'03-02-01-01-01-01-24.wav'
    os.chmod(cut, 0o644)
    cut.write_bytes(cut.read_bytes()[:30])
    clips, rejected = scan(tmp_path/'song')
    assert (
        len(clips) == 6
        and rejected.path.tolist() == [str(cut)]
        and 'no sound that can be read' in rejected.reason[0])


CORPORA = {'EMOVO': 'emovo', 'ASED': 'ased', 'TurEV': 'turev', 'nEMO': 'nemo'} # folder -> its name in tables
SMALL = [('more', 'functionals'), ('n_jobs', '1'), ('cache', 'none'), ('splits', '0'), ('folds', '1')]


def few_clips(folder, target, speakers=5, clips=2):
    "A corpus with few speakers, and few clips of each emotion by each: links in the corpus's own layout"
    _, table, _ = recognise(folder)
    order = table.groupby('speaker').agg(emotions=('emotion', 'nunique'), clips=('path', 'size'))
    kept = order.sort_values(['emotions', 'clips'], ascending=False).index[:speakers]
    some = table[table.speaker.isin(kept)].groupby(['speaker', 'emotion']).head(clips)
    for path in some.path:
        link = target/os.path.relpath(path, folder.parent)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return target, some


@pytest.mark.parametrize('folder', ['EMOVO', *(pytest.param(f, marks=pytest.mark.slow) for f in list(CORPORA)[1:])])
def test_each_corpus_goes_through_combine_extract_model_and_ladder(data, folder, tmp_path):
    source, some = few_clips(data/'more'/folder, tmp_path/'in')
    out = tmp_path/'run'
    run_here(['combine', 'extract', 'model'], out, *SMALL, ('model', 'functionals'), data=str(source))
    metrics = run_here(['ladder'], out, ('features_dir', str(out)), ('model', '1nn')) # a network takes minutes
    table, corpus = score_table(metrics), CORPORA[folder]
    assert metrics['data']['clips_by_corpus'] == {corpus: len(some)} and metrics['data']['left_out'] == 0
    protocols = list(dict.fromkeys(table.index.get_level_values('protocol')))
    assert protocols[0] == 'unseen_speakers' and find_score(metrics, 'unseen_speakers', 'functionals')['clips'] > 0
    assert {'ladder: random split', 'ladder: unseen speakers'} <= set(protocols)
    text = ' '.join([*protocols, *score_notes(metrics), report_html(out)]).lower()
    assert corpus in text and not {'ravdess', 'tess'} & set(text.replace('_', ' ').split())
    assert metrics['data']['not_measured']['cross_corpus'] == f'all clips are of one corpus ({corpus})'
    assert any(line.startswith('random_80_20: optimistic') for line in score_notes(metrics))


@pytest.mark.slow # Fine_Tuning tests itself on clips of RAVDESS
def test_a_few_labelled_clips_fine_tune_the_shipped_model_and_the_gain_is_reported(data, tmp_path, capsys):
    source, _ = few_clips(data/'more'/'EMOVO', tmp_path/'in', speakers=3, clips=3)
    out = tmp_path/'run'
    metrics = run_here(['model'], out, *SMALL, ('base', 'functionals'), data=str(source))
    found = {name: find_score(metrics, 'unseen_speakers', name) for name in ('functionals', 'functionals_unchanged')}
    assert all(0 <= s['uar'] <= 1 and s['clips'] > 0 for s in found.values())
    assert 'fine-tuned: UAR on held-out speakers' in capsys.readouterr().out
    about = json.loads((out/'model.json').read_text())
    assert set(about['labels']) >= {'female_angry', 'male_disgust'}
    corpora = metrics['data']['corpora']
    assert corpora['emovo'].startswith('63 clips') and {'tess', 'nemo', 'ravdess_speech'} < set(corpora)


@pytest.mark.slow
@pytest.mark.parametrize('folder', CORPORA)
def test_each_corpus_goes_through_the_command(data, folder, tmp_path):
    done = ser_nb('run', 'combine', 'extract', 'model', 'ladder', '--data', data/'more'/folder, '-p', 'splits', '1',
                  '--out', tmp_path/'run')
    assert done.returncode == 0, done.stderr
    assert done.stdout.index('unseen_speakers') < done.stdout.index('random_80_20')
    assert 'ladder: unseen speakers' in done.stdout and 'ravdess' not in done.stdout


def one_speaker(data, target):
    source, _ = few_clips(data/'more'/'EMOVO', target, speakers=1, clips=6)
    return source


def thirty_clips(data, target):
    _, some = few_clips(data/'more'/'EMOVO', target, speakers=2, clips=14)
    kept = some[some.emotion.isin(['angry', 'happy', 'sad'])].groupby(['speaker', 'emotion']).head(5)
    table = target/'thirty.csv'
    write_clips(kept, table)
    return table


def segments_of_long_files(data, target):
    "Clips of three speakers one after the other in one file a speaker, and a table that says from when to when"
    import soundfile as sf
    _, some = few_clips(data/'more'/'EMOVO', target, speakers=3, clips=3)
    rows = []
    for speaker, own in some.groupby('speaker'):
        parts, at = [], 0.
        for clip in own.itertuples():
            parts.append(load_sound(clip.path))
            end = at + len(parts[-1]) / 22050
            rows.append(dict(path=f'{speaker}.wav', speaker=speaker, emotion=clip.emotion, start_s=at, end_s=end))
            at = end
        sf.write(target/f'{speaker}.wav', np.concatenate(parts), 22050)
    pd.DataFrame(rows).to_csv(target/'segments.csv', index=False)
    return target/'segments.csv'


@pytest.mark.parametrize('make, clips, not_measured', [
    (one_speaker, 42, {'unseen_speakers': 'all clips are by one speaker'}), (thirty_clips, 30, {}),
    (segments_of_long_files, 63, {})], ids=['one speaker', 'thirty clips', 'segments of long files'])
def test_small_and_odd_tables_go_through_combine_extract_and_model(data, tmp_path, make, clips, not_measured):
    (tmp_path/'in').mkdir()
    out = tmp_path/'run'
    metrics = run_here(['combine', 'extract', 'model'], out, *SMALL, ('model', 'functionals'),
                       data=str(make(data, tmp_path/'in')))
    assert metrics['data']['clips'] == metrics['data']['train'] + metrics['data']['test'] == clips
    assert metrics['data']['not_measured'] == not_measured
    assert find_score(metrics, 'random_80_20', 'functionals') and (out/'model.h5').is_file()
    notes = score_notes(metrics)
    assert all(f'{protocol}: not measured, {why}.' in notes for protocol, why in not_measured.items())
    if not not_measured:
        assert score_table(metrics).index[0][0] == 'unseen_speakers'
    assert not [f for f in metrics['audit'] if f['severity'] == 'error'], metrics['audit']
