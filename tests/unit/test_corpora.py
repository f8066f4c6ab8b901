"Any corpus: published names, patterns, tables and the formats of others"
import os
import shutil
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from helpers import command

from ser_nb.combining_datasets import combine, scan_all
from ser_nb.corpora import CLIP_COLUMNS, complete_clips, read_clips, with_target, write_clips
from ser_nb.corpus_adapters import (
    clips_from_folders,
    clips_from_pattern,
    load_adapters,
    read_adapters,
    read_names,
    recognise,
)
from ser_nb.corpus_formats import (
    corpus_table,
    read_audformat,
    read_audiofolder,
    read_corpus,
    read_emobox,
    suggest_words,
    write_audformat,
    write_audiofolder,
)

pytestmark = pytest.mark.unit

# names as published (the corpora's own pages, EmoBox's lists): corpus, path, speaker, gender, emotion
PUBLISHED = [
    ('ravdess', 'Actor_12/03-01-06-01-02-01-12.wav', '12', 'female', 'fearful'),
    ('tess', 'OAF_Fear/OAF_back_fear.wav', '26', 'female', 'fearful'),
    ('tess', 'YAF_youth_ps.wav', '28', 'female', 'surprised'),
    ('nemo', 'samples/SM0_happiness_12.wav', 'SM0', 'male', 'happy'),
    ('emovo', 'f1/dis-f1-b1.wav', 'f1', 'female', 'disgust'),
    ('ased', '05Angry/a5-06-01-01-21.wav', '21', 'female', 'angry'),
    ('turev', 'Calm/1984_sk_kagit.wav', '1984', '', 'calm'),
    ('crema_d', 'AudioWAV/1001_DFA_ANG_XX.wav', '1001', 'male', 'angry'),
    ('crema_d', '1091_WSI_SAD_HI.wav', '1091', 'female', 'sad'),
    ('savee', 'AudioData/DC/sa03.wav', 'DC', 'male', 'sad'),
    ('savee', 'KL_su11.wav', 'KL', 'male', 'surprised'),
    ('emodb', 'wav/03a01Fa.wav', '03', 'male', 'happy'),
    ('emodb', '14b10Lc.wav', '14', 'female', 'boredom'),
    ('jl_corpus', 'female1_encouraging_10a_1.wav', 'female1', 'female', 'encouraging'),
    ('mesd', 'Anger_C_A_abajo.wav', 'C', '', 'angry'),
    ('cafe', 'CaFE_48k/Peur/Fort/12-P-2-5.wav', '12', 'female', 'fearful'),
    ('aesdd', 'disgust/d19 (2).wav', '2', '', 'disgust'),
    ('subesco', 'F_01_OISHI_S_1_ANGRY_1.wav', 'F_01', 'female', 'angry'),
    ('shemo', 'male/M01W05.wav', 'M01', 'male', 'surprised'),
    ('esd', '0011/Surprise/0011_001401.wav', '0011', 'male', 'surprised'),
    ('esd', '0001/Angry/train/0001_000351.wav', '0001', 'female', 'angry'),
    ('baved', '2/10-m-24-3-2-1015.wav', '10', 'male', 'high'),
    ('urdu', 'Angry/SM1_F1_A01.wav', 'SM1', 'male', 'angry'),
    ('asvp_esd', 'actor_16/03-01-12-01-01-16-02-03-02-01.wav', '16', 'male', 'disappointment'),
    # from the lists of EmoBox (github.com/emo-box/EmoBox, data/*/fold_1), which name the published files
    ('aesdd', 'downloads/aesdd/sadness/s02 (5)b.wav', '5', '', 'sad'),
    ('aesdd', 'downloads/aesdd/disgust/d18 (6).wav', '6', '', 'disgust'),
    ('savee', 'downloads/savee/JE_su11.wav', 'JE', 'male', 'surprised'),
    ('emodb', 'downloads/emodb/wav/16a04Lc.wav', '16', 'female', 'boredom'),
    ('emodb', 'downloads/emodb/wav/15b10Ac.wav', '15', 'male', 'fearful'),
    ('urdu', 'downloads/urdu/Angry/SM4_F48_A0100.wav', 'SM4', 'male', 'angry'),
    ('shemo', 'downloads/shemo/female/F24A66.wav', 'F24', 'female', 'angry'),
    ('mesd', 'Mexican Emotional Speech Database (MESD)/Fear_F_A_por_favor.wav', 'F', 'female', 'fearful'),
    # from the corpus's own README (github.com/40uf411/Basic-Arabic-Vocal-Emotions-Dataset): speaker, m or f, age, word,
    # level 0 to 2, record
    ('baved', '0/61-f-21-6-0-1935.wav', '61', 'female', 'low'),
]
# the women of github.com/CheyneyComputerScience/CREMA-D, VideoDemographics.csv
CREMA_WOMEN = '''02 03 04 06 07 08 09 10 12 13 18 20 21 24 25 28 29 30 37 43 46 47 49 52 53 54 55 56 58 60 61 63 72 73
74 75 76 78 79 82 84 89 91'''.split()


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path/name).touch()
        return tmp_path
    return make


