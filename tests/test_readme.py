"The README and the pages about the model say what a run measured, nothing else"
import re

import nbclient
import nbformat
import pytest
from conftest import ROOT

pytestmark = pytest.mark.jobs


def markdown(nb):
    return [
        o.data['text/markdown']
        for c in nb.cells
        if c.cell_type == 'code'
        for o in c.outputs
        if 'text/markdown' in o.get('data', {})]


@pytest.mark.parametrize('page', ['index', 'guides/Protocols', 'guides/Model_Card'])
def test_every_figure_is_the_committed_runs(page):
    path = ROOT/'nbs'/f'{page}.ipynb'
    nb = nbformat.read(path, 4)
    stored = markdown(nb)
    nbclient.NotebookClient(nb, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}).execute()
    assert stored and markdown(nb) == stored, f'{page}: run ser-nb pages --rest'
    readme = (ROOT/'README.md').read_text()
    if page == 'index':
        assert all(re.sub(r'\]\((?!https?:|#)', '](nbs/', text) in readme for text in stored)
