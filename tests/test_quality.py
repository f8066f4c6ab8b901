"Quality gates: a seeded full training of a model reaches its level, so a change that makes training worse fails"
import pytest

from ser_nb.feature_store import read_features
from ser_nb.keras_tools import labels_of
from ser_nb.metrics import scores
from ser_nb.proposed_system import fit_predict

pytestmark = pytest.mark.jobs


def test_article_system_reaches_its_accuracy_and_lowest_class_f1():
    train, test = read_features()
    proba, labels = fit_predict(train, test, seed=42)
    found = scores(test.label, labels_of(proba, labels))
    assert found['accuracy'] >= .86, found
    assert found['min_class_f1'] >= .5, found