@pytest.mark.parametrize('corpus, path, speaker, gender, emotion', PUBLISHED, ids=[p[1] for p in PUBLISHED])
def test_a_published_name_is_recognised_as_its_corpus_and_read(folder, corpus, path, speaker, gender, emotion):
    found, clips, unplaced = recognise(folder(path))
    assert found.corpus.tolist() == [corpus] and not len(unplaced)
    row = clips.iloc[0]
    assert (row.speaker, row.gender, row.emotion) == (speaker, gender, emotion)
    assert row.label == (f'{gender}_{emotion}' if gender else emotion)


def test_the_gender_of_each_actor_of_crema_d_is_that_of_its_table(folder):
    _, clips, unplaced = recognise(folder(*[f'{1000 + i}_IEO_ANG_LO.wav' for i in range(1, 92)]))
    women = clips.speaker[clips.gender == 'female'].str[2:].tolist()
    assert women == CREMA_WOMEN and len(clips) == 91 and set(clips.gender) == {'female', 'male'}


def test_every_corpus_of_the_package_has_a_published_name_here():
    assert {p[0] for p in PUBLISHED} | {'iemocap'} == set(load_adapters())


def test_no_published_name_is_taken_for_another_corpus_when_all_lie_in_one_folder(folder):
    found, clips, unplaced = recognise(folder(*[p[1] for p in PUBLISHED]))
    assert not len(unplaced) and len(clips) == len(PUBLISHED)
    assert dict(zip(found.corpus, found.clips)) == pd.Series([p[0] for p in PUBLISHED]).value_counts().to_dict()


def test_iemocaps_emotions_come_from_its_files_of_labels(folder):
    names = [f'Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_{turn}.wav' for turn in ('F000', 'M001', 'F002')]
    root = folder(*names, 'Session1/dialog/EmoEvaluation/Ses01F_impro01.txt')
    (root/'Session1/dialog/EmoEvaluation/Ses01F_impro01.txt').write_text(
        '[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n'
        '[7.5700 - 8.7500]\tSes01F_impro01_M001\tfru\t[2.5000, 2.5000, 2.5000]\n'
        '[9.5700 - 9.7500]\tSes01F_impro01_F002\txxx\t[2.5000, 2.5000, 2.5000]\n')
    _, clips, unplaced = recognise(root)
    assert clips[['speaker', 'gender', 'emotion']].values.tolist() == [
        ['Ses01F', 'female', 'neutral'], ['Ses01M', 'male', 'frustrated']]
    assert len(unplaced) == 2 # the labels, and the clip whose raters did not agree


