"The article's system: its network is what the article tells, it trains the same twice, its parameters stand in the job"
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from ser_nb.functionals import FEATURES
from ser_nb.keras_tools import predict_proba
from ser_nb.pipeline import job_parameters
from ser_nb.proposed_system import (
    COLUMNS,
    SETTINGS,
    build_network,
    fit_reduction,
    layer_table,
    train_model,
)

pytestmark = pytest.mark.unit


@pytest.fixture(scope='module')
def clips():
    "Sixty rows of noise with three labels of another corpus"
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, len(FEATURES))), columns=list(FEATURES))
    return table.assign(label=['female_bored', 'male_tired', 'male_sad'] * 20, speaker=[str(i % 4) for i in range(60)])


def test_network_has_convolutions_with_normalisation_dropout_and_penalties(clips):
    first = fit_reduction(clips[list(FEATURES)])
    layers = layer_table(build_network(first, SETTINGS))
    assert (layers.kind == 'Conv1D').sum() >= 3
    assert (layers.kind == 'BatchNormalization').sum() >= (layers.kind == 'Conv1D').sum() + 1
    assert (layers.kind == 'Dropout').sum() >= 4 and min(SETTINGS['dropout']) >= .05
    assert SETTINGS['l1'] >= 1e-7 and SETTINGS['l2'] >= 1e-6
    assert layers.detail[layers.kind == 'Conv1D'].str.contains('L1').all()


def test_the_articles_epochs_patience_and_variance_are_the_defaults():
    assert (SETTINGS['epochs'], SETTINGS['patience'], SETTINGS['variance']) == (30, 20, .95)


def test_same_seed_gives_the_same_weights_and_any_labels_train(clips):
    runs = [train_model(clips, seed=3, epochs=1) for _ in range(2)]
    for one, two in zip(*(network.get_weights() for network, _ in runs)):
        np.testing.assert_array_equal(one, two)
    assert set(runs[0][1]['labels']) == set(clips.label)
    assert predict_proba(runs[0][0], clips, COLUMNS).shape == (60, 3)


REDUCTIONS = """
import numpy as np
from ser_nb.proposed_system import fit_reduction

rng = np.random.default_rng(0)
X = rng.normal(size=(4000, 180)) @ rng.normal(size=(180, 180))
print(len({fit_reduction(X)['components'].tobytes() for _ in range(20)}))
"""


def test_the_components_are_the_same_whichever_thread_ends_first():
    environ = {name: value for name, value in os.environ.items() if not name.endswith('_NUM_THREADS')}
    done = subprocess.run([sys.executable, '-c', REDUCTIONS], env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == '1', done.stderr


PATCHED = """
from sklearn.decomposition import PCA
from ser_nb.proposed_system import patched_sklearn

with patched_sklearn() as messages:
    from sklearn.decomposition import PCA as INSIDE
from sklearn.decomposition import PCA as AFTER
print(INSIDE is not PCA, any('enabled' in line for line in messages), AFTER is PCA)
"""


def test_patch_of_scikit_learn_ends_with_its_block():
    # in a process of its own: where OpenVINO has loaded its libraries, Intel's extension finds none of its own
    done = subprocess.run([sys.executable, '-c', PATCHED], capture_output=True, text=True)
    there = str(bool(find_spec('sklearnex')))
    assert done.stdout.split() == [there, there, 'True'], done.stderr


def test_job_takes_the_parameters_of_the_training():
    assert {'epochs', 'patience', 'batch_size', 'learning_rate', 'held_out', 'seed', 'splits', 'folds'} <= set(
        job_parameters('train'))
