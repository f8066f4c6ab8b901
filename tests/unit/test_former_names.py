"Code written for the former layout goes on working for one release, and is told what to change"
import importlib
import warnings

import pytest

pytestmark = pytest.mark.unit

FORMER = [
    ('evaluation', 'audit', 'leakage'), ('evaluation', 'accuracy_interval', 'metrics'),
    ('evaluation', 'random_splits', 'splits'), ('feature_extraction', 'mel_spectrogram', 'spectral'),
    ('feature_extraction', 'ABOUT', 'functionals'), ('feature_extraction', 'load', 'audio'),
    ('feature_extraction', 'COPIES', 'augmentation'), ('feature_extraction', 'read_features', 'feature_store'),
    ('combining_datasets', 'LABELS', 'corpora'), ('run_folder', 'finished', 'run_folder'),
    ('prediction', 'ANSWER', 'prediction'), ('prediction', 'light_network', 'model_files'),
    ('baselines', 'fit_and_ask', 'classifiers'), ('robustness', 'HARMS', 'corruptions'),
    ('run_folder', 'in_processes', 'workers'), ('proposed_system', 'load_model', 'model_files'),
]


@pytest.mark.parametrize('module, name, home', FORMER)
def test_a_former_import_still_works_and_names_the_new_home(module, name, home):
    former = importlib.import_module(f'ser_nb.{module}')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        assert getattr(former, name) is not None
    warned = [str(w.message) for w in caught if w.category is DeprecationWarning]
    assert any(f'ser_nb.{module}.{name} is now ser_nb.{home}.' in text for text in warned), warned


FORWARDING = (
    'evaluation', 'feature_extraction', 'combining_datasets', 'pipeline', 'run_folder', 'prediction', 'baselines',
    'benchmark', 'robustness')


@pytest.mark.parametrize('module', FORWARDING)
def test_every_former_name_leads_somewhere(module):
    former = importlib.import_module(f'ser_nb.{module}')
    names = former.__getattr__.__closure__
    table = next(cell.cell_contents for cell in names if isinstance(cell.cell_contents, dict))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name in table: former.__getattr__(name)


@pytest.mark.parametrize('module', ['evaluation', 'feature_extraction', 'run_folder'])
def test_a_name_that_never_was_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match='never_was'):
        importlib.import_module(f'ser_nb.{module}').never_was


@pytest.mark.parametrize('n_inputs', [180, 480])
def test_predict_proba_of_proposed_system_finds_the_columns_of_either_model(n_inputs, monkeypatch):
    from ser_nb import keras_tools, proposed_system
    network, asked = type('Network', (), dict(input_shape=(None, n_inputs))), []
    monkeypatch.setattr(keras_tools, 'predict_proba', lambda network, table, columns: asked.append(len(columns)))
    proposed_system.predict_proba(network, None)
    assert asked == [n_inputs]