def test_a_name_that_fits_two_corpora_is_told(folder, tmp_path):
    (tmp_path/'own.toml').write_text(
        "[ours]\npattern = '{emotion}-{speaker:f\\d}-{statement}'\nemotion = {dis = 'disgust'}\n")
    found, clips, _ = recognise(folder('x/dis-f1-b1.wav', 'x/gio-f1-b1.wav'), load_adapters(tmp_path/'own.toml'))
    assert (found.corpus[0], found.sure[0], found.fits_also[0]) == ('emovo', .5, 'ours (1)')


@pytest.mark.parametrize(
    'text, message',
    [
        ('[a\n', 'not TOML'), ('a = 1\n', "corpus 'a': not a table"),
        ("[a]\nemotion = {}\n", "'pattern' is missing"), ("[a]\npattern = '{speaker}'\n", 'no emotion'),
        ("[a]\npattern = '{emotion'\n", 'a brace without its counterpart'),
        ("[a]\npattern = '{emotion}'\nemotoin = 'x'\n", "'emotoin' is neither a column"),
        ("[a]\npattern = '{emotion:(}'\n", 'pattern'),
        (
            "[a]\npattern = '{emotion}'\ngender = {from = 'who', x = 'male'}\n",
            "the field 'who', which the pattern does not have")])
def test_a_broken_table_of_adapters_names_the_file_and_what_is_wrong(tmp_path, text, message):
    (tmp_path/'own.toml').write_text(text)
    with pytest.raises(ValueError, match='own.toml') as e:
        read_adapters(tmp_path/'own.toml')
    assert message in str(e.value) and '\n' not in str(e.value)


def test_a_pattern_reads_what_fits_and_lists_what_does_not(folder):
    clips, left = clips_from_pattern(
        folder('b/anna_joy_1.wav', 'b/ben_fear_2.wav', 'b/cy_b_fear_2.wav', 'b/notes.txt'),
        '{speaker}_{emotion}_{take}.wav', dict(joy='happy'))
    assert clips[['speaker', 'emotion', 'repetition']].values.tolist() == [['anna', 'happy', '1'], ['ben', 'fear', '2']]
    assert [os.path.basename(p) for p in left.path] == ['cy_b_fear_2.wav', 'notes.txt']


def test_folders_of_speakers_and_classes_are_read(folder):
    clips, _ = clips_from_folders(folder('s 1/Very Happy/x.wav', 's 2/sad/deep/y.wav'), ('speaker', 'emotion'))
    assert clips[['speaker', 'emotion']].values.tolist() == [['s 1', 'very happy'], ['s 2', 'sad']]


def test_a_name_that_is_not_utf8_is_listed_and_the_others_come_out(folder):
    root = folder('dis-f1-b1.wav')
    (root/os.fsdecode(b'gio-f1-\xff1.wav')).touch()
    _, clips, unplaced = recognise(root)
    assert len(clips) == 1 and unplaced.reason.tolist() == ['the name is not UTF-8'] and '\\udcff' in unplaced.path[0]
    assert len(clips_from_pattern(root, '{emotion}-{speaker}-{take}')[0]) == 1


def test_near_words_are_suggested_and_not_changed(folder):
    root = folder('a/anna_anger_1.wav', 'a/anna_calm_2.wav')
    text = corpus_table(root, '{speaker}_{emotion}_{take}')
    assert '--map anger=angry' in text and 'emotion: calm 1, anger 1' in text
    assert suggest_words(['fear', 'anger', 'boredom', 'happy']) == dict(fear='fearful', anger='angry')


def test_a_table_with_three_columns_is_a_clip_table(tmp_path):
    (tmp_path/'own.csv').write_text('path,emotion,speaker\nx/a.wav,joy,01\nx/b.wav,fear,02\n')
    clips = read_clips(tmp_path/'own.csv')
    assert (
        list(clips) == CLIP_COLUMNS
        and clips.label.tolist() == ['joy', 'fear']
        and clips.speaker.tolist() == ['01', '02'])
    write_clips(clips, tmp_path/'sub'/'again.csv')
    assert [os.path.normpath(p) for p in read_clips(tmp_path/'sub'/'again.csv').path] == clips.path.tolist()


