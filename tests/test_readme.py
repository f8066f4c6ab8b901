"The README says what a run measured, nothing else"
import nbclient, nbformat

from conftest import ROOT


def test_every_figure_of_the_readme_is_the_committed_runs():
    nb = nbformat.read(ROOT/'nbs'/'index.ipynb', 4)
    stored = [c.outputs for c in nb.cells if c.cell_type == 'code']
    nbclient.NotebookClient(nb, kernel_name='python3', resources={'metadata': {'path': str(ROOT/'nbs')}}).execute()
    fresh = [o.data['text/markdown'] for c in nb.cells if c.cell_type == 'code' for o in c.outputs]
    assert fresh and fresh == [o.data['text/markdown'] for outputs in stored for o in outputs]
    readme = (ROOT/'README.md').read_text()
    assert all(text.replace('](results/', '](nbs/results/') in readme for text in fresh)
