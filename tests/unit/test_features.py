"Features: the same numbers however they are reached, and files of features that may be damaged or untrusted"
import os
import sqlite3
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from ser_nb import feature_extraction
from ser_nb.audio import SR, load_sound, to_signal
from ser_nb.feature_extraction import clip_features, extract, padded_clips
from ser_nb.feature_store import FeatureCache, companion_file, read_features, write_features, write_parquet
from ser_nb.functionals import (
    FEATURE_SETS,
    FEATURES,
    FUNCTIONALS,
    META_COLUMNS,
    article_features,
    feature_matrix,
    feature_vector,
    features,
    recording_features,
    register_features,
)

pytestmark = pytest.mark.unit
RNG = np.random.default_rng(0)
TONE = (.3 * np.sin(2 * np.pi * 220 * np.arange(SR) / SR) + .01 * RNG.normal(size=SR)).astype(np.float32)


def table_of(paths):
    "A clip table with the needed columns only"
    return pd.DataFrame([dict(file=Path(p).stem, path=str(p), speaker='ann', emotion='bored') for p in paths])


def rows_of(n=6, more=(), **changed):
    "A table of features with labels that the article does not have"
    words = np.resize(['bored', 'glad'], n)
    meta = dict(file=[f'clip{i}' for i in range(n)], corpus='', speaker='ann', gender='', emotion=words, label=words)
    values = RNG.normal(size=(n, len(FEATURES) + len(more))).astype(np.float16).astype(np.float32)
    return pd.concat([pd.DataFrame(meta | changed), pd.DataFrame(values, columns=[*FEATURES, *more])], axis=1)


@pytest.fixture
def tones(tmp_path):
    "Four tones as files"
    paths = [tmp_path/f'{i}.wav' for i in range(4)]
    for i, path in enumerate(paths): sf.write(path, TONE[i * 999:] * .5 ** i, SR, subtype='FLOAT')
    return paths


@pytest.fixture
def registry():
    "Feature sets that a test registers go again"
    before = dict(FEATURE_SETS)
    yield
    FEATURE_SETS.clear()
    FEATURE_SETS.update(before)


# ---- the numbers

@pytest.mark.parametrize('subtype', ['PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE'])
def test_8_to_64_bits_give_the_same_features(subtype, tmp_path):
    sf.write(tmp_path/'x.wav', TONE, SR, subtype=subtype)
    off = abs(clip_features(tmp_path/'x.wav') - features(TONE))
    assert off[:52].max() < (5 if subtype == 'PCM_U8' else .1), off.max() # 8 bits have a noise floor of their own