def test_segments_and_numbers_survive_writing(tmp_path):
    clips = complete_clips(
        pd.DataFrame(
            dict(
                path=[str(tmp_path/'a.wav')] * 2, speaker='s', emotion=['x', 'y'], start_s=[0, 1.5],
                end_s=[1.5, np.nan], sample_rate=[16000, np.nan])))
    write_clips(clips, tmp_path/'clips.csv')
    again = read_clips(tmp_path/'clips.csv')
    pd.testing.assert_frame_equal(again, clips, check_dtype=False)
    assert ',16000,' in (tmp_path/'clips.csv').read_text()


@pytest.mark.parametrize(
    'header, row, message',
    [
        ('start_s', '-1', "column 'start_s'"), ('end_s', '0', "column 'end_s'"),
        ('duration_s', 'inf', "column 'duration_s': 'inf' is not a number"),
        ('sample_rate', 'fast', "column 'sample_rate': 'fast' is not a number")])
def test_a_wrong_number_is_refused_with_its_row_and_column(tmp_path, header, row, message):
    (tmp_path/'own.csv').write_text(f'path,emotion,speaker,{header}\na.wav,joy,01,\nb.wav,joy,01,{row}\n')
    with pytest.raises(ValueError, match='own.csv, row 2') as e:
        read_clips(tmp_path/'own.csv')
    assert message in str(e.value)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert read_clips(tmp_path/'own.csv', errors='skip').path.str.endswith('a.wav').all()


def test_any_column_can_be_the_target():
    clips = complete_clips(
        pd.DataFrame(dict(path=['a', 'b', 'c'], speaker='s', emotion='joy', intensity=['low', 'high', ''])))
    with pytest.warns(UserWarning, match='1 of 3 clips have no value'):
        assert with_target(clips, 'intensity').label.tolist() == ['low', 'high']
    with pytest.raises(ValueError, match="every clip has the value 'joy'"):
        with_target(clips, 'emotion')


def test_reading_a_large_table_stays_linear(tmp_path):
    def seconds(n):
        "What it takes this process to read n names, and to write and read their table"
        names = [f'EMOVO/f{i % 3}/dis-f{i % 3}-b{i}.wav' for i in range(n)]
        start = time.process_time()
        rows = read_names(names, load_adapters()['emovo'])
        clips = complete_clips(rows.assign(path=[str(tmp_path/p) for p in names]))
        write_clips(clips, tmp_path/'clips.csv')
        assert len(read_clips(tmp_path/'clips.csv')) == n
        return time.process_time() - start
    seconds(100) # with what is done once
    some, many = seconds(25_000), seconds(100_000)
    assert many < 6 * some, (some, many)


# ---- the formats of others

def example(root):
    paths = [root/'audio'/f'{n}.wav' for n in ('a1', 'a2', 'b1')]
    for p in paths:
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(p.name.encode())
    return complete_clips(
        pd.DataFrame(
            dict(
                path=[str(p) for p in paths], speaker=['a', 'a', 'b'], gender=['female', 'female', 'male'],
                emotion=['happy', 'boredom', 'happy'], intensity=['low', '', 'high'])))


