"The same seed, the same numbers: on one core and on two, in whatever order the files came"
import os
import shutil

import pytest
from conftest import ser_nb

from ser_nb.combining_datasets import combine, sample_corpus, scan
from ser_nb.feature_extraction import extract, split
from ser_nb.feature_store import write_features
from ser_nb.files import read_json

pytestmark = pytest.mark.jobs


@pytest.mark.environment
def test_features_do_not_depend_on_the_order_or_the_places_of_the_files(tmp_path):
    corpus = sample_corpus(tmp_path/'a', words=1)
    for i, path in enumerate(sorted(corpus.rglob('*.wav'), reverse=True)): # backwards, and in other folders
        (to := tmp_path/'b' / str(i % 7)).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    for name, n_jobs in (('a', 1), ('b', 2)):
        write_features(
            *split(
                extract(
                    combine(scan(tmp_path / name)[0], tmp_path/f'out_{name}'), n_jobs=n_jobs, batch_size=5
                )[0]),
            tmp_path/f'out_{name}')
    for file in ('clips.csv', 'train_features.csv', 'test_features.csv'):
        assert (tmp_path/'out_a' / file).read_bytes() == (tmp_path/'out_b' / file).read_bytes(), file


@pytest.mark.slow # two trainings
@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity') or len(os.sched_getaffinity(0)) < 2, reason='needs two cores')
def test_metrics_are_the_same_on_one_core_and_on_two(tmp_path):
    env = {k: v for k, v in os.environ.items() if 'THREADS' not in k}
    for cores in (1, 2):
        done = ser_nb(
            'run', 'model', '--smoke', '--out', tmp_path / str(cores), env=env,
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]))
        assert done.returncode == 0, done.stderr
    one, two = (read_json(tmp_path/str(cores)/'metrics.json') for cores in (1, 2))
    assert {k: v for k, v in one.items() if k not in ('timings', 'machine')} == {
        k: v for k, v in two.items() if k not in ('timings', 'machine')}