@pytest.mark.librosa
@pytest.mark.parametrize('channels', [1, 2, 3, 8])
@pytest.mark.parametrize('sr', [8000, 44100, 192000])
def test_1_to_8_channels_and_8_to_192_khz_are_librosas(sr, channels, tmp_path):
    import librosa
    sound = RNG.normal(size=(sr // 2, channels)) * .1
    path = tmp_path/'صوت 声音 звук ñ.wav'
    sf.write(path, sound, sr, subtype='FLOAT')
    y, _ = librosa.load(path)
    np.testing.assert_allclose(clip_features(path), features(y), rtol=1e-3, atol=1e-3)


@pytest.mark.librosa
@pytest.mark.parametrize('n', [1, 100, 2047])
def test_clips_shorter_than_a_window_are_padded_as_librosa_does(n, tmp_path):
    sf.write(tmp_path/'x.wav', TONE[500:500 + n], SR, subtype='FLOAT')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        expected = article_features(TONE[500:500 + n], SR)
    np.testing.assert_allclose(clip_features(tmp_path/'x.wav'), expected, rtol=1e-3, atol=2e-3)
    assert len(padded_clips(table_of([tmp_path/'x.wav']).assign(duration_s=n / SR))) == 1


def test_a_long_recording_has_the_values_it_would_have_at_once(tmp_path):
    sound = np.concatenate([TONE * g for g in RNG.uniform(.01, 1, 120)])
    for sr in (SR, 16000):
        sf.write(tmp_path/'x.wav', sound, sr, subtype='FLOAT')
        at_once = features(to_signal(sound, sr))
        np.testing.assert_allclose(recording_features(tmp_path/'x.wav'), at_once, rtol=1e-3, atol=1e-3)


def test_more_and_trimming_are_refused_for_recordings_in_blocks_and_the_message_says_what_to_do(tmp_path):
    sf.write(tmp_path/'x.wav', np.tile(TONE, 100), SR)
    for settings in (dict(more='energy'), dict(trim_db=40.)):
        reason = extract(table_of([tmp_path/'x.wav']), n_jobs=1, **settings)[1].reason[0]
        assert reason.startswith('too long for more and trim_db: 2,205,000 samples')
        assert 'cut it into shorter files' in reason


def test_feature_vector_gives_what_extract_gives_in_any_order_of_columns(tones):
    more = 'functionals functionals_0.9 pitch'
    table = extract(table_of(tones), n_jobs=1, more=more)[0]
    columns = list(RNG.permutation(table.columns[len(META_COLUMNS):]))
    expected = table[columns].to_numpy(np.float32)
    signals = [load_sound(path) for path in tones]
    assert (feature_matrix(signals, columns) == expected).all()
    assert (feature_vector(signals[2], columns) == expected[2]).all()


def test_a_segment_has_the_features_of_its_part_of_the_file(tones, tmp_path):
    clips = table_of([tones[0]] * 3).assign(start_s=['', '0.2', '0.5'], end_s=['', '0.6', ''])
    parts = [load_sound(tones[0]), load_sound(tones[0], start=.2, end=.6), load_sound(tones[0], start=.5)]
    expected = np.array([features(part) for part in parts])
    for _ in range(2): # computed, then from the cache
        table = extract(clips, n_jobs=1, cache=tmp_path/'cache')[0]
        assert (table[list(FEATURES)].to_numpy() == expected).all()


def test_a_table_without_gender_corpus_and_label_is_extracted_with_the_emotion_as_label(tones):
    table = extract(table_of(tones).assign(gender=['', None, 'male', '']), n_jobs=1)[0]
    assert table.label.tolist() == ['bored'] * 4 # one set of labels
    assert (table.corpus == '').all() and list(table.columns) == [*META_COLUMNS, *FEATURES]
    with pytest.raises(ValueError, match="column 'speaker' is missing"):
        extract(table_of(tones).drop(columns='speaker'))


def test_a_clip_whose_features_overflow_has_its_reason_and_the_others_come_out(tones):
    sf.write(tones[1], np.full(5000, 1e9), SR, subtype='FLOAT')
    table, failed = extract(table_of(tones), n_jobs=1, more='std')
    assert len(table) == 3 and failed.reason.tolist() == ['features are not finite: its samples are too large']


# ---- feature sets of a user

def test_a_set_registered_after_a_read_is_written_and_read(registry, tmp_path):
    write_features(rows_of(), rows_of(), tmp_path/'before')
    read_features(tmp_path/'before') # known columns were kept from here on: later ones were left out without a word
    register_features('crossings', ['zero_crossings'], lambda signal, S, mel: [0.])
    table = rows_of(more=['zero_crossings'])
    for write in (write_features, write_parquet):
        write(table, table, tmp_path/write.__name__)
        found = read_features(tmp_path/write.__name__)[0].zero_crossings
        np.testing.assert_allclose(found, table.zero_crossings, rtol=1e-6) # seven digits


def test_a_set_in_batches_gives_a_clip_the_same_alone_and_among_others(registry, tones, tmp_path):
    (tmp_path/'bad.wav').write_text('no sound')
    seen = []
    def loudness(signals):
        seen.append(len(signals))
        return [[abs(s).max(), len(s)] for s in signals]
    register_features('size', ['peak', 'n_samples'], loudness, batch=True)
    clips = table_of([*tones[:2], tmp_path/'bad.wav', *tones[2:]])
    table, failed = extract(clips, n_jobs=1, more='pitch size')
    assert seen == [4] and failed.path.tolist() == [str(tmp_path/'bad.wav')]
    alone = [extract(clips[i:i + 1], n_jobs=1, more='pitch size')[0] for i in (0, 1, 3, 4)]
    pd.testing.assert_frame_equal(table, pd.concat(alone, ignore_index=True))
    assert (feature_vector(load_sound(tones[1]), ['n_samples', 'peak']) == table.loc[1, ['n_samples', 'peak']]).all()


def test_a_set_that_fails_for_one_clip_of_a_batch_keeps_the_others(registry, tones):
    def picky(signals):
        if any(len(s) == SR - 999 for s in signals): raise ValueError('not this length')
        return [[len(s)] for s in signals]
    register_features('picky', ['length'], picky, batch=True)
    table, failed = extract(table_of(tones), n_jobs=1, more='picky')
    assert table.file.tolist() == ['0', '2', '3'] and failed.reason.tolist() == ['not this length']


def test_a_set_of_a_notebook_reaches_worker_processes(tmp_path):
    "In a new process, where the function cannot be imported"
    sf.write(tmp_path/'x.wav', TONE, SR)
    code = f'''import pandas as pd
from ser_nb.feature_extraction import extract
from ser_nb.functionals import register_features
register_features('own', ['own'], lambda signal, S, mel: [len(signal)])
clips = pd.DataFrame([dict(file=str(i), path={str(tmp_path/'x.wav')!r}, speaker='a', emotion='b') for i in range(4)])
print(extract(clips, n_jobs=2, batch_size=1, more='own')[0].own.tolist())'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == str([float(SR)] * 4), done.stderr


def test_another_version_of_a_set_is_computed_again(registry, tones, tmp_path):
    for version, value in (('1', 1.), ('2', 2.)):
        register_features('own', ['own'], lambda signal, S, mel, value=value: [value], version=version)
        assert (extract(table_of(tones), n_jobs=1, cache=tmp_path, more='own')[0].own == value).all()


@pytest.mark.parametrize('module', ['spectral', 'functionals', 'augmentation', 'workers'])
def test_a_module_for_prediction_imports_nothing_slow(module):
    slow = '{"pandas", "librosa", "sklearn", "joblib", "matplotlib", "scipy.signal"}'
    code = f'import sys, ser_nb.{module}; print(sorted({slow} & set(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


# ---- the cache

def test_what_is_known_is_not_computed_again_and_a_changed_file_is(tmp_path, monkeypatch):
    for name, sound in (('a', TONE), ('b', TONE[::-1])): sf.write(tmp_path/f'{name}.wav', sound, SR)
    clips, computed, original = table_of([tmp_path/'a.wav', tmp_path/'b.wav']), [], feature_extraction._features_of
    def counted(clip, *settings):
        computed.append(Path(clip[0]).name)
        return original(clip, *settings)
    monkeypatch.setattr(feature_extraction, '_features_of', counted)
    first = extract(clips, n_jobs=1, cache=tmp_path/'cache')[0]
    os.utime(tmp_path/'a.wav', (0, 0))
    sf.write(tmp_path/'b.wav', TONE * .5, SR)
    second = extract(clips, n_jobs=1, cache=tmp_path/'cache')[0]
    assert computed == ['a.wav', 'b.wav', 'b.wav']
    assert (first.iloc[0] == second.iloc[0]).all() and (first.iloc[1] != second.iloc[1]).any()


def damage(file, kind):
    "A cache file that something happened to"
    if kind == 'text': file.write_text('no database' * 999)
    if kind == 'header': file.write_bytes(b'SQLite format 3\0' + bytes(4080))
    if kind == 'pages':
        content = bytearray(file.read_bytes())
        content[4096:] = b'\xff' * (len(content) - 4096)
        file.write_bytes(content)
    if kind == 'schema':
        file.unlink()
        with sqlite3.connect(file) as db: db.execute('create table features (name text)')


@pytest.mark.parametrize('kind', ['text', 'header', 'pages', 'schema'])
def test_a_damaged_cache_is_set_aside_with_one_warning_and_the_work_goes_on(kind, tones, tmp_path):
    clips = table_of(tones)
    expected = extract(clips, n_jobs=1, cache=tmp_path)[0]
    damage(tmp_path/'features.sqlite', kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        pd.testing.assert_frame_equal(extract(clips, n_jobs=1, cache=tmp_path)[0], expected)
    told = [str(w.message) for w in caught if 'cache' in str(w.message)]
    assert len(told) == 1 and 'set aside as features.sqlite.corrupt' in told[0] and '\n' not in told[0]
    assert (tmp_path/'features.sqlite.corrupt').exists()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pd.testing.assert_frame_equal(extract(clips, n_jobs=1, cache=tmp_path)[0], expected)


@pytest.mark.parametrize('value', [b'', b'12345', bytes(4 * 179), bytes(4 * 181), 'text', None])
def test_a_row_of_another_length_in_the_cache_is_computed_again(value, tones, tmp_path):
    clips = table_of(tones)
    expected = extract(clips, n_jobs=1, cache=tmp_path)[0]
    with sqlite3.connect(tmp_path/'features.sqlite') as db: db.execute('update features set value = ?', (value,))
    for _ in range(2): pd.testing.assert_frame_equal(extract(clips, n_jobs=1, cache=tmp_path)[0], expected)
    cache = FeatureCache(tmp_path)
    assert {len(v) for v, in cache.db.execute('select value from features')} == {4 * 180}


# ---- files of features

def test_labels_of_any_corpus_are_read_and_empty_ones_refused(tmp_path):
    for column in ('file', 'emotion', 'label'):
        for write in (write_features, write_parquet):
            write(rows_of(), rows_of(**{column: ['a', 'b', ' ', 'c', 'd', 'e']}), tmp_path/f'{column}{write.__name__}')
            with pytest.raises(ValueError, match=f"test_features.*row 3, column '{column}': it is empty"):
                read_features(tmp_path/f'{column}{write.__name__}')
    write_features(rows_of(gender='', corpus=''), rows_of(gender='robot'), tmp_path)
    train, test = read_features(tmp_path)
    assert set(train.label) == {'bored', 'glad'} and (train.gender == '').all() and (test.gender == 'robot').all()
    write_features(rows_of(speaker='').assign(statement='s1'), rows_of().assign(statement=''), tmp_path)
    train, test = read_features(tmp_path)
    assert (train.speaker == '').all() and (train.statement == 's1').all() and (test.statement == '').all()


def test_functionals_in_eight_bits_are_within_half_a_step(tmp_path):
    table = rows_of(200, more=FUNCTIONALS)
    write_features(table, table, tmp_path, eight_bits='functionals')
    off = abs(read_features(tmp_path)[0][list(FUNCTIONALS)] - table[list(FUNCTIONALS)])
    span = table[list(FUNCTIONALS)].max() - table[list(FUNCTIONALS)].min()
    assert (off.max() <= span / 255 * .51).all()


def write_npz(path, **changed):
    "A file of functionals, with arrays replaced"
    arrays = dict(clips=np.array([f'clip{i}' for i in range(6)]), columns=np.array(FUNCTIONALS[:2]))
    np.savez_compressed(path, **arrays | dict(values=np.zeros((6, 2), np.float16)) | changed)


def shape_of(changed):
    "A name for a test's array"
    (name, array), = changed.items()
    return f'{name}-{array.shape}-{array.dtype}'


@pytest.mark.parametrize('changed', [
    dict(values=np.zeros((7, 2), np.float16)), dict(values=np.zeros(12, np.float16)),
    dict(values=np.zeros((6, 2), np.uint8)), dict(columns=np.array(['fn_a', 'fn_b'])),
    dict(columns=np.array([1, 2])), dict(clips=np.array([None] * 6, object))], ids=shape_of)
def test_an_untrusted_npz_of_other_shapes_is_refused_by_name(changed, tmp_path):
    write_features(rows_of(), rows_of(), tmp_path)
    write_npz(companion_file(tmp_path/'test_features.csv'), **changed)
    with pytest.raises(ValueError, match="test_functionals.npz: not a file of functionals|column 'fn_a' is not one of"):
        read_features(tmp_path)


@pytest.mark.parametrize('changed', [
    dict(values=np.zeros((6, 20_000_000), np.float16)), dict(clips=np.zeros(60_000, 'U1000')),
    dict(columns=np.zeros(200_000, 'U500'))], ids=shape_of)
def test_a_strangers_npz_is_refused_before_it_fills_the_memory(changed, tmp_path):
    write_features(rows_of(), rows_of(), tmp_path)
    file = companion_file(tmp_path/'test_features.csv')
    write_npz(file, **changed)
    assert file.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(ValueError, match='test_functionals.npz: not a file of functionals .*would unpack to'):
        read_features(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20_000_000


def test_parquet_of_somebody_else_is_refused_by_its_first_unknown_column(tmp_path):
    write_parquet(rows_of(), rows_of(), tmp_path)
    pd.DataFrame(dict(price=[1])).to_parquet(tmp_path/'test_features'/'part-00000.parquet')
    with pytest.raises(ValueError, match=r"part-00000.parquet: column 'file' is missing$"): read_features(tmp_path)