@pytest.mark.parametrize('segmented', [False, True])
def test_audformat_itself_reads_what_is_written(tmp_path, segmented):
    audformat = pytest.importorskip('audformat')
    clips = example(tmp_path)
    if segmented:
        clips = clips.assign(start_s=[0, 1.25, 0], end_s=[1.25, 2.5, np.nan])
    write_audformat(clips, tmp_path, 'ours')
    db = audformat.Database.load(tmp_path)
    table = db['segments' if segmented else 'files'].get()
    assert table.emotion.tolist() == clips.emotion.tolist() and table.speaker.tolist() == clips.speaker.tolist()
    assert audformat.is_segmented_index(table) == segmented
    if segmented:
        assert table.index.get_level_values('end')[0].total_seconds() == 1.25 and pd.isna(
            table.index.get_level_values('end')[2])
    columns = ['file', 'speaker', 'gender', 'emotion', 'label', 'intensity', 'start_s', 'end_s']
    pd.testing.assert_frame_equal(read_audformat(tmp_path)[columns], clips[columns], check_dtype=False)


@pytest.mark.parametrize('storage', ['csv', 'parquet'])
@pytest.mark.parametrize('segmented', [False, True])
def test_what_audformat_writes_is_read_with_the_facts_of_speakers(tmp_path, storage, segmented):
    audformat = pytest.importorskip('audformat')
    db = audformat.Database('mydb', languages=['de'], source='x', usage='research')
    db.schemes['emotion'] = audformat.Scheme('str', labels=['anger', 'joy'])
    db.schemes['gender'] = audformat.Scheme('str', labels=['female', 'male'])
    db['speaker'] = audformat.MiscTable(pd.Index(['s1', 's2'], name='speaker', dtype='string'))
    db['speaker']['gender'] = audformat.Column(scheme_id='gender')
    db['speaker']['gender'].set(['female', 'male'])
    db.schemes['speaker'] = audformat.Scheme('str', labels='speaker')
    files = ['a/1.wav', 'a/2.wav']
    index = (
        audformat.segmented_index(files, ['0s', '1.5s'], ['1s', pd.NaT])
        if segmented
        else audformat.filewise_index(files))
    db['all'] = audformat.Table(index)
    for column, values in dict(emotion=['anger', 'joy'], speaker=['s1', 's2']).items():
        db['all'][column] = audformat.Column(scheme_id=column)
        db['all'][column].set(values)
    db.save(tmp_path, storage_format=storage)
    clips = read_corpus(tmp_path)[0]
    assert clips[['emotion', 'speaker', 'gender', 'language', 'corpus']].values.tolist() == [
        ['anger', 's1', 'female', 'deu', 'mydb'], ['joy', 's2', 'male', 'deu', 'mydb']]
    assert clips.label.tolist() == ['female_anger', 'male_joy'] and clips.path[0] == os.path.join(tmp_path, 'a/1.wav')
    assert (clips.start_s.fillna(-1).tolist(), clips.end_s.fillna(-1).tolist()) == (
        ([0, 1.5], [1, -1]) if segmented else ([-1, -1], [-1, -1]))


def test_a_pickled_table_is_never_opened(tmp_path):
    (tmp_path/'db.yaml').write_text('name: x\ntables: {files: {type: filewise, columns: {emotion: {}}}}\n')
    (tmp_path/'db.files.pkl').write_bytes(b'cos\nsystem\n(S"touch /tmp/opened"\ntR.')
    with pytest.raises(ValueError, match='pickled tables are not read'):
        read_audformat(tmp_path)


def test_an_audiofolder_comes_back_the_same_and_its_splits_are_named(tmp_path):
    clips = example(tmp_path/'from')
    write_audiofolder(clips, tmp_path/'hf')
    columns = ['file', 'speaker', 'gender', 'emotion', 'label', 'intensity']
    pd.testing.assert_frame_equal(read_corpus(tmp_path/'hf')[0][columns], clips[columns])
    for split in ('train', 'test'):
        (tmp_path/'two'/split).mkdir(parents=True)
        (tmp_path/'two'/split/'metadata.csv').write_text('file_name,label\nx.wav,joy\n')
    assert read_audiofolder(tmp_path/'two').split.tolist() == ['test', 'train']


def test_lines_of_emobox_are_read_with_their_speakers(tmp_path):
    lines = {
        'train': ['downloads/ased/05Angry/a5-02-01-01-54.wav'],
        'test': ['downloads/ased/05Angry/a5-07-01-02-54.wav']}
    for split, wavs in lines.items():
        (tmp_path/f'ased_{split}_fold_1.jsonl').write_text(
            '\n'.join(f'{{"wav": "{w}", "emo": "a", "dataset": "ased", "length": 2.4}}' for w in wavs))
    clips = read_emobox(tmp_path)
    assert clips[['speaker', 'emotion', 'split', 'statement']].values.tolist() == [
        ['54', 'angry', 'test', 'a07'], ['54', 'angry', 'train', 'a02']]
    (tmp_path/'ased_train_fold_1.jsonl').write_text('{"wav": "x.wav", "emo": "a"}\nnonsense\n')
    with pytest.raises(ValueError, match='ased_train_fold_1.jsonl, line 2'):
        read_emobox(tmp_path)


def test_a_table_in_which_no_row_is_a_clip_is_refused_and_one_with_some_is_read_with_a_warning(tmp_path):
    table = tmp_path/'clips.csv'
    for rows, fault in (('', 'no row is a clip'), ('a.wav,,x\n', "row 1, column 'emotion': '' is not an emotion")):
        table.write_text(f'path,emotion,speaker\n{rows}')
        code, _, said = command('corpus', table)
        assert code == 2 and fault in said and str(table) in said and 'warning' not in said, said
    table.write_text('path,emotion,speaker\na.wav,,x\nb.wav,sad,x\n')
    code, _, said = command('corpus', table)
    assert code == 0 and said.startswith('warning: ') and 'rows left out: 1 of 2' in said and '.py:' not in said, said


@pytest.mark.parametrize('name, read', [
    ('metadata.csv', read_audiofolder), ('db.files.csv', read_audformat), ('fold_1_train.jsonl', read_emobox)])
def test_a_file_that_is_not_utf_8_is_named(tmp_path, name, read):
    (tmp_path/'db.yaml').write_text('tables: {files: {columns: {emotion: {}}}}')
    (tmp_path/name).write_bytes('file_name,emotion\nä.wav,Ärger\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=f'{name}: not .* in UTF-8'): read(tmp_path)


def test_a_map_renames_words_of_any_case_and_keeps_labels_of_the_tables_own(tmp_path):
    table = tmp_path/'own.csv'
    table.write_text('path,emotion,speaker,gender,label\na,Joy,1,male,high\nb,sad,1,male,low\nc,joy,1,male,male_joy\n')
    clips = read_corpus(table, words=dict(JOY='happy'), language='it')[0]
    assert clips.emotion.tolist() == ['happy', 'sad', 'happy'] and set(clips.language) == {'it'}
    assert clips.label.tolist() == ['high', 'low', 'male_happy']


@pytest.mark.parametrize('how', [dict(), dict(pattern='{speaker}_{emotion}'), dict(levels=['emotion'])])
def test_a_word_to_rename_that_no_clip_has_is_refused(folder, how):
    root = folder('joy/rab-f1-b1.wav', 'joy/anna_joy.wav')
    with pytest.raises(ValueError, match="--map fear=fearful: no clip has the emotion 'fear'"):
        read_corpus(root, words=dict(fear='fearful'), **how)


def test_clips_without_an_emotion_are_named_and_the_written_table_can_be_read(tmp_path):
    (tmp_path/'metadata.csv').write_text('file_name,emotion\na.wav,joy\nb.wav,\n')
    text = corpus_table(tmp_path, out=str(tmp_path/'out.csv'))
    assert 'not placed: 1 files (it has no emotion)' in text and 'b.wav' in text
    assert read_clips(tmp_path/'out.csv').file.tolist() == ['a']


# ---- from clips to DATASET/

def tone(path, f0=200., seconds=.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, .1 * np.sin(2 * np.pi * f0 * np.arange(int(8000 * seconds)) / 8000), 8000)


@pytest.mark.parametrize('zipped', [(), ('emovo',), ('turev',), ('emovo', 'turev', 'rav')])
def test_corpora_with_and_without_genders_get_one_set_of_labels_however_they_are_packed(tmp_path, zipped):
    names = 'rav/03-01-05-01-01-01-03.wav', 'emovo/rab-f1-b1.wav', 'turev/Angry/1157_kz_acik.wav'
    for f0, name in enumerate(names, 200):
        tone(tmp_path/'mix'/name, f0)
    for folder in zipped:
        shutil.make_archive(tmp_path/'mix'/folder, 'zip', tmp_path/'mix'/folder)
        shutil.rmtree(tmp_path/'mix'/folder)
    with pytest.warns(UserWarning, match="'female_angry' becomes 'angry'|'male_angry' becomes 'angry'"):
        clips, _ = scan_all(tmp_path/'mix', tmp_path/'archives')
    assert len(clips) == 3 and set(clips.label) == {'angry'}


def test_clips_of_one_name_in_several_folders_stay_and_only_copies_are_left_out(tmp_path):
    for i, (emotion, take, name) in enumerate((e, t, n) for e in ('angry', 'sad') for t in 'ab' for n in '012'):
        tone(tmp_path/'A'/emotion/take/f'{name}.wav', 200 + i)
    (tmp_path/'A'/'sad'/'copy').mkdir()
    shutil.copy(tmp_path/'A'/'sad'/'a'/'0.wav', tmp_path/'A'/'sad'/'copy'/'0.wav')
    write_clips(clips_from_folders(tmp_path/'A')[0], tmp_path/'a.csv')
    clips, rejected = scan_all(tmp_path/'a.csv', tmp_path)
    assert len(clips) == 12 and [os.path.basename(os.path.dirname(p)) for p in rejected.path] == ['copy']
    assert rejected.reason.str.startswith('the same bytes as').all()
    assert combine(clips, tmp_path/'out').path.map(lambda p: open(p, 'rb').read()).nunique() == 12


def test_segments_that_start_together_and_end_apart_stay(tmp_path):
    tone(tmp_path/'a.wav')
    (tmp_path/'own.csv').write_text('path,emotion,speaker,start_s,end_s\na.wav,joy,s,0,.05\na.wav,joy,s,0,.1\n')
    assert scan_all(tmp_path/'own.csv', tmp_path)[0].end_s.tolist() == [.05, .1]


def test_corpora_whose_names_give_one_folder_keep_their_own_sound(tmp_path):
    names = 'my corpus', 'my_corpus', 'My_corpus', '..'
    for f0, name in enumerate(names, 200):
        tone(tmp_path/str(f0)/'x.wav', f0)
    rows = [f'{f0}/x.wav,e{f0},s,{name}' for f0, name in enumerate(names, 200)]
    (tmp_path/'own.csv').write_text('\n'.join(['path,emotion,speaker,corpus', *rows]))
    clips = scan_all(tmp_path/'own.csv', tmp_path)[0]
    combined = combine(clips, tmp_path/'out')
    for before, after in zip(clips.path, combined.path):
        assert open(before, 'rb').read() == open(after, 'rb').read()
        assert os.path.realpath(after).startswith(str(tmp_path/'out'/'DATASET'))


def test_a_wrong_row_is_named_among_the_rejected_and_the_others_are_combined(tmp_path):
    tone(tmp_path/'a.wav')
    (tmp_path/'own.csv').write_text(
        'path,emotion,speaker,start_s,end_s,corpus\na.wav,joy,s,,,ours\na.wav,,s,,,ours\na.wav,sad,s,-1,,ours\n'
        'a.wav,sad,s,9,,ours\na.wav,sad,s,0,9,ours\na.wav,sad,s1,,,tess\n')
    clips, rejected = scan_all(tmp_path/'own.csv', tmp_path)
    assert clips.emotion.tolist() == ['joy']
    reasons = '\n'.join(sorted(rejected.path + ': ' + rejected.reason))
    assert f"{tmp_path}/own.csv: row 2, column 'emotion': '' is not an emotion; every clip needs one" in reasons
    assert f"{tmp_path}/own.csv: row 3, column 'start_s'" in reasons
    assert f'{tmp_path}/a.wav: a clip starts at 9 s, the file ends at 0.1 s' in reasons
    assert f'{tmp_path}/a.wav: a clip ends at 9 s, the file at 0.1 s' in reasons
    assert f"{tmp_path}/a.wav: tess has no clip of speaker 's1', emotion 'sad'" in reasons and len(rejected) == 5


def test_genders_of_a_table_may_be_written_as_in_names_and_other_words_are_told(tmp_path):
    (tmp_path/'own.csv').write_text('path,emotion,speaker,gender,label\na,joy,1,F,\nb,sad,2, Male,male_sad\n')
    assert read_clips(tmp_path/'own.csv').label.tolist() == ['female_joy', 'male_sad']
    (tmp_path/'own.csv').write_text('path,emotion,speaker,gender\na,joy,1,F\nb,sad,2,other\n')
    with pytest.warns(UserWarning, match="own.csv, row 2, column 'gender': 'other' is neither female nor male"):
        clips = read_clips(tmp_path/'own.csv')
    assert clips.gender.tolist() == ['female', 'other'] and clips.label.tolist() == ['joy', 'sad']


def test_a_wrong_row_does_not_take_the_gender_from_the_labels_of_the_others(tmp_path):
    (tmp_path/'own.csv').write_text('path,emotion,speaker,gender\na,joy,1,female\nb,,2,\n')
    with pytest.warns(UserWarning, match='rows left out: 1 of 2'):
        assert read_clips(tmp_path/'own.csv', errors='skip').label.tolist() == ['female_joy']


def test_a_folder_that_cannot_be_read_is_named_and_the_others_come_out(folder, monkeypatch):
    root, scandir = folder('open/rab-f1-b1.wav', 'shut/gio-f1-b1.wav'), os.scandir
    def refuse(path):
        if os.path.basename(path) == 'shut':
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)
    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.warns(UserWarning, match='shut: a folder that cannot be read: Permission denied'):
        _, clips, unplaced = recognise(root)
    assert clips.file.tolist() == ['rab-f1-b1'] and unplaced.path.tolist() == [str(root/'shut')]


def test_a_table_written_through_a_link_finds_its_files(tmp_path):
    (tmp_path/'deep'/'er').mkdir(parents=True)
    (tmp_path/'link').symlink_to(tmp_path/'deep'/'er')
    tone(tmp_path/'B'/'anna_joy.wav')
    tone(tmp_path/'deep'/'er'/'in'/'ben_joy.wav')
    for source in ('B', 'link'):
        corpus_table(tmp_path/source, '{speaker}_{emotion}', out=str(tmp_path/'link'/'clips.csv'))
        assert os.path.isfile(read_clips(tmp_path/'link'/'clips.csv').path[0])
    assert 'in/ben_joy.wav' in (tmp_path/'link'/'clips.csv').read_text() # and can move with its folder


@pytest.mark.parametrize('name, text, read', [
    ('db.yaml', 'tables: {files: {columns: {emotion: {}}}}\nname: "\\ud800"', read_audformat),
    ('db.yaml', 'tables: ' + '9' * 5000, read_audformat),
    ('fold_1_train.jsonl', '{"wav": "a.wav", "emo": "\\ud800"}', read_emobox)])
def test_text_that_no_table_can_hold_is_refused_with_its_file(tmp_path, name, text, read):
    (tmp_path/name).write_text(text)
    with pytest.raises(ValueError, match=name): read(tmp_path)
